"""Labeled Faces in the Wild from its published folders: NAME/NAME_0001.jpg."""

from __future__ import annotations

import re
from typing import ClassVar

from rednet_jax.data.builders.machine_labels import FILE, MachineLabels
from rednet_jax.data.builders.people import Face, PeopleBuilder
from rednet_jax.data.builders.trees import files_by_name, without_ending
from rednet_jax.errors import RednetError
from rednet_jax.media.images import ENDINGS


class RednetLFW(PeopleBuilder):
    """Faces of named people; with machine-labelled points if the folder has a table of them."""

    name = "rednet_lfw"
    tree: ClassVar = "looked for NAME/NAME_0001.jpg"

    def find_faces(self) -> dict[str, Face]:
        """Returns the images below `root` and the rows of labels_300w_style.csv, if it exists."""
        people = sorted(path.name for path in self.root.iterdir() if path.is_dir())
        files = [
            file
            for name, of_name in files_by_name(self.root, people, ENDINGS).items()
            if re.fullmatch(r"(.+)/\1_\d+", name)
            for file in of_name
        ]
        faces = {without_ending(file): Face(file, None, file) for file in files}
        if len(faces) < len(files):
            twice = len(files) - len(faces)
            raise RednetError(f"{self.root}: {twice} faces have two images, in different formats")
        if (self.root / FILE).exists():
            labels = MachineLabels(self.inside(FILE))
            faces |= {without_ending(file): Face(file, labels, file) for file in labels.files}
        else:
            self.left_out.append(f"{self.root / FILE}: no such file; no landmark is labelled")
        return faces
