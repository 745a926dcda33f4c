"""Helen with 68 points a face: NAME.pts beside the pictures, or one table of machine labels."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from rednet_jax.data.builders.base import (
    Example,
    FaceBuilder,
    face_example,
    read_picture,
    without_ending,
)
from rednet_jax.data.builders.machine_labels import FILE, MachineLabels
from rednet_jax.data.builders.tree_300w import find_picture, photo, read_labels, validation_names

_PICTURES = ("*.jpg", "*.png", "*/*.jpg", "*/*.png")


class RednetHelen(FaceBuilder):
    """Helen: photographs in high resolution."""

    name = "rednet_helen"
    splits: ClassVar = ("train", "validation", "test")
    tree: ClassVar = f"looked for NAME.jpg with NAME.pts or {FILE}"

    def list_splits(self) -> dict[str, list[str]]:
        """Returns the labelled faces; counts pictures without labels, and faces not trusted."""
        points = [path for pattern in ("*.pts", "*/*.pts") for path in self.root.glob(pattern)]
        named = {path.relative_to(self.root).with_suffix("").as_posix() for path in points}
        self._by_hand = {name for name in named if not name.endswith("_mirror")}
        self._machine: MachineLabels | None = None
        self._file: dict[str, str] = {}
        untrusted = set()
        if (self.root / FILE).exists():
            self._machine = MachineLabels(self.inside(FILE))
            for file in self._machine.files:
                name = without_ending(file)
                if self._machine.trusted(file):
                    self._file[name] = file
                elif name not in self._by_hand:
                    untrusted.add(name)
        labelled = self._by_hand | set(self._file)
        pictures = {
            path.relative_to(self.root).with_suffix("").as_posix()
            for pattern in _PICTURES
            for path in self.root.glob(pattern)
        }
        bare = {name for name in pictures - labelled - untrusted if not name.endswith("_mirror")}
        if untrusted:
            self.left_out.append(f"{self.root / FILE}: {len(untrusted)} faces are not trusted")
        if bare:
            self.left_out.append(f"{self.root}: {len(bare)} pictures without labels")
        return self._split(sorted(labelled))

    def read(self, name: str) -> Example:
        """Returns one face; points by hand go before those of a machine.

        Raises:
            RednetError: its picture or its labels are bad.
        """
        if name in self._by_hand:
            self.inside(f"{name}.pts")
            file = find_picture(self.root, name).relative_to(self.root).as_posix()
            picture, landmarks = read_picture(self.inside(file)), read_labels(self.root, name)
            return face_example(name, picture, landmarks, np.ones(len(landmarks), bool))
        assert self._machine is not None
        picture = read_picture(self.inside(self._file[name]))
        return face_example(name, picture, *self._machine.face(self._file[name], picture.size))

    def _split(self, names: list[str]) -> dict[str, list[str]]:
        # The publisher's list of test pictures, where all lie in one folder.
        listed = self.root / "testnames.txt"
        test = set(listed.read_text(encoding="utf-8").split()) if listed.is_file() else set()
        held_out = {photo(name) for name in validation_names()}
        splits: dict[str, list[str]] = {split: [] for split in self.splits}
        for name in names:
            folder, _, stem = name.rpartition("/")
            if folder == "testset" or stem in test:
                splits["test"].append(name)
            else:
                splits["validation" if photo(name) in held_out else "train"].append(name)
        return splits
