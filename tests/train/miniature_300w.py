"""A 300-W tree of drawn faces, for tests that prepare, train and evaluate with files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rednet_jax.data.builders.tree_300w import validation_names
from rednet_jax.data.prepare import prepare
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.pts import write_pts

SIDE = 64


def draw_300w(root: Path, *, train: int = 6, validation: int = 3) -> Path:
    """Writes NAME.png and NAME.pts of faces below `root`, and returns `root`."""
    names = [f"helen/trainset/face{i}" for i in range(train)]
    for seed, name in enumerate([*names, *validation_names()[:validation]]):
        image, landmarks = draw_face(seed)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / f"{name}.png")
        write_pts(root / f"{name}.pts", landmarks)
    return root


def prepare_300w(folder: Path, *, train: int = 6, validation: int = 3) -> Path:
    """Prepares a tree of drawn faces, and returns the folder of prepared data."""
    tree = draw_300w(folder / "tree", train=train, validation=validation)
    prepare("300w", tree, folder / "prepared")
    return folder / "prepared"


def draw_face(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draws a face at random landmarks: uint8 [64, 64, 3] and float32 [68, 2], image pixels."""
    rng = np.random.default_rng(seed)
    angle, size = rng.normal(0, 0.15), SIDE * rng.uniform(0.5, 0.65)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    bent = IBUG68.shape + rng.normal(0, 0.02, (68, 2))
    landmarks = (size * bent @ turn + SIDE / 2 + rng.uniform(-4, 4, 2)).astype(np.float32)
    image = Image.new("RGB", (SIDE, SIDE), tuple(rng.integers(0, 120, 3)))
    pen = ImageDraw.Draw(image)
    parts = {part.name: [tuple(landmarks[i]) for i in part.points] for part in IBUG68.parts}
    skin = tuple(rng.integers(150, 230, 3))
    pen.polygon(parts["jaw"] + parts["left_brow"][::-1] + parts["right_brow"][::-1], fill=skin)
    for name, colour in (("right_eye", "white"), ("left_eye", "white"), ("outer_lips", "red")):
        pen.polygon(parts[name], fill=colour, outline="black")
    for name in ("right_brow", "left_brow", "nose_bridge", "nose_base", "inner_lips"):
        pen.line(parts[name], fill="black")
    return np.asarray(image), landmarks
