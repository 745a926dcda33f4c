"""The .pts format of 300-W: one face a file, text, pixels counted from 1."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.files import write_text
from rednet_jax.landmarks.table import plain_float

# A face of 68 points takes about 1.5 kB; anything far beyond is not such a file.
_LARGEST = 262_144
# No image has as many pixels on a side.
_FARTHEST = 1e6


def read_pts(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Returns the landmarks of a .pts file: [L, 2] float32, 0-based pixels (x, y), L at least 1.

    The file is UTF-8, with or without a byte order mark. Its header has `n_points: L`, and may have
    other lines, such as `version: 1`. The points follow in braces, two numbers a line, parted by
    blanks or tabs. Lines that are blank or begin with `#` or `//` do not count.

    Raises:
        RednetError: a missing or unreadable file, no header, missing braces or text behind them,
            another number of points than promised, no points, a coordinate that is no number or
            lies a million pixels away.
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
    promised = {
        value.strip()
        for name, _, value in (line.partition(":") for line in head.splitlines())
        if name.strip() == "n_points"
    }
    if not promised:
        raise RednetError(f"{path}: no n_points line")
    if not opening:
        raise RednetError(f"{path}: no opening brace")
    body, closing, rest = text.partition("}")
    if not closing:
        raise RednetError(f"{path}: no closing brace")
    if rest.strip():
        raise RednetError(f"{path}: text behind the closing brace")
    rows = [line.split() for line in body.splitlines() if line.strip()]
    if promised != {str(len(rows))}:
        told = " and ".join(sorted(promised))
        raise RednetError(f"{path}: {len(rows)} points where {told} are promised")
    if not rows:
        raise RednetError(f"{path}: no points")
    try:
        points = np.asarray([[plain_float(x), plain_float(y)] for x, y in rows]) - 1
    except ValueError:
        raise RednetError(f"{path}: a line between the braces is not two numbers") from None
    if not (np.abs(points) < _FARTHEST).all():
        raise RednetError(f"{path}: a coordinate is no place in an image")
    return points.astype(np.float32)


def write_pts(path: str | os.PathLike[str], landmarks: NDArray[np.floating]) -> None:
    """Writes landmarks [L, 2], 0-based pixels, as a .pts file; it appears whole or not at all.

    Raises:
        RednetError: L is 0, a coordinate is not finite, or the file cannot be written.
    """
    points = np.asarray(landmarks, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points) or not np.isfinite(points).all():
        raise RednetError(f"{path}: landmarks of shape {points.shape}, or not finite")
    rows = "\n".join(f"{x:.4f} {y:.4f}" for x, y in points + 1)
    write_text(path, f"version: 1\nn_points: {len(points)}\n{{\n{rows}\n}}\n")
