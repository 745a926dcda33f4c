"""The .pts text format of 300-W: one face per file, 1-based pixels."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.files import write_text
from rednet_jax.landmarks.table import plain_float

# Bytes; a file with 68 points has about 1,500.
_LARGEST = 262_144
# Pixels; more than the sides of images.
_FARTHEST = 1e6


def read_pts(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Returns the landmarks of a .pts file: [L, 2] float32, 0-based pixels (x, y), L at least 1.

    The file is UTF-8, with or without a byte order mark. Its header has `n_points: L`, and may have
    other lines, such as `version: 1`. The points follow in braces, two numbers per line, separated
    by blanks or tabs. Blank lines and lines that start with `#` or `//` are ignored.

    Raises:
        RednetError: the file cannot be read, has no header, lacks braces or has text after them,
            has no points or not `n_points`, or a coordinate is not a number or a million or more.
    """
    try:
        if os.path.getsize(path) > _LARGEST:
            raise RednetError(f"{path}: not a .pts file (larger than {_LARGEST} bytes)")
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RednetError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise RednetError(f"{path}: not a .pts file (not text in UTF-8)") from None
    lines = (line.strip() for line in text.splitlines())
    text = "\n".join(line for line in lines if line and not line.startswith(("#", "//")))
    head, opening, text = text.partition("{")
    declared = {
        value.strip()
        for name, _, value in (line.partition(":") for line in head.splitlines())
        if name.strip() == "n_points"
    }
    if not declared:
        raise RednetError(f"{path}: no n_points line")
    if not opening:
        raise RednetError(f"{path}: no opening brace")
    body, closing, rest = text.partition("}")
    if not closing:
        raise RednetError(f"{path}: no closing brace")
    if rest.strip():
        raise RednetError(f"{path}: text after the closing brace")
    rows = [line.split() for line in body.splitlines() if line.strip()]
    if declared != {str(len(rows))}:
        raise RednetError(
            f"{path}: {len(rows)} points, but n_points is {' and '.join(sorted(declared))}"
        )
    if not rows:
        raise RednetError(f"{path}: no points")
    try:
        points = np.asarray([[plain_float(x), plain_float(y)] for x, y in rows]) - 1
    except ValueError:
        raise RednetError(f"{path}: a line between the braces is not two numbers") from None
    if not (np.abs(points) < _FARTHEST).all():
        raise RednetError(f"{path}: a coordinate is not a pixel of an image")
    return points.astype(np.float32)


def write_pts(path: str | os.PathLike[str], landmarks: NDArray[np.floating]) -> None:
    """Writes landmarks [L, 2], 0-based pixels, as a .pts file, atomically.

    Raises:
        RednetError: L is 0, a coordinate is not finite, or the file cannot be written.
    """
    points = np.asarray(landmarks, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points) or not np.isfinite(points).all():
        raise RednetError(f"{path}: landmarks of shape {points.shape}, or not finite")
    rows = "\n".join(f"{x:.4f} {y:.4f}" for x, y in points + 1)
    write_text(path, f"version: 1\nn_points: {len(points)}\n{{\n{rows}\n}}\n")
