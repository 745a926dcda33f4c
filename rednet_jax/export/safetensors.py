"""A checkpoint as one safetensors file: from a run folder, or with smaller kernels."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.evaluate.protocols import align_crops
from rednet_jax.export.folder import feedback_steps_of, versions
from rednet_jax.files import write_text
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.store import checkpoint_name, load, write_weights


def export_safetensors(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    dtype: Literal["float32", "float16"] = "float32",
    *,
    feedback_steps: int | None = None,
) -> dict[str, Any]:
    """Writes OUT/NAME.safetensors, and OUT/export.json with what the way through the file changed.

    Args:
        checkpoint: a released name, a safetensors file, or a run folder; NAME is its last part.
        out: folder, made if need be.
        dtype: of the kernels in the file.
        feedback_steps: K that landmarks are compared at; None for the K it was trained with.

    Returns:
        What export.json holds: `target`, `files`, `dtype`, `feedback_steps`, `max_difference_px`
        (crop pixels, the largest distance that a landmark moved on a crop of noise), and
        `versions`.

    Raises:
        RednetError: a checkpoint that cannot be read, or files that cannot be written.
    """
    config, variables = load(checkpoint)
    steps = feedback_steps_of(config, feedback_steps)
    file = Path(out) / f"{checkpoint_name(checkpoint)}.safetensors"
    if file.resolve() == Path(checkpoint).resolve():
        raise RednetError(f"{file}: would replace the checkpoint itself")
    write_weights(file, config, variables, dtype=dtype)
    moved = _landmarks(*load(file), steps) - _landmarks(config, variables, steps)
    written = {
        "target": "safetensors",
        "files": [file.name],
        "dtype": dtype,
        "feedback_steps": steps,
        "max_difference_px": float(np.linalg.norm(moved, axis=-1).max()),
        "versions": versions(["jax", "flax", "safetensors"]),
    }
    write_text(Path(out) / "export.json", json.dumps(written, indent=2) + "\n")
    return written


def _landmarks(
    config: RedNetConfig, variables: dict[str, Any], feedback_steps: int
) -> NDArray[np.float32]:
    """Landmarks [L, 2] in crop pixels on a crop of noise, always the same."""
    shape = 1, config.picture_size, config.picture_size, 3
    crop = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    per_step = align_crops(config, variables, crop, feedback_steps, batch=1)
    landmarks: NDArray[np.float32] = per_step[-1, 0]
    return landmarks
