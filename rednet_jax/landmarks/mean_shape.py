"""Computes the mean shape: `python -m rednet_jax.landmarks.mean_shape FOLDER > mean_shape_68.json`.

FOLDER holds .pts files at any depth, such as the training part of 300-W.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.pts import read_pts
from rednet_jax.landmarks.schemes import mirror_landmarks


def average_shape(shapes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the mean [68, 2] of shapes [N, 68, 2] and of their mirror images.

    Each shape is relative to the centre of its bounding box, in units of the box's larger side.
    """
    boxes = np.stack([landmark_box(shape) for shape in shapes])
    centre = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    side = (boxes[:, 2:] - boxes[:, :2]).max(-1)[:, None, None]
    mean = ((shapes - centre) / side).mean(0)
    # With width 1, `mirror_landmarks` mirrors at x = 0.
    return np.asarray((mean + mirror_landmarks(mean, 1, IBUG68)) / 2, np.float32)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    files = sorted(parser.parse_args().folder.rglob("*.pts"))
    mean = average_shape(np.stack([read_pts(file) for file in files]))
    rows = [[round(float(x), 5), round(float(y), 5)] for x, y in mean]
    json.dump({"faces": len(files), "landmarks": rows}, sys.stdout)
