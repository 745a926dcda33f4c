"""Labeled Faces in the Wild from its tree: NAME/NAME_0001.jpg."""

from __future__ import annotations

import re
from typing import ClassVar

from rednet_jax.data.builders.base import without_ending
from rednet_jax.data.builders.machine_labels import FILE, MachineLabels
from rednet_jax.data.builders.people import Face, PeopleBuilder


class RednetLFW(PeopleBuilder):
    """Faces of people who are named; machine-labelled points where the folder has them."""

    name = "rednet_lfw"
    tree: ClassVar = "looked for NAME/NAME_0001.jpg"

    def find_faces(self) -> dict[str, Face]:
        """Returns the pictures of the tree and the rows of labels_300w_style.csv, if any."""
        files = {
            path.relative_to(self.root).as_posix()
            for path in self.root.glob("*/*.jpg")
            if re.fullmatch(rf"{re.escape(path.parent.name)}_\d+", path.stem)
        }
        faces = {without_ending(file): Face(file, None, file) for file in files}
        if (self.root / FILE).exists():
            labels = MachineLabels(self.inside(FILE))
            faces |= {without_ending(file): Face(file, labels, file) for file in labels.files}
        else:
            self.left_out.append(f"{self.root / FILE}: no such file, so no point is labelled")
        return faces
