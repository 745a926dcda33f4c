"""Data sets of named people, with one split by person for all of them."""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np

from rednet_jax.data.builders.base import FaceBuilder
from rednet_jax.data.builders.examples import Example, face_example, read_image_file
from rednet_jax.data.builders.machine_labels import MachineLabels
from rednet_jax.data.builders.trees import read_list


def person(name: str) -> str:
    """Returns the person's name: the file's name without its number, as in Aaron_Peirsol_0001."""
    return re.sub(r"_\d+$", "", name.rsplit("/", 1)[-1])


def identity(who: str) -> int:
    """Returns a person's number: 31 bits of the name's SHA-256, the same in every data set."""
    return int.from_bytes(hashlib.sha256(who.encode("utf-8", "surrogateescape")).digest()[:4]) >> 1


class Face(NamedTuple):
    """Where a face is stored.

    Attributes:
        file: its image, relative to the source folder.
        labels: the table with its points, or None.
        row: key of its row in the table.
    """

    file: str
    labels: MachineLabels | None
    row: str


class PeopleBuilder(FaceBuilder):
    """Faces with identity; all faces of a person are in the same split.

    A face without trusted points is kept for its identity, with no point labelled.
    """

    splits: ClassVar = ("train", "validation")
    _style = "300w"

    @abstractmethod
    def find_faces(self) -> dict[str, Face]:
        """Returns the faces by name; lists missing files in `left_out`."""

    def list_splits(self) -> dict[str, list[str]]:
        """Returns the names of each split's faces, split by the list of validation people."""
        self._faces = self.find_faces()
        held_out = set(read_list("people_validation"))
        splits: dict[str, list[str]] = {split: [] for split in self.splits}
        for name in sorted(self._faces):
            splits["validation" if person(name) in held_out else "train"].append(name)
        return splits

    def read(self, name: str) -> Example:
        """Returns one face; raises RednetError if its image or its row is bad."""
        face = self._faces[name]
        image = read_image_file(self.inside(face.file))
        landmarks, labelled = np.zeros((68, 2), np.float32), np.zeros(68, bool)
        if face.labels is not None:
            landmarks, labelled = face.labels.face(face.row, image.size)
        number = identity(person(name))
        return face_example(name, image, landmarks, labelled, identity=number, style=self._style)
