"""300-W's official tree, its files and splits: NAME.jpg or NAME.png beside NAME.pts, 68 points."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.pts import read_pts

TRAIN_FOLDERS = ("afw", "helen/trainset", "lfpw/trainset")
COMMON_FOLDERS = ("helen/testset", "lfpw/testset")
CHALLENGING_FOLDERS = ("ibug",)
SPLITS = {
    "train": TRAIN_FOLDERS,
    "validation": TRAIN_FOLDERS,
    "common": COMMON_FOLDERS,
    "challenging": CHALLENGING_FOLDERS,
    "full": COMMON_FOLDERS + CHALLENGING_FOLDERS,
}
POINTS = 68
_PICTURES = (".jpg", ".png")


def split_names(root: Path, split: str) -> list[str]:
    """Returns the faces of a split, paths below `root`, in those of its folders that are there."""
    names = list_names(root, SPLITS[split])
    if split in ("train", "validation"):
        held_out = {photo(name) for name in validation_names()}
        names = [name for name in names if (photo(name) in held_out) == (split == "validation")]
    return names


def list_names(root: Path, folders: Iterable[str]) -> list[str]:
    """Returns the faces of `folders`, paths below `root`, without 300-W's mirrored copies."""
    labels = (path for folder in folders for path in sorted((root / folder).glob("*.pts")))
    names = (path.relative_to(root).with_suffix("").as_posix() for path in labels)
    return [name for name in names if not name.endswith("_mirror")]


def photo(name: str) -> str:
    """Returns the photo that a face was cut from: the file name without a trailing _N.

    LFPW's `image_0001` counts pictures, not faces, so only one or two digits are a face's number.
    AFW and HELEN both come from Flickr, so the folder is not part of the photo's name.
    """
    return re.sub(r"_\d{1,2}$", "", name.rsplit("/", 1)[-1])


def validation_names() -> tuple[str, ...]:
    """Returns the committed validation list: paths below the root, without extension.

    A face belongs to validation if its photo has a face in this list.
    """
    text = resources.files("rednet_jax.data").joinpath("splits/300w_validation.txt").read_text()
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))


def draw_validation(names: Iterable[str], share: float = 0.1) -> list[str]:
    """Draws a validation list as the committed one was: whole photos in the order of a hash.

    Args:
        names: all faces of the training folders, as `list_names` gives them.
        share: part of each folder's faces to hold out at most.

    Returns:
        The faces held out, sorted.
    """
    photos: dict[str, list[str]] = defaultdict(list)
    folder_sizes: dict[str, int] = defaultdict(int)
    for name in names:
        photos[photo(name)].append(name)
        folder_sizes[name.rsplit("/", 1)[0]] += 1
    taken: dict[str, int] = defaultdict(int)
    drawn: list[str] = []
    for key in sorted(photos, key=lambda key: hashlib.sha256(key.encode()).hexdigest()):
        folder = photos[key][0].rsplit("/", 1)[0]
        if taken[folder] + len(photos[key]) <= share * folder_sizes[folder]:
            drawn += photos[key]
            taken[folder] += len(photos[key])
    return sorted(drawn)


def read_labels(root: Path, name: str) -> NDArray[np.float32]:
    """Returns the landmarks of a face, float32 [68, 2], pixels of its picture.

    Raises:
        RednetError: as `read_pts` does, and for other than 68 points, or all on one line.
    """
    landmarks = read_pts(root / f"{name}.pts")
    if landmarks.shape != (POINTS, 2):
        raise RednetError(f"{root / name}.pts: {len(landmarks)} points, 300-W has {POINTS}")
    box = landmark_box(landmarks)
    if not (box[2:] > box[:2]).all():
        raise RednetError(f"{root / name}.pts: all points on one line, no face")
    return landmarks


def find_picture(root: Path, name: str) -> Path:
    """Returns the path of a face's picture.

    Raises:
        RednetError: there is none.
    """
    pictures = [root / f"{name}{ending}" for ending in _PICTURES]
    picture = next((path for path in pictures if path.is_file()), None)
    if picture is None:
        raise RednetError(f"{root / name}: has labels but no picture (.jpg or .png)")
    return picture
