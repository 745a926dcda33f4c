"""The splits of 300-W's folders, its files, and the package's validation list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data.builders.trees import LANDMARKS, add_faces
from hypothesis import given
from hypothesis import strategies as st

from rednet_jax.data.builders.tree_300w import (
    SPLITS,
    TRAIN_FOLDERS,
    draw_validation,
    list_names,
    photo,
    read_labels,
    split_names,
    validation_names,
)
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.pts import write_pts

HELD_OUT = [next(name for name in validation_names() if name.startswith(f)) for f in TRAIN_FOLDERS]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    add_faces(tmp_path, ["helen/trainset/7_2", "helen/trainset/7_1", "lfpw/trainset/image_0001"])
    add_faces(tmp_path, ["afw/5_1", "afw/5_1_mirror", "helen/testset/9_1_mirror", *HELD_OUT])
    return add_faces(tmp_path, ["helen/testset/9_1", "lfpw/testset/image_0001", "ibug/image_003_1"])


def test_splits_of_the_official_folders(tree: Path) -> None:
    assert {split: split_names(tree, split) for split in SPLITS} == {
        "train": [
            "afw/5_1",
            "helen/trainset/7_1",
            "helen/trainset/7_2",
            "lfpw/trainset/image_0001",
        ],
        "validation": HELD_OUT,
        "common": ["helen/testset/9_1", "lfpw/testset/image_0001"],
        "challenging": ["ibug/image_003_1"],
        "full": ["helen/testset/9_1", "lfpw/testset/image_0001", "ibug/image_003_1"],
    }


def test_a_missing_folder_has_no_faces(tmp_path: Path) -> None:
    add_faces(tmp_path, ["lfpw/testset/image_0001"])
    assert split_names(tmp_path, "full") == ["lfpw/testset/image_0001"]
    assert split_names(tmp_path, "challenging") == split_names(tmp_path, "train") == []


def test_further_faces_of_a_held_out_photo_are_held_out(tree: Path) -> None:
    more = f"helen/trainset/{photo(HELD_OUT[1])}_9"
    add_faces(tree, [more])
    assert more not in validation_names()
    assert more in split_names(tree, "validation")
    assert more not in split_names(tree, "train")


def test_labels_are_68_points(tree: Path) -> None:
    labels = read_labels(tree / "afw/5_1.pts")
    assert labels.dtype == np.float32
    np.testing.assert_allclose(labels, LANDMARKS, atol=1e-3)
    write_pts(tree / "afw/5_1.pts", LANDMARKS[:7])
    with pytest.raises(RednetError, match=r"afw/5_1\.pts: 7 points, 300-W has 68"):
        read_labels(tree / "afw/5_1.pts")


def test_extensions_match_in_any_case(tree: Path) -> None:
    (tree / "afw/5_1.pts").rename(tree / "afw/5_1.PTS")
    (tree / "afw/._6_1.pts").touch()
    assert list_names(tree, ["afw"]) == [HELD_OUT[0], "afw/5_1"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("helen/trainset/123_1", "123"),
        ("afw/123_12", "123"),
        ("lfpw/trainset/image_0001", "image_0001"),
        ("ibug/image_003_1", "image_003"),
        ("plain", "plain"),
    ],
)
def test_photo_is_the_name_without_the_number_of_its_face(name: str, expected: str) -> None:
    assert photo(name) == expected


def test_validation_list_is_sorted_and_has_a_tenth_of_each_folder() -> None:
    names = validation_names()
    assert list(names) == sorted(set(names))
    counts = [sum(name.startswith(f"{folder}/") for name in names) for folder in TRAIN_FOLDERS]
    assert counts == [33, 87, 80]


def test_validation_list_is_reproduced_from_the_real_folders(real_data: Path) -> None:
    root = real_data / "300w"
    names = list_names(root, TRAIN_FOLDERS)
    assert draw_validation(names) == list(validation_names())
    assert draw_validation(reversed(names)) == list(validation_names())
    train, validation = (split_names(root, split) for split in ("train", "validation"))
    assert validation == list(validation_names()) and sorted(train + validation) == names
    assert not set(map(photo, train)) & set(map(photo, validation))


@st.composite
def trees(draw: st.DrawFn) -> set[str]:
    """Draws names of faces: up to 30 photos per folder, up to 3 faces per photo."""
    faces = st.builds("{}_{}".format, st.integers(100, 130), st.integers(1, 3))
    return {
        f"{folder}/{i}{face}" for i, folder in enumerate("abc") for face in draw(st.sets(faces))
    }


@given(names=trees(), share=st.floats(0.05, 0.5))
def test_a_drawn_list_has_whole_photos_and_at_most_its_share(names: set[str], share: float) -> None:
    drawn = draw_validation(sorted(names), share)
    assert drawn == draw_validation(sorted(names, reverse=True), share)
    photos = {photo(name) for name in drawn}
    assert drawn == sorted(name for name in names if photo(name) in photos)
    for folder in "abc":
        held_out, total = (sum(n.startswith(folder) for n in part) for part in (drawn, names))
        assert held_out <= share * total
