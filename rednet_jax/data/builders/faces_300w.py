"""300-W from its official folders."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from rednet_jax.data.builders.base import FaceBuilder
from rednet_jax.data.builders.examples import Example, face_example, read_image_file
from rednet_jax.data.builders.tree_300w import (
    CHALLENGING_FOLDERS,
    COMMON_FOLDERS,
    SPLITS,
    TRAIN_FOLDERS,
    read_labels,
    split_names,
)
from rednet_jax.data.builders.trees import files_by_name
from rednet_jax.media.images import ENDINGS


class Rednet300W(FaceBuilder):
    """300-W: 68 points on faces in photographs, labelled by hand."""

    name = "rednet_300w"
    splits: ClassVar = tuple(SPLITS)
    tree: ClassVar = "looked for afw, helen/trainset, lfpw/trainset, ibug, ..."

    def list_splits(self) -> dict[str, list[str]]:
        """Returns the faces of the folders that exist; lists missing folders in `left_out`."""
        folders = TRAIN_FOLDERS + COMMON_FOLDERS + CHALLENGING_FOLDERS
        self.left_out += [
            f"{self.root / folder}: no such folder"
            for folder in folders
            if not (self.root / folder).is_dir()
        ]
        self._labels = files_by_name(self.root, folders, [".pts"])
        self._images = files_by_name(self.root, folders, ENDINGS)
        return {split: split_names(self.root, split) for split in SPLITS}

    def read(self, name: str) -> Example:
        """Returns one face; raises RednetError if one of its two files is bad."""
        labels = self.only_file(name, self._labels[name], "labels")
        image = self.only_file(name, self._images.get(name, []), "image")
        landmarks = read_labels(labels)
        labelled = np.ones(len(landmarks), bool)
        return face_example(name, read_image_file(image), landmarks, labelled, where=labels)
