"""Annotated Facial Landmarks in the Wild (AFLW): the points that it shares with `ibug68`."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np

from rednet_jax.data.builders.base import FaceBuilder
from rednet_jax.data.builders.examples import FARTHEST, Example, face_example, read_image_file
from rednet_jax.data.builders.trees import hash_share, without_ending
from rednet_jax.errors import RednetError

# AFLW's names use the image's left and right. The points that are missing here have no counterpart
# in `ibug68`: pupils, ears, the middle of the mouth, and the wings of the nose.
SHARED = {
    "LeftBrowLeftCorner": 17,
    "LeftBrowCenter": 19,
    "LeftBrowRightCorner": 21,
    "RightBrowLeftCorner": 22,
    "RightBrowCenter": 24,
    "RightBrowRightCorner": 26,
    "LeftEyeLeftCorner": 36,
    "LeftEyeRightCorner": 39,
    "RightEyeLeftCorner": 42,
    "RightEyeRightCorner": 45,
    "NoseCenter": 30,
    "MouthLeftCorner": 48,
    "MouthRightCorner": 54,
    "ChinCenter": 8,
}
# Fewer points do not locate a face.
FEWEST = 3
_QUERY = """
    SELECT Faces.face_id, FaceImages.filepath, descr, FeatureCoords.x, FeatureCoords.y
    FROM Faces
    JOIN FaceImages ON FaceImages.file_id = Faces.file_id AND FaceImages.db_id = Faces.db_id
    LEFT JOIN FeatureCoords ON FeatureCoords.face_id = Faces.face_id
    LEFT JOIN FeatureCoordTypes ON FeatureCoordTypes.feature_id = FeatureCoords.feature_id
"""


class RednetAFLW(FaceBuilder):
    """AFLW: up to 21 points on faces in photographs, in any pose; 14 of them are read."""

    name = "rednet_aflw"
    splits: ClassVar = ("train", "validation", "test")
    tree: ClassVar = "looked for data/aflw.sqlite"

    def list_splits(self) -> dict[str, list[str]]:
        """Returns the faces with enough points, split by image; lists missing parts."""
        splits: dict[str, list[str]] = {split: [] for split in self.splits}
        if not (self.root / "data/aflw.sqlite").exists():
            return splits
        self._faces: dict[str, tuple[str, dict[int, tuple[object, object]]]] = {}
        for face, file, point, x, y in _rows(self.inside("data/aflw.sqlite")):
            name = f"{without_ending(str(file))}_{face}"
            points = self._faces.setdefault(name, (f"data/flickr/{file}", {}))[1]
            if point in SHARED:
                points[SHARED[point]] = x, y
        folders = {PurePosixPath(file).parent for file, _ in self._faces.values()}
        missing = {folder for folder in folders if not (self.root / folder).is_dir()}
        self.left_out += [f"{self.root / folder}: no such folder" for folder in sorted(missing)]
        few = 0
        for name, (file, points) in sorted(self._faces.items()):
            if PurePosixPath(file).parent in missing:
                continue
            if len(points) < FEWEST:
                few += 1
                continue
            splits[split_of(file)].append(name)
        if few:
            self.left_out.append(f"{self.root}: {few} faces with fewer than {FEWEST} of the points")
        return splits

    def read(self, name: str) -> Example:
        """Returns one face; raises RednetError if its image or its points are bad."""
        file, points = self._faces[name]
        image = read_image_file(self.inside(file))
        try:
            places = np.array(list(points.values()), np.float64)
        except (TypeError, ValueError):
            raise RednetError(f"{self.root}: face {name}: a coordinate is not a number") from None
        if not (np.abs(places) < FARTHEST).all():
            raise RednetError(f"{self.root}: face {name}: a coordinate is out of range")
        landmarks, labelled = np.zeros((68, 2), np.float32), np.zeros(68, bool)
        landmarks[list(points)], labelled[list(points)] = places, True
        return face_example(name, image, landmarks, labelled, style="aflw")


def split_of(file: str) -> str:
    """Returns the split of an image's faces, by the SHA-256 of its file name without folder.

    A fifth of the images is `test`; a tenth of the rest is `validation`.
    """
    share = hash_share(PurePosixPath(file).name)
    return "test" if share < 0.2 else "validation" if share < 0.28 else "train"


def _rows(path: Path) -> list[tuple[object, object, str | None, object, object]]:
    """Returns (face, image, point, x, y) of all points; a face without points has None for them."""
    try:
        address = f"{path.resolve().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
            return database.execute(_QUERY).fetchall()
    except sqlite3.Error as error:
        raise RednetError(f"{path}: not AFLW's database ({error})") from error
