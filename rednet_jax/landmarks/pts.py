"""The .pts format of 300-W: one face a file, text, pixels counted from 1."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.files import write_text

# A face of 68 points takes about 1.5 kB; anything far beyond is not such a file.
_LARGEST = 65_536
# No picture has as many pixels on a side.
_FARTHEST = 1e6


def read_pts(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Returns the landmarks of a .pts file: [L, 2] float32, 0-based pixels (x, y), L = 68 or 7.

    Raises:
        RednetError: a missing or unreadable file, no header, missing braces, another number of
            points than promised, neither 68 nor 7, a coordinate that is no number or lies
            a million pixels away.
    """
    try:
        if os.path.getsize(path) > _LARGEST:
            raise RednetError(f"{path}: not a .pts file (larger than {_LARGEST} bytes)")
        text = Path(path).read_text(encoding="ascii")
    except OSError as error:
        raise RednetError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise RednetError(f"{path}: not a .pts file (not text)") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    header: dict[str, str] = {}
    while lines and ":" in lines[0]:
        name, _, value = lines.pop(0).partition(":")
        header[name.strip()] = value.strip()
    if "n_points" not in header:
        raise RednetError(f"{path}: no n_points line")
    if not lines or lines[0] != "{":
        raise RednetError(f"{path}: no opening brace")
    if lines[-1] != "}":
        raise RednetError(f"{path}: no closing brace")
    rows = [line.split() for line in lines[1:-1]]
    if header["n_points"] != str(len(rows)):
        raise RednetError(f"{path}: {len(rows)} points where {header['n_points']} are promised")
    if len(rows) not in (68, 7):
        raise RednetError(f"{path}: {len(rows)} points, not 68 or 7")
    try:
        points = np.asarray([[float(x), float(y)] for x, y in rows]) - 1
    except ValueError:
        raise RednetError(f"{path}: a line between the braces is not two numbers") from None
    if not (np.abs(points) < _FARTHEST).all():
        raise RednetError(f"{path}: a coordinate is no place in a picture")
    return points.astype(np.float32)


def write_pts(path: str | os.PathLike[str], landmarks: NDArray[np.floating]) -> None:
    """Writes landmarks [L, 2], 0-based pixels, as a .pts file; it appears whole or not at all.

    Raises:
        RednetError: L is neither 68 nor 7, a coordinate is not finite, or the file cannot be
            written.
    """
    points = np.asarray(landmarks, np.float64)
    if points.shape not in ((68, 2), (7, 2)) or not np.isfinite(points).all():
        raise RednetError(f"{path}: landmarks of shape {points.shape}, or not finite")
    rows = "\n".join(f"{x:.4f} {y:.4f}" for x, y in points + 1)
    write_text(path, f"version: 1\nn_points: {len(points)}\n{{\n{rows}\n}}\n")
