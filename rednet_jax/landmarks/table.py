"""Landmarks of many pictures or frames as one CSV file: `name,x0,y0,...,x67,y67`.

Coordinates are pixels of the whole picture, pixel centres at integers, 0-based. A face with no answer is a row of
`nan`. The same file carries predictions from `align`, `track` and `eval`, and anyone's predictions into `eval`.
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


def landmarks_csv(names: Sequence[str], landmarks: NDArray[np.floating]) -> str:
    """The table of landmarks [N, L, 2] as text, coordinates to 1/1000 px."""
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

    Raises: RednetError where the file cannot be written.
    """
    write_text(path, landmarks_csv(names, landmarks))


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file that appears whole or not at all. Raises: RednetError where it cannot be written."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise RednetError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)


def read_landmarks_csv(
    path: str | os.PathLike[str], count: int = 68
) -> tuple[list[str], NDArray[np.float32]]:
    """Names and landmarks float32 [N, count, 2] of a table; rows with no answer are nan.

    Raises: RednetError, naming file and line, for a missing file, another header, a row of another length, a value
    that is no number, infinite, or `nan` in only part of a row, and a name that comes twice.
    """
    names: list[str] = []
    rows: list[NDArray[np.float32]] = []
    table = read_table(path, _header(count))
    for line, row in table:
        name, values = row[0], _numbers(path, line, row[1:])
        if np.isnan(values).any() and not np.isnan(values).all():
            raise RednetError(f"{path}: line {line}: nan in a part of the row")
        names.append(name)
        rows.append(values.reshape(count, 2))
    landmarks = np.stack(rows) if rows else np.empty((0, count, 2), np.float32)
    return names, landmarks


def read_boxes_csv(path: str | os.PathLike[str]) -> dict[str, NDArray[np.float32]]:
    """Boxes float32 [4] by name from a file with the header `name,x0,y0,x1,y1` (picture pixels).

    Raises: RednetError, naming file and line, as `read_landmarks_csv` does, and for a box without area.
    """
    boxes = {}
    for line, row in read_table(path, ["name", "x0", "y0", "x1", "y1"]):
        box = _numbers(path, line, row[1:])
        if not (box[2] > box[0] and box[3] > box[1]):
            raise RednetError(f"{path}: line {line}: not a box: x0 < x1 and y0 < y1 are needed")
        boxes[row[0]] = box
    return boxes


def read_table(
    path: str | os.PathLike[str], header: Sequence[str]
) -> list[tuple[int, list[str]]]:
    """Rows of a CSV file with their line numbers, each as long as the header, names (first column) unique.

    Raises: RednetError naming file and line.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, row) for row in reader if row]
    except OSError as error:
        raise RednetError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise RednetError(f"{path}: not a CSV file") from error
    if not lines or [cell.strip() for cell in lines[0][1]] != list(header):
        raise RednetError(f"{path}: the first line is not {_shortened(header)}")
    seen: set[str] = set()
    for line, row in lines[1:]:
        if len(row) != len(header):
            raise RednetError(f"{path}: line {line}: {len(row)} columns instead of {len(header)}")
        if row[0] in seen:
            raise RednetError(f"{path}: line {line}: {row[0]!r} comes twice")
        seen.add(row[0])
    return lines[1:]


def _header(count: int) -> list[str]:
    return ["name", *(f"{axis}{i}" for i in range(count) for axis in "xy")]


def _shortened(header: Sequence[str]) -> str:
    return ",".join(header) if len(header) < 8 else f"{','.join(header[:3])},...,{header[-1]}"


def _numbers(path: str | os.PathLike[str], line: int, cells: list[str]) -> NDArray[np.float32]:
    try:
        values = np.array([float(cell) for cell in cells], np.float32)
    except ValueError as error:
        raise RednetError(f"{path}: line {line}: {error}") from error
    if np.isinf(values).any():
        raise RednetError(f"{path}: line {line}: an infinite coordinate")
    return values
