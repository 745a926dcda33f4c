"""Files and splits of 300-W's official folders, with NAME.pts of 68 points beside each image."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.builders.trees import files_by_name, read_list
from rednet_jax.errors import RednetError
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
MIRRORED = "_mirror"
"""Suffix of the names of the archives' mirrored copies."""


def split_names(root: Path, split: str) -> list[str]:
    """Returns the faces of a split, paths relative to `root`, from those folders that exist."""
    names = list_names(root, SPLITS[split])
    if split in ("train", "validation"):
        held_out = {photo(name) for name in validation_names()}
        names = [name for name in names if (photo(name) in held_out) == (split == "validation")]
    return names


def list_names(root: Path, folders: Iterable[str]) -> list[str]:
    """Returns the faces of `folders`, paths relative to `root`, without the mirrored copies."""
    labels = files_by_name(root, folders, [".pts"])
    return [name for name in labels if not name.endswith(MIRRORED)]


def photo(name: str) -> str:
    """Returns the photo that a face was cut from: the file name without a trailing _N.

    LFPW's `image_0001` counts images, so only a suffix of one or two digits is a face's number.
    AFW and HELEN share photos from Flickr, so the folder is not part of the photo's name.
    """
    return re.sub(r"_\d{1,2}$", "", name.rsplit("/", 1)[-1])


def validation_names() -> tuple[str, ...]:
    """Returns the package's validation list: paths relative to the root, without extension.

    A face belongs to `validation` if its photo has a face in this list.
    """
    return read_list("300w_validation")


def draw_validation(names: Iterable[str], share: float = 0.1) -> list[str]:
    """Returns a validation list, as the package's list was made: photos in the order of a hash.

    Args:
        names: all faces of the training folders, as `list_names` returns them.
        share: largest fraction of each folder's faces to hold out.

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


def read_labels(path: Path) -> NDArray[np.float32]:
    """Returns the landmarks of a file, float32 [68, 2], pixels of the face's image.

    Raises:
        RednetError: as `read_pts` does, or there are not 68 points.
    """
    landmarks = read_pts(path)
    if landmarks.shape != (POINTS, 2):
        raise RednetError(f"{path}: {len(landmarks)} points, 300-W has {POINTS}")
    return landmarks
