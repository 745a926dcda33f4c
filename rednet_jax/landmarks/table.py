"""CSV files: `name,x0,y0,x1,y1,...` for landmarks, `name,x0,y0,x1,y1` for face boxes.

Each row is a face of an image, or a frame. Coordinates are pixels of the whole image, 0-based, with
pixel centres at integers. A row of `nan` is a missed face. `align`, `track` and `eval` write
predictions in this form, and `eval` reads them. `align` adds `FACE_COLUMNS` after the name, and
`track` adds `IDENTITY`.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.files import write_text
from rednet_jax.reading import csv_rows

FACE_COLUMNS = ("face", "score", "confidence")
"""Columns of `align`'s table: number of the face in its image from 0 (that of its box if the boxes
are from a file), the detector's score (nan if the boxes are from a file), and the mean confidence
of the landmarks."""


IDENTITY = ("identity",)
"""Column of `track`'s table: number of the person, or empty for a frame without a face."""


def landmarks_csv(
    names: Sequence[str],
    landmarks: NDArray[np.floating],
    columns: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Returns the table of landmarks [N, L, 2] as text, coordinates to 1/1000 px.

    Args:
        names: N names of the rows.
        landmarks: [N, L, 2], of the rows.
        columns: additional columns after `name`, by name: `FACE_COLUMNS` or `IDENTITY`.

    Raises:
        ValueError: the landmarks have another shape, or there are not N names.
    """
    landmarks = np.asarray(landmarks)
    if landmarks.ndim != 3 or landmarks.shape[2] != 2 or len(names) != len(landmarks):
        raise ValueError(f"{len(names)} names for landmarks of shape {landmarks.shape}")
    columns = columns or {}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    name_column, *coordinates = _header(landmarks.shape[1])
    writer.writerow([name_column, *columns, *coordinates])
    extra = zip(*columns.values(), strict=True) if columns else [()] * len(names)
    for name, cells, row in zip(names, extra, landmarks, strict=True):
        writer.writerow([name, *cells, *(f"{value:.3f}" for value in row.reshape(-1))])
    return text.getvalue()


def write_landmarks_csv(
    path: str | os.PathLike[str], names: Sequence[str], landmarks: NDArray[np.floating]
) -> None:
    """Writes landmarks [N, L, 2] with their names as a CSV file, atomically.

    Raises:
        RednetError: the file cannot be written.
        ValueError: as `landmarks_csv` raises it.
    """
    write_text(path, landmarks_csv(names, landmarks))


def read_landmarks_csv(
    path: str | os.PathLike[str], count: int | None = None
) -> tuple[list[str], NDArray[np.float32]]:
    """Reads a table of landmarks; `FACE_COLUMNS` and `IDENTITY` are skipped.

    Args:
        path: of the file.
        count: L, landmarks per row; None for the number in the header.

    Returns:
        N names, and landmarks float32 [N, L, 2], nan for missed faces.

    Raises:
        RednetError: the file cannot be read, the header or the length of a row is wrong, a value is
            not a number or infinite, only a part of a row is nan, or a name occurs twice.
    """
    names: list[str] = []
    rows: list[NDArray[np.float32]] = []
    if count is None:
        count = (
            sum(re.fullmatch(r"x\d+", cell.strip()) is not None for cell in first_row(path)) or 1
        )
    table = _rows_of(path, _header(count), (FACE_COLUMNS, IDENTITY))
    for line, name, values in _unique(path, table):
        if np.isnan(values).any() and not np.isnan(values).all():
            raise RednetError(f"{path}: line {line}: only a part of the row is nan")
        names.append(name)
        rows.append(values)
    return names, np.asarray(rows, np.float32).reshape(-1, count, 2)


def read_boxes_csv(path: str | os.PathLike[str]) -> dict[str, list[NDArray[np.float32]]]:
    """Returns the boxes (x0, y0, x1, y1), float32 [4], of each name, in the order of the table.

    Raises:
        RednetError: as `read_landmarks_csv` raises it, except for names that occur twice, and for a
            box without area.
    """
    boxes: dict[str, list[NDArray[np.float32]]] = {}
    for line, name, box in _rows_of(path, ["name", "x0", "y0", "x1", "y1"]):
        if not (box[2] > box[0] and box[3] > box[1]):
            raise RednetError(f"{path}: line {line}: not a box: x0 < x1 and y0 < y1 are required")
        boxes.setdefault(name, []).append(box)
    return boxes


def plain_float(text: str) -> float:
    """Returns the number of a text; unlike `float`, only of ASCII digits without underscores.

    Raises:
        ValueError: the text is not such a number.
    """
    if "_" in text or not text.isascii():
        raise ValueError(f"could not convert string to float: {text!r}")
    return float(text)


def _header(count: int) -> list[str]:
    return ["name", *(f"{axis}{i}" for i in range(count) for axis in "xy")]


Row = tuple[int, str, NDArray[np.float32]]
"""Line number, name, and numbers, finite or nan."""


def _unique(path: str | os.PathLike[str], rows: Iterable[Row]) -> Iterator[Row]:
    names = set()
    for line, name, values in rows:
        if name in names:
            raise RednetError(f"{path}: line {line}: {name!r} occurs twice")
        names.add(name)
        yield line, name, values


def _rows_of(
    path: str | os.PathLike[str],
    header: Sequence[str],
    skipped: Sequence[Sequence[str]] = (),
) -> Iterator[Row]:
    """Yields each row. The columns of one of the groups in `skipped` may follow the name."""
    with _reading(path):
        lines = csv_rows(path)
        _, first = next(lines, (0, []))
        columns = [cell.strip() for cell in first]
        groups = [group for group in skipped if columns[1 : 1 + len(group)] == list(group)]
        extra = len(groups[0]) if groups else 0
        if columns[:1] + columns[1 + extra :] != list(header):
            expected = header if len(header) < 8 else [*header[:3], "...", header[-1]]
            raise RednetError(f"{path}: the first line is not {','.join(expected)}")
        for line, cells in lines:
            yield line, cells[0], _numbers(path, line, cells, len(columns), 1 + extra)


def first_row(path: str | os.PathLike[str]) -> list[str]:
    """Returns the cells of the first line of a table, or [] for an empty file.

    Raises:
        RednetError: the file cannot be read.
    """
    with _reading(path):
        return next(csv_rows(path), (0, []))[1]


@contextlib.contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RednetError(f"{path}: cannot be read ({error.strerror})") from error
    except RednetError:
        raise
    except ValueError as error:
        raise RednetError(f"{path}: {error}") from error


def _numbers(
    path: str | os.PathLike[str], line: int, cells: Sequence[str], count: int, begin: int
) -> NDArray[np.float32]:
    """The numbers of a row of `count` cells, from cell `begin` on."""
    if len(cells) != count:
        raise RednetError(f"{path}: line {line}: {len(cells)} columns instead of {count}")
    try:
        with np.errstate(over="ignore"):
            values = np.array([plain_float(cell) for cell in cells[begin:]], np.float32)
    except ValueError as error:
        raise RednetError(f"{path}: line {line}: {error}") from error
    if np.isinf(values).any():
        raise RednetError(f"{path}: line {line}: an infinite coordinate")
    return values
