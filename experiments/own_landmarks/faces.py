"""Writes an example folder of labelled images: generated faces, 98 landmarks in a CSV file.

    python experiments/own_landmarks/faces.py FOLDER --count 600

FOLDER gets images/ and labels.csv with the columns name, x0, y0, ..., x97, y97 and identity. The
landmarks are those of WFLW, in its order.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from rednet_jax.data.synthetic.generate import SyntheticConfig, generate
from rednet_jax.files import write_text
from rednet_jax.landmarks.builtin import HEAD70, WFLW98
from rednet_jax.landmarks.convert import convert
from rednet_jax.landmarks.table import landmarks_csv

FACES = SyntheticConfig(size=256, margin=2.15, yaw=35.0)
"""Heads with room around them, as in a photograph."""


def main(folder: Path, count: int) -> None:
    """Draws the faces; the key of a face is its number."""
    draw = jax.jit(functools.partial(generate, FACES))
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names, landmarks = [], []
    for number in range(count):
        image, points = draw(jax.random.key(number))
        pixels = np.rint(np.asarray(image) * 255).astype(np.uint8)
        names.append(f"{number:05d}.jpg")
        Image.fromarray(pixels).save(folder / "images" / names[-1], quality=95)
        landmarks.append(convert(np.asarray(points), HEAD70, WFLW98))
    people = [f"person {number}" for number in range(count)]
    table = landmarks_csv(names, np.stack(landmarks), {"identity": people})
    write_text(folder / "labels.csv", table)
    print(f"{folder}: {count} faces")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=600)
    arguments = parser.parse_args()
    main(arguments.folder, arguments.count)
