"""A folder of the user's images as a data set, and how its faces are divided into splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from numpy.typing import NDArray

from rednet_jax.data.builders.base import RULES, FaceBuilder
from rednet_jax.data.builders.examples import Example, face_example, read_image_file
from rednet_jax.data.builders.label_files import (
    Label,
    coco_labels,
    csv_labels,
    read_points,
    reading,
)
from rednet_jax.data.builders.trees import (
    files_below,
    image_finder,
    lower_ending,
    without_ending,
)
from rednet_jax.errors import RednetError
from rednet_jax.fields import check_fields
from rednet_jax.landmarks.builtin import plain_scheme
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.media.images import ENDINGS
from rednet_jax.reading import check_size

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class OwnData:
    """How a folder of images is read.

    Attributes:
        scheme: of its landmarks.
        labels: a CSV file or a JSON file of COCO keypoints; None for NAME.pts beside each image.
        lists: pairs of a split and a file that lists its images, one per line; empty to split by
            `shares`.
        shares: fractions of the faces for train, validation and test.
        seed: of the random division by `shares`.
    """

    scheme: Scheme
    labels: Path | None = None
    lists: tuple[tuple[str, Path], ...] = ()
    shares: tuple[float, ...] = (0.8, 0.1, 0.1)
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises RednetError for invalid shares, and for unknown or repeated splits."""
        check_fields(self, "")
        if len(self.shares) != 3 or min(self.shares) < 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise RednetError(f"shares of train, validation and test must sum to 1: {self.shares}")
        splits = [split for split, _ in self.lists]
        if unknown := [split for split in splits if split not in SPLITS]:
            raise RednetError(f"no split '{unknown[0]}'; known: {', '.join(SPLITS)}")
        if len(set(splits)) < len(splits):
            raise RednetError("lists: a split appears twice")

    def recipe(self) -> bytes:
        """Returns the inputs of the build other than the files of the folder.

        Raises:
            RednetError: a file that cannot be read.
        """
        digest = hashlib.sha256()
        for path in (self.labels, *(path for _, path in self.lists)):
            if path is not None:
                with reading(path), path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        splits = [split for split, _ in self.lists]
        settings = [plain_scheme(self.scheme), splits, self.shares, self.seed, RULES]
        return f"{json.dumps(settings)} {digest.hexdigest()}\n".encode()


class RednetFolder(FaceBuilder):
    """The user's own images and labels, of any scheme."""

    name = "rednet_folder"
    splits: ClassVar = SPLITS
    tree: ClassVar = "looked for labelled images"

    def __init__(self, name: str, own: OwnData, **kwargs: Any) -> None:
        """Opens the data set `name`."""
        self._own = own
        self.scheme = own.scheme
        super().__init__(config=tfds.core.BuilderConfig(name=name), **kwargs)

    def list_splits(self) -> dict[str, list[str]]:
        """Returns the names of each split's faces; a person or an image is in one split only."""
        labels = self._labels()
        self._faces: dict[str, Label] = {}
        for label in labels:
            name, number = without_ending(label.file), 1
            while name in self._faces:
                name, number = f"{without_ending(label.file)}_{number}", number + 1
            self._faces[name] = label
        people = sorted({label.identity for label in labels if label.identity is not None})
        self._people = {person: number for number, person in enumerate(people)}
        groups = self._groups()
        if self._own.lists:
            return self._split_by_lists(groups)
        return _split_by_shares(groups, self._own.shares, self._own.seed)

    def read(self, name: str) -> Example:
        """Returns one face; raises RednetError if its image or its landmarks are bad."""
        label = self._faces[name]
        image = read_image_file(self.inside(label.file))
        landmarks = label.landmarks
        if self._own.labels is None:
            landmarks = read_points(self.inside(label.where), self.scheme)
        labelled: NDArray[np.bool_] = np.all(np.isfinite(landmarks), axis=1)
        if not labelled.any():
            raise RednetError(f"{label.where}: no landmark is labelled")
        return face_example(
            name,
            image,
            np.nan_to_num(landmarks),
            labelled,
            scheme=self.scheme,
            box=label.box,
            identity=-1 if label.identity is None else self._people[label.identity],
            style="",
            where=label.where,
        )

    def _labels(self) -> list[Label]:
        labels = self._own.labels
        if labels is None:
            return self._beside_images()
        read = coco_labels if labels.suffix.lower() == ".json" else csv_labels
        find = image_finder(self.root)
        return [
            label._replace(file=find(label.file) or label.file)
            for label in read(labels, self.scheme)
        ]

    def _beside_images(self) -> list[Label]:
        images = files_below(self.root, ENDINGS)
        points = files_below(self.root, (".pts",))
        unread = np.full((self.scheme.count, 2), np.nan, np.float32)
        labels = []
        for name, files in sorted(points.items()):
            with self.bad.skipping(self.kind, name):
                self.known.update(files)
                image = self.only_file(name, images.get(name, []), "image")
                file = image.relative_to(self.root).as_posix()
                labels.append(Label(file, unread, None, None, files[0]))
        return labels

    def _groups(self) -> dict[str, str]:
        """Returns the group of each face, by name: its person or image, which has one split."""
        return {
            name: f"image {label.file}" if label.identity is None else f"person {label.identity}"
            for name, label in self._faces.items()
        }

    def _split_by_lists(self, groups: Mapping[str, str]) -> dict[str, list[str]]:
        splits: dict[str, list[str]] = {split: [] for split in SPLITS}
        group_splits: dict[str, str] = {}
        faces: dict[str, list[str]] = {}
        for name, label in self._faces.items():
            for image in {label.file, lower_ending(label.file), without_ending(label.file)}:
                faces.setdefault(image, []).append(name)
        for split, path in self._own.lists:
            with reading(path):
                check_size(path)
                text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
            for line in text.splitlines():
                if not (listed := line.strip()) or listed.startswith("#"):
                    continue
                labelled = faces.get(listed) or faces.get(lower_ending(listed))
                if labelled is None:
                    raise RednetError(f"{path}: {listed!r} is not a labelled image")
                for name in labelled:
                    before = group_splits.setdefault(groups[name], split)
                    if before != split:
                        raise RednetError(f"{path}: {groups[name]} is in {before} and in {split}")
                    if name not in splits[split]:
                        splits[split].append(name)
        listed_faces = sum(map(len, splits.values()))
        if left := len(self._faces) - listed_faces:
            self.left_out.append(f"{self.root}: {left} labelled faces in no list")
        return splits


def _split_by_shares(
    groups: Mapping[str, str], shares: tuple[float, ...], seed: int
) -> dict[str, list[str]]:
    """Returns the faces of each split.

    Groups are taken in the order of their digests; each goes to the split that lacks most faces.
    No split with a share stays empty if there are enough groups.
    """
    faces: dict[str, list[str]] = {}
    for name, group in groups.items():
        faces.setdefault(group, []).append(name)

    def digest(group: str) -> bytes:
        return hashlib.sha256(f"{seed} {group}".encode("utf-8", "surrogateescape")).digest()

    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    targets = {split: share for split, share in zip(SPLITS, shares, strict=True) if share}
    for left, group in zip(range(len(faces), 0, -1), sorted(faces, key=digest), strict=True):
        empty = [split for split in targets if not splits[split]]
        candidates = empty if len(empty) >= left else [*targets]
        lack = {split: targets[split] * len(groups) - len(splits[split]) for split in candidates}
        splits[max(candidates, key=lack.__getitem__)] += faces[group]
    return {split: sorted(names) for split, names in splits.items()}
