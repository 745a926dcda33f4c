"""Tables of points that landmark tools predicted, one row per face.

labels_300w_style.csv has the columns file (relative to its folder), trusted (1 or 0), disagreement
(of the tools, percent of the inter-ocular distance), x0, y0, ..., x67, y67 (0-based pixels).
Publishers' tables have other headers; the points are the last 136 columns.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.builders.examples import FARTHEST, check_face
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.table import plain_float

FILE = "labels_300w_style.csv"
HEADER = ("file", "trusted", "disagreement", *(f"{axis}{i}" for i in range(68) for axis in "xy"))


class MachineLabels:
    """The rows of one table; a row is parsed when its face is read.

    Attributes:
        files: the images that have a row, in the table's order.
    """

    def __init__(self, path: Path, header: Sequence[str] = HEADER) -> None:
        """Reads the file.

        Args:
            path: of the table.
            header: its columns: first the file, then optionally `trusted`, last the points.

        Raises:
            RednetError: the table cannot be read, has another header, or lists an image twice.
        """
        self.path = path
        try:
            with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                first, *rows = [row for row in csv.reader(file, strict=True) if row] or [[]]
        except OSError as error:
            raise RednetError(f"{path}: cannot be read ({error.strerror})") from error
        except csv.Error as error:
            raise RednetError(f"{path}: {error}") from error
        if tuple(first) != tuple(header):
            shown = ",".join(header[:5])
            raise RednetError(f"{path}: the first line is not {shown},...,{header[-1]}")
        self._columns = len(header)
        self._has_trust = header[1] == "trusted"
        self._rows = {row[0]: row for row in rows}
        if len(self._rows) < len(rows):
            raise RednetError(f"{path}: lists {len(rows) - len(self._rows)} images twice")
        self.files = tuple(self._rows)

    def trusted(self, file: str) -> bool:
        """Returns False if the tools disagreed on this face, according to its row."""
        return not self._has_trust or self._rows[file][1:2] != ["0"]

    def face(
        self, file: str, size: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Returns landmarks float32 [68, 2] and the mask of the labelled ones, bool [68].

        No point of an untrusted face is labelled, and no point outside the image, where the tools
        extrapolate.

        Args:
            file: one of `files`.
            size: width and height of the image in pixels.

        Raises:
            RednetError: the row is malformed, a coordinate is out of range, or the face is trusted
                and fails `check_face`.
        """
        row = self._rows[file]
        if len(row) != self._columns or (self._has_trust and row[1] not in ("0", "1")):
            raise RednetError(f"{self.path}: the row of {file!r} does not match the header")
        try:
            landmarks = np.array([plain_float(cell) for cell in row[-136:]]).reshape(68, 2)
        except ValueError as error:
            raise RednetError(f"{self.path}: the row of {file!r}: {error}") from None
        if not (np.abs(landmarks) < FARTHEST).all():
            raise RednetError(f"{self.path}: the row of {file!r}: a coordinate is out of range")
        if self.trusted(file):
            where = f"{self.path}: the row of {file!r}"
            check_face(where, landmarks, np.ones(68, bool), size)
        # Pixel centres are at integers, so an image extends half a pixel beyond them.
        inside = (landmarks >= -0.5) & (landmarks <= np.array(size) - 0.5)
        labelled = inside.all(axis=1) if self.trusted(file) else np.zeros(68, bool)
        return landmarks.astype(np.float32), np.asarray(labelled, bool)
