"""300-W from its official tree."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from rednet_jax.data.builders.base import Example, FaceBuilder, face_example, read_picture
from rednet_jax.data.builders.tree_300w import (
    CHALLENGING_FOLDERS,
    COMMON_FOLDERS,
    SPLITS,
    TRAIN_FOLDERS,
    find_picture,
    read_labels,
    split_names,
)


class Rednet300W(FaceBuilder):
    """300-W: 68 points on faces in photographs, by people."""

    name = "rednet_300w"
    splits: ClassVar = tuple(SPLITS)
    tree: ClassVar = "looked for afw, helen/trainset, lfpw/trainset, ibug, ..."

    def list_splits(self) -> dict[str, list[str]]:
        """Returns the faces of the folders that are there; names a folder that is missing."""
        self.left_out += [
            f"{self.root / folder}: no such folder"
            for folder in TRAIN_FOLDERS + COMMON_FOLDERS + CHALLENGING_FOLDERS
            if not (self.root / folder).is_dir()
        ]
        return {split: split_names(self.root, split) for split in SPLITS}

    def read(self, name: str) -> Example:
        """Returns one face; raises RednetError if one of its two files is bad."""
        self.inside(f"{name}.pts")
        picture = self.inside(find_picture(self.root, name).relative_to(self.root).as_posix())
        landmarks = read_labels(self.root, name)
        return face_example(name, read_picture(picture), landmarks, np.ones(len(landmarks), bool))
