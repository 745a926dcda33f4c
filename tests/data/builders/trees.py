"""Small images and landmarks for source folders, and a reader of prepared samples."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from numpy.typing import NDArray
from PIL import Image

from rednet_jax.data.prepare import Prepared
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.pts import write_pts

LANDMARKS = (IBUG68.shape * 20 + [16, 12]).astype(np.float32)
IMAGE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)

Samples = list[dict[str, Any]]


def save_image(path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(IMAGE).save(path, **options)
    return path


def add_faces(root: Path, names: Iterable[str], ending: str = ".png") -> Path:
    for name in names:
        save_image(root / f"{name}{ending}")
        write_pts(root / f"{name}.pts", LANDMARKS)
    return root


def write_labels(
    path: Path, rows: dict[str, int], landmarks: NDArray[np.floating] = LANDMARKS
) -> None:
    """Writes a CSV of machine labels: {file: trusted}, with the same landmarks for all files."""
    header = ["file", "trusted", "disagreement", *(f"{a}{i}" for i in range(68) for a in "xy")]
    values = ",".join(f"{value:.2f}" for value in np.reshape(landmarks, -1))
    lines = [f"{file},{trusted},2.50,{values}" for file, trusted in rows.items()]
    path.write_text("\n".join([",".join(header), *lines]) + "\n")


def read_back(prepared: Prepared) -> dict[str, Samples]:
    """Returns the samples of each split in stored order."""
    source = tfds.builder_from_directory(prepared.folder).as_data_source()
    return {split: list(source[split]) for split in prepared.samples}


def names(samples: Samples) -> list[str]:
    return [sample["name"].decode() for sample in samples]
