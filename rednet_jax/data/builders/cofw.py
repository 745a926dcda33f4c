"""COFW from its MATLAB files: images, and 29 points per face with an occlusion flag each."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.io
import scipy.io.matlab
from numpy.typing import NDArray
from PIL import Image

from rednet_jax.data.builders.base import FaceBuilder
from rednet_jax.data.builders.examples import FARTHEST, Example, StoredImage, face_example
from rednet_jax.data.builders.trees import hash_share
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.builtin import COFW29

FILES = {
    "train": ("COFW_train_color.mat", "COFW_train.mat"),
    "test": ("COFW_test_color.mat", "COFW_test.mat"),
}
"""For each part its file in colour, and its file in grey, which is read if there is no other."""

VARIABLES = {"train": ("IsTr", "phisTr"), "test": ("IsT", "phisT")}

VALIDATION_SHARE = 0.1

_COLUMNS = 3 * COFW29.count
"""Columns of `phis`: all x, all y, and the occlusion flags."""


class RednetCOFW(FaceBuilder):
    """COFW: 29 points on faces in photographs; many points are occluded, but all are labelled."""

    name = "rednet_cofw"
    scheme = COFW29
    splits: ClassVar = ("train", "validation", "test")
    tree: ClassVar = "looked for COFW_train_color.mat, COFW_test_color.mat"

    def list_splits(self) -> dict[str, list[str]]:
        """Returns the faces of both files by number; a tenth of the first is `validation`."""
        splits: dict[str, list[str]] = {split: [] for split in self.splits}
        self._parts: dict[str, _Part] = {}
        for part, names in FILES.items():
            present = [name for name in names if (self.root / name).is_file()]
            if not present:
                self.left_out.append(f"{self.root / names[0]}: no such file")
                continue
            self._parts[part] = opened = _open(self.inside(present[0]), *VARIABLES[part])
            for number in range(len(opened.points)):
                name = f"{part}/{number + 1:04d}"
                held_out = part == "train" and hash_share(name) < VALIDATION_SHARE
                splits["validation" if held_out else part].append(name)
        return splits

    def read(self, name: str) -> Example:
        """Returns one face; raises RednetError if its image or its points are bad."""
        part, number = name.split("/")
        opened, row = self._parts[part], int(number) - 1
        where = f"{opened.path}: face {row + 1}"
        pixels = opened.image(row)
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or not pixels.size:
            raise RednetError(f"{where}: not an image ({pixels.dtype} {pixels.shape})")
        if pixels.ndim == 3 and pixels.shape[2] != 3:
            raise RednetError(f"{where}: the image has {pixels.shape[2]} channels")
        image = Image.fromarray(pixels).convert("RGB")
        file = io.BytesIO()
        image.save(file, "PNG")
        # MATLAB counts pixels from 1.
        landmarks = opened.points[row, : 2 * COFW29.count].reshape(2, -1).T - 1
        if not (np.abs(landmarks) < FARTHEST).all():
            raise RednetError(f"{where}: a coordinate is out of range")
        return face_example(
            name,
            StoredImage(file.getvalue(), image.size),
            landmarks.astype(np.float32),
            np.ones(COFW29.count, bool),
            scheme=self.scheme,
            style="",
            where=where,
        )


_UNREADABLE = (
    *(ArithmeticError, EOFError, LookupError, NotImplementedError, OSError, TypeError, ValueError),
    *(scipy.io.matlab.MatReadError, struct.error, zlib.error),
)
"""Exceptions that scipy raises for damaged files."""


class _Part:
    """An opened file: its points [N, 87], and its images, which are read singly."""

    def __init__(self, path: Path, points: NDArray[np.float64]) -> None:
        self.path, self.points = path, points

    def image(self, row: int) -> NDArray[np.uint8]:
        """Returns the image [H, W] or [H, W, 3] of a face."""
        raise NotImplementedError


class _Version5(_Part):
    def __init__(self, path: Path, images: str, points: str) -> None:
        try:
            arrays = scipy.io.loadmat(path, variable_names=[images, points])
            self._images = np.asarray(arrays[images]).ravel()
            rows = np.asarray(arrays[points], np.float64)
        except _UNREADABLE as error:
            raise RednetError(f"{path}: cannot be read ({error})") from None
        super().__init__(path, rows)

    def image(self, row: int) -> NDArray[np.uint8]:
        return np.asarray(self._images[row])


class _Version73(_Part):
    """A file of MATLAB 7.3, which is HDF5 with the axes of arrays in reverse order."""

    def __init__(self, path: Path, images: str, points: str) -> None:
        self._name = images
        with self._file(path) as file:
            super().__init__(path, np.asarray(file[points], np.float64).T)

    def image(self, row: int) -> NDArray[np.uint8]:
        with self._file(self.path) as file:
            cells = file[self._name]
            reference = cells[()].ravel()[row]
            return np.asarray(file[reference]).T

    @contextlib.contextmanager
    def _file(self, path: Path) -> Iterator[Any]:
        try:
            import h5py
        except ImportError:
            raise RednetError(
                f"{path}: a file of MATLAB 7.3, which requires h5py: "
                "`pip install -c constraints.txt '.[cofw]'`"
            ) from None
        try:
            with h5py.File(path, "r") as file:
                yield file
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise RednetError(f"{path}: cannot be read ({error})") from None


def _open(path: Path, images: str, points: str) -> _Part:
    with path.open("rb") as file:
        version = file.read(128)
    # In a file of MATLAB 7.3, 512 bytes of text come before the HDF5 data.
    kind = _Version73 if b"MATLAB 7.3" in version or version[:4] == b"\x89HDF" else _Version5
    part = kind(path, images, points)
    if part.points.ndim != 2 or part.points.shape[1] != _COLUMNS:
        raise RednetError(f"{path}: {points} is {part.points.shape}, not N x {_COLUMNS}")
    return part
