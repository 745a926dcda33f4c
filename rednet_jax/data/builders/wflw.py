"""WFLW from its published folders: images, and lists of 98 points, a box and six attributes."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.builders.base import FaceBuilder
from rednet_jax.data.builders.examples import FARTHEST, Example, face_example, read_image_file
from rednet_jax.data.builders.trees import hash_share, without_ending
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.builtin import WFLW98
from rednet_jax.landmarks.table import plain_float

LISTS = "WFLW_annotations/list_98pt_rect_attr_train_test"

ATTRIBUTES = ("largepose", "expression", "illumination", "makeup", "occlusion", "blur")
"""In the order of the columns, which follow the points and the box."""

VALIDATION_SHARE = 0.1


class _Line(NamedTuple):
    file: str
    landmarks: NDArray[np.float32]
    attributes: tuple[bool, ...]
    where: str


class RednetWFLW(FaceBuilder):
    """WFLW: 98 points on faces in photographs, with large poses, occlusion and blur."""

    name = "rednet_wflw"
    scheme = WFLW98
    splits: ClassVar = ("train", "validation", "test")
    subsets: ClassVar = tuple(f"test_{attribute}" for attribute in ATTRIBUTES)
    tree: ClassVar = f"looked for {LISTS}/list_98pt_rect_attr_train.txt, WFLW_images"

    def list_splits(self) -> dict[str, list[str]]:
        """Returns the faces of the lists; a tenth of the training images is `validation`."""
        splits: dict[str, list[str]] = {split: [] for split in self.splits}
        self._lines: dict[str, _Line] = {}
        for part in ("train", "test"):
            path = f"{LISTS}/list_98pt_rect_attr_{part}.txt"
            if not (self.root / path).is_file():
                self.left_out.append(f"{self.root / path}: no such file")
                continue
            for name, line in self._read_list(path, part).items():
                self._lines[name] = line
                held_out = part == "train" and hash_share(line.file) < VALIDATION_SHARE
                splits["validation" if held_out else part].append(name)
        return splits

    def read(self, name: str) -> Example:
        """Returns one face; raises RednetError if its image or its points are bad."""
        line = self._lines[name]
        image = read_image_file(self.inside(f"WFLW_images/{line.file}"))
        labelled = np.ones(len(line.landmarks), bool)
        return face_example(
            name,
            image,
            line.landmarks,
            labelled,
            scheme=self.scheme,
            style="",
            where=line.where,
        )

    def members(self, subset: str) -> tuple[str, set[str]]:
        """Returns `test` and the names of its faces that have the attribute of a subset."""
        column = self.subsets.index(subset)
        return "test", {name for name, line in self._lines.items() if line.attributes[column]}

    def _read_list(self, path: str, part: str) -> dict[str, _Line]:
        """Returns the faces of a list by name: part, image, and a number if the name is taken."""
        lines: dict[str, _Line] = {}
        try:
            text = self.inside(path).read_text(encoding="utf-8-sig", errors="surrogateescape")
        except OSError as error:
            raise RednetError(f"{self.root / path}: cannot be read ({error.strerror})") from None
        for number, row in enumerate(text.splitlines(), 1):
            if not row.strip():
                continue
            where = f"{self.root / path}: line {number}"
            with self.bad.skipping("annotation", where):
                line = _parsed(row, where)
                name, copy = f"{part}/{without_ending(line.file)}", 1
                while name in lines:
                    name, copy = f"{part}/{without_ending(line.file)}_{copy}", copy + 1
                lines[name] = line
        return lines


def _parsed(row: str, where: str) -> _Line:
    cells = row.split()
    points, attributes = 2 * WFLW98.count, len(ATTRIBUTES)
    columns = points + 4 + attributes + 1
    if len(cells) != columns:
        raise RednetError(f"{where}: {len(cells)} columns instead of {columns}")
    try:
        values = np.array([plain_float(cell) for cell in cells[: points + 4]])
    except ValueError as error:
        raise RednetError(f"{where}: {error}") from None
    flags = cells[points + 4 : -1]
    if not {*flags} <= {"0", "1"}:
        raise RednetError(f"{where}: an attribute is neither 0 nor 1")
    landmarks = values[:points].reshape(-1, 2)
    if not (np.abs(landmarks) < FARTHEST).all():
        raise RednetError(f"{where}: a coordinate is out of range")
    known = tuple(flag == "1" for flag in flags)
    return _Line(cells[-1], landmarks.astype(np.float32), known, where)
