"""Helen with 68 points per face: NAME.pts beside the images, or one table of machine labels."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from rednet_jax.data.builders.base import FaceBuilder
from rednet_jax.data.builders.examples import Example, face_example, read_image_file
from rednet_jax.data.builders.machine_labels import FILE, MachineLabels
from rednet_jax.data.builders.tree_300w import MIRRORED, photo, read_labels, validation_names
from rednet_jax.data.builders.trees import files_by_name, without_ending
from rednet_jax.media.images import ENDINGS


class RednetHelen(FaceBuilder):
    """Helen: photographs in high resolution."""

    name = "rednet_helen"
    splits: ClassVar = ("train", "validation", "test")
    tree: ClassVar = f"looked for NAME.jpg with NAME.pts or {FILE}"

    def list_splits(self) -> dict[str, list[str]]:
        """Returns the labelled faces; counts unlabelled images and untrusted faces as left out."""
        folders = [".", *sorted(path.name for path in self.root.iterdir() if path.is_dir())]
        self._labels = files_by_name(self.root, folders, [".pts"])
        self._images = files_by_name(self.root, folders, ENDINGS)
        self._by_hand = {name for name in self._labels if not name.endswith(MIRRORED)}
        self._machine: MachineLabels | None = None
        self._file: dict[str, str] = {}
        untrusted = {}
        if (self.root / FILE).exists():
            self._machine = MachineLabels(self.inside(FILE))
            for file in self._machine.files:
                name = without_ending(file)
                if self._machine.trusted(file):
                    self._file[name] = file
                elif name not in self._by_hand:
                    untrusted[name] = file
        labelled = self._by_hand | set(self._file)
        bare = [
            name
            for name in self._images
            if name not in labelled and name not in untrusted and not name.endswith(MIRRORED)
        ]
        if untrusted:
            self.left_out.append(f"{self.root / FILE}: {len(untrusted)} faces are not trusted")
            self.known.update(untrusted.values())
        if bare:
            self.left_out.append(f"{self.root}: {len(bare)} images without labels")
            self.known.update(file for name in bare for file in self._images[name])
        return self._split(sorted(labelled))

    def read(self, name: str) -> Example:
        """Returns one face; manual labels take precedence over machine labels.

        Raises:
            RednetError: its image or its labels are bad.
        """
        if name in self._by_hand:
            labels = self.only_file(name, self._labels[name], "labels")
            image = self.only_file(name, self._images.get(name, []), "image")
            landmarks = read_labels(labels)
            labelled = np.ones(len(landmarks), bool)
            return face_example(name, read_image_file(image), landmarks, labelled, where=labels)
        assert self._machine is not None
        stored = read_image_file(self.inside(self._file[name]))
        return face_example(name, stored, *self._machine.face(self._file[name], stored.size))

    def _split(self, names: list[str]) -> dict[str, list[str]]:
        # The publisher's list of test images, for a copy with all images in one folder.
        listed = self.root / "testnames.txt"
        test = set(listed.read_text(encoding="utf-8-sig").split()) if listed.is_file() else set()
        self.known.add(listed.name)
        held_out = {photo(name) for name in validation_names()}
        splits: dict[str, list[str]] = {split: [] for split in self.splits}
        for name in names:
            folder, _, stem = name.rpartition("/")
            if folder == "testset" or stem in test:
                splits["test"].append(name)
            else:
                splits["validation" if photo(name) in held_out else "train"].append(name)
        return splits
