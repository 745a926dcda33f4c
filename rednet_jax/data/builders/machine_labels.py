"""Tables of points that landmark tools found, a row a face.

labels_300w_style.csv has the columns file (below its folder), trusted (1 or 0), disagreement (of
the tools, percent of the inter-ocular distance), x0, y0, ..., x67, y67 (0-based pixels). Publishers
have their own headers; the points are the last 136 columns.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.builders.examples import check_face
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.table import plain_float

FILE = "labels_300w_style.csv"
HEADER = ("file", "trusted", "disagreement", *(f"{axis}{i}" for i in range(68) for axis in "xy"))
# No image has as many pixels on a side.
_FARTHEST = 1e6


class MachineLabels:
    """The rows of one file; a row is looked at when its face is asked for.

    Attributes:
        files: the images that have a row, in the order of the file.
    """

    def __init__(self, path: Path, header: Sequence[str] = HEADER) -> None:
        """Reads the file.

        Args:
            path: of the table.
            header: its columns: the file's name first, perhaps `trusted` second, points last.

        Raises:
            RednetError: it cannot be read, has another header, or names an image twice.
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
        self._tells_trust = header[1] == "trusted"
        self._rows = {row[0]: row for row in rows}
        if len(self._rows) < len(rows):
            raise RednetError(f"{path}: names {len(rows) - len(self._rows)} images twice")
        self.files = tuple(self._rows)

    def trusted(self, file: str) -> bool:
        """Returns False if the row says that the tools did not agree on this face."""
        return not self._tells_trust or self._rows[file][1:2] != ["0"]

    def face(
        self, file: str, size: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Returns landmarks float32 [68, 2] and which of them are labelled, bool [68].

        None of an untrusted face is, nor a point outside the image: the tools only guessed it.

        Args:
            file: one of `files`.
            size: width and height of the image in pixels.

        Raises:
            RednetError: the row is cut short, holds what is no place in an image, or is trusted
                and not of this image (`check_face`).
        """
        row = self._rows[file]
        if len(row) != self._columns or (self._tells_trust and row[1] not in ("0", "1")):
            raise RednetError(f"{self.path}: the row of {file!r} is not as the header says")
        try:
            landmarks = np.array([plain_float(cell) for cell in row[-136:]]).reshape(68, 2)
        except ValueError as error:
            raise RednetError(f"{self.path}: the row of {file!r}: {error}") from None
        if not (np.abs(landmarks) < _FARTHEST).all():
            raise RednetError(f"{self.path}: the row of {file!r}: a coordinate is no place")
        if self.trusted(file):
            where = f"{self.path}: the row of {file!r}"
            check_face(where, landmarks, np.ones(68, bool), size)
        # An image ends half a pixel beyond the centres of its last pixels.
        inside = (landmarks >= -0.5) & (landmarks <= np.array(size) - 0.5)
        labelled = inside.all(axis=1) if self.trusted(file) else np.zeros(68, bool)
        return landmarks.astype(np.float32), np.asarray(labelled, bool)
