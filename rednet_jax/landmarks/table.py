"""CSV files in and out: `name,x0,y0,...,x67,y67` for landmarks, `name,x0,y0,x1,y1` for face boxes.

Each row is a picture or a frame. Coordinates are pixels of the whole picture, pixel centres at
integers, 0-based. A face with no answer is a row of `nan`. Predictions leave `align`, `track` and
`eval` in this form, and anyone's predictions enter `eval` in it.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.files import write_text


def landmarks_csv(names: Sequence[str], landmarks: NDArray[np.floating]) -> str:
    """Returns the table of landmarks [N, L, 2] as text, coordinates to 1/1000 px.

    Raises:
        ValueError: landmarks of another shape, or another number of names than of faces.
    """
    landmarks = np.asarray(landmarks)
    if landmarks.ndim != 3 or landmarks.shape[2] != 2 or len(names) != len(landmarks):
        raise ValueError(f"{len(names)} names for landmarks of shape {landmarks.shape}")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_header(landmarks.shape[1]))
    for name, row in zip(names, landmarks, strict=True):
        writer.writerow([name, *(f"{value:.3f}" for value in row.reshape(-1))])
    return text.getvalue()


def write_landmarks_csv(
    path: str | os.PathLike[str], names: Sequence[str], landmarks: NDArray[np.floating]
) -> None:
    """Writes landmarks [N, L, 2] with their names; the file appears whole or not at all.

    Raises:
        RednetError: the file cannot be written.
        ValueError: as `landmarks_csv` does.
    """
    write_text(path, landmarks_csv(names, landmarks))


def read_landmarks_csv(
    path: str | os.PathLike[str], count: int = 68
) -> tuple[list[str], NDArray[np.float32]]:
    """Reads a table of landmarks.

    Args:
        path: of the file.
        count: L, the landmarks of a row.

    Returns:
        N names, and landmarks float32 [N, L, 2], nan where a face has no answer.

    Raises:
        RednetError: a file that cannot be read, another header, a row of another length, a value
            that is no number, infinite, or `nan` in a part of the row, a name that comes twice.
    """
    names: list[str] = []
    rows: list[NDArray[np.float32]] = []
    for line, name, values in _read_rows(path, _header(count)):
        if np.isnan(values).any() and not np.isnan(values).all():
            raise RednetError(f"{path}: line {line}: nan in a part of the row")
        names.append(name)
        rows.append(values)
    return names, np.asarray(rows, np.float32).reshape(-1, count, 2)


def read_boxes_csv(path: str | os.PathLike[str]) -> dict[str, NDArray[np.float32]]:
    """Returns the boxes (x0, y0, x1, y1), float32 [4], of a table by name.

    Raises:
        RednetError: as `read_landmarks_csv` does, and for a box without area.
    """
    boxes = {}
    for line, name, box in _read_rows(path, ["name", "x0", "y0", "x1", "y1"]):
        if not (box[2] > box[0] and box[3] > box[1]):
            raise RednetError(f"{path}: line {line}: not a box: x0 < x1 and y0 < y1 are needed")
        boxes[name] = box
    return boxes


def plain_float(text: str) -> float:
    """Returns a number as every program reads it: no underscores, no digits of other scripts.

    Raises:
        ValueError: it is none.
    """
    if "_" in text or not text.isascii():
        raise ValueError(f"could not convert string to float: {text!r}")
    return float(text)


def _header(count: int) -> list[str]:
    return ["name", *(f"{axis}{i}" for i in range(count) for axis in "xy")]


def _read_rows(
    path: str | os.PathLike[str], header: Sequence[str]
) -> list[tuple[int, str, NDArray[np.float32]]]:
    """Returns each row's line number, name (unique) and numbers (finite or nan)."""
    try:
        # A picture's name may hold bytes that are no UTF-8; they go in and out as they are.
        with Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, row) for row in reader if row]
    except OSError as error:
        raise RednetError(f"{path}: cannot be read ({error.strerror})") from error
    except csv.Error as error:
        raise RednetError(f"{path}: line {reader.line_num}: {error}") from error
    if not lines or [cell.strip() for cell in lines[0][1]] != list(header):
        shown = header if len(header) < 8 else [*header[:3], "...", header[-1]]
        raise RednetError(f"{path}: the first line is not {','.join(shown)}")
    rows: dict[str, tuple[int, str, NDArray[np.float32]]] = {}
    for line, (name, *cells) in lines[1:]:
        if len(cells) != len(header) - 1:
            raise RednetError(
                f"{path}: line {line}: {len(cells) + 1} columns instead of {len(header)}"
            )
        if name in rows:
            raise RednetError(f"{path}: line {line}: {name!r} comes twice")
        try:
            with np.errstate(over="ignore"):
                values = np.array([plain_float(cell) for cell in cells], np.float32)
        except ValueError as error:
            raise RednetError(f"{path}: line {line}: {error}") from error
        if np.isinf(values).any():
            raise RednetError(f"{path}: line {line}: an infinite coordinate")
        rows[name] = line, name, values
    return list(rows.values())
