"""Frames of YouTube Faces with 68 machine-labelled points, from the publisher's folders."""

from __future__ import annotations

from typing import ClassVar

from rednet_jax.data.builders.machine_labels import FILE, MachineLabels
from rednet_jax.data.builders.people import Face, PeopleBuilder
from rednet_jax.data.builders.trees import without_ending

_TABLES = {
    "training": "training_frames_keypoints.csv",
    "test": "test_frames_keypoints.csv",
}
_HEADER = ("", *map(str, range(136)))


class RednetYTF68(PeopleBuilder):
    """Sparse frames of YouTube Faces, of named people.

    The publisher's test frames are other frames of the training videos, so the splits divide both
    folders by person.
    """

    name = "rednet_ytf68"
    tree: ClassVar = "looked for training or test, with their tables of points"

    def find_faces(self) -> dict[str, Face]:
        """Returns the faces of labels_300w_style.csv, or if it is missing the publisher's."""
        folders = [folder for folder in _TABLES if (self.root / folder).is_dir()]
        self.left_out += [
            f"{self.root / folder}: no such folder" for folder in _TABLES if folder not in folders
        ]
        faces = {}
        if (self.root / FILE).exists():
            labels = MachineLabels(self.inside(FILE))
            missing = tuple(f"{folder}/" for folder in _TABLES if folder not in folders)
            for file in labels.files:
                if not file.startswith(missing):
                    faces[without_ending(file)] = Face(file, labels, file)
            return faces
        self._style = "ytf68"
        for folder in folders:
            if not (self.root / _TABLES[folder]).exists():
                self.left_out.append(f"{self.root / _TABLES[folder]}: no such file")
                continue
            labels = MachineLabels(self.inside(_TABLES[folder]), _HEADER)
            for row in labels.files:
                faces[f"{folder}/{without_ending(row)}"] = Face(f"{folder}/{row}", labels, row)
        return faces
