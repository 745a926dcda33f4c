"""The 300-W reader on a miniature of the official tree, and the committed validation list."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rednet_jax.data.images_300w import (
    SPLITS,
    TRAIN_FOLDERS,
    draw_validation,
    list_names,
    photo,
    read_300w,
    validation_names,
)
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.pts import write_pts
from rednet_jax.landmarks.schemes import LANDMARKS_68, mean_shape

LANDMARKS = (mean_shape(LANDMARKS_68) * 20 + [16, 12]).astype(np.float32)
PICTURE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def add_faces(root: Path, names: Iterable[str], ending: str = ".png") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PICTURE).save(root / f"{name}{ending}")
        write_pts(root / f"{name}.pts", LANDMARKS)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    add_faces(
        tmp_path,
        ["helen/trainset/7_2", "helen/trainset/7_1", "lfpw/trainset/image_0001", "afw/5_1"],
    )
    add_faces(tmp_path, ["afw/5_1_mirror", "helen/testset/9_1_mirror"])
    add_faces(tmp_path, [next(n for n in validation_names() if n.startswith(f)) for f in "ahl"])
    add_faces(tmp_path, ["helen/testset/9_1", "lfpw/testset/image_0001", "ibug/image_003_1"])
    return tmp_path


def test_splits_of_the_official_tree(tree: Path) -> None:
    names = {split: read_300w(tree, split).names for split in SPLITS}
    assert names["train"] == (
        "afw/5_1",
        "helen/trainset/7_1",
        "helen/trainset/7_2",
        "lfpw/trainset/image_0001",
    )
    assert len(names["validation"]) == 3
    assert set(names["validation"]) <= set(validation_names())
    assert names["common"] == ("helen/testset/9_1", "lfpw/testset/image_0001")
    assert names["challenging"] == ("ibug/image_003_1",)
    assert sorted(names["full"]) == sorted(names["common"] + names["challenging"])


def test_a_sample_is_what_the_files_say(tree: Path) -> None:
    samples = read_300w(tree, "train")
    faces = list(samples)
    assert len(samples) == len(faces) == 4 and samples.skipped == []
    assert [face.name for face in faces] == list(samples.names)
    face = faces[0]
    np.testing.assert_array_equal(face.image, PICTURE)
    np.testing.assert_allclose(face.landmarks, LANDMARKS, atol=1e-3)
    np.testing.assert_array_equal(face.box[:2], face.landmarks.min(0))
    np.testing.assert_array_equal(face.box[2:], face.landmarks.max(0))
    assert face.labelled.all() and face.labelled.shape == (68,)
    assert face.image.dtype == np.uint8 and face.box.dtype == np.float32
    assert (face.identity, face.style) == (-1, "300w")


def test_grey_and_transparent_pictures_become_rgb(tree: Path) -> None:
    for name, mode in (("afw/5_1", "L"), ("helen/trainset/7_1", "RGBA")):
        Image.fromarray(PICTURE).convert(mode).save(tree / f"{name}.png")
    grey, colour, *_ = read_300w(tree, "train")
    assert grey.image.shape == PICTURE.shape and (grey.image == grey.image[..., :1]).all()
    np.testing.assert_array_equal(colour.image, PICTURE)


def test_pictures_stay_as_stored_whatever_their_exif_says(tree: Path) -> None:
    """The labels were made on stored pixels: turning the picture would tear them off."""
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(PICTURE).save(tree / "afw/5_1.png", exif=turned)
    np.testing.assert_array_equal(next(iter(read_300w(tree, "train"))).image, PICTURE)


def test_a_bad_file_is_left_out_with_its_line(tree: Path) -> None:
    afw = tree / "afw"
    add_faces(tree, [f"afw/{i}" for i in range(10, 18)])
    (afw / "10.pts").write_text("n_points: 68\n{\n}\n")
    (afw / "11.png").write_bytes(b"")
    (afw / "12.png").write_text("no picture")
    (afw / "13.png").write_bytes((afw / "13.png").read_bytes()[:900])
    (afw / "14.png").unlink()
    write_pts(afw / "15.pts", LANDMARKS[:7])
    write_pts(afw / "16.pts", np.full((68, 2), 5))
    samples = read_300w(tree, "train")
    kept = [face.name for face in samples]
    assert kept[0] == "afw/17" and len(kept) == 5 and len(samples) == 12
    causes = [
        "10.pts: 0 points where 68 are promised",
        "11.png: not a picture",
        "12.png: not a picture",
        "13.png: cannot be decoded (",
        "14: has labels but no picture (.jpg or .png)",
        "15.pts: 7 points, 300-W has 68",
        "16.pts: all points on one line, no face",
    ]
    for line, cause in zip(samples.skipped, causes, strict=True):
        assert line.startswith(f"{afw}/{cause}") and "\n" not in line
    first = list(samples.skipped)
    assert [face.name for face in samples] == kept and samples.skipped == first


def test_a_folder_that_is_missing_is_named(tree: Path) -> None:
    for file in [*(tree / "ibug").iterdir()]:
        file.unlink()
    (tree / "ibug").rmdir()
    samples = read_300w(tree, "full")
    assert samples.missing == ("ibug",) and len(list(samples)) == 2
    assert samples.skipped == [f"{tree / 'ibug'}: no such folder"]
    with pytest.raises(RednetError, match=r"no part of 300w challenging here \(looked for ibug\)"):
        read_300w(tree, "challenging")


def test_what_is_no_split_is_refused(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(RednetError, match="300w has no split 'test'; known: train, validation"):
        read_300w(tree, "test")
    with pytest.raises(RednetError, match="none: no such folder"):
        read_300w(tmp_path / "none", "train")
    (tmp_path / "empty" / "ibug").mkdir(parents=True)
    with pytest.raises(RednetError, match="no faces of 300w challenging here"):
        read_300w(tmp_path / "empty", "challenging")


def test_further_faces_of_a_held_out_photo_are_held_out(tree: Path) -> None:
    known = next(name for name in validation_names() if name.startswith("helen/trainset/"))
    more = f"helen/trainset/{photo(known)}_9"
    add_faces(tree, [more])
    assert more not in validation_names()
    assert more in read_300w(tree, "validation").names
    assert more not in read_300w(tree, "train").names


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


def test_committed_list_is_sorted_and_holds_a_tenth_of_each_folder() -> None:
    names = validation_names()
    assert list(names) == sorted(set(names))
    counts = [sum(name.startswith(f"{folder}/") for name in names) for folder in TRAIN_FOLDERS]
    assert counts == [33, 87, 80]


def test_committed_list_is_what_is_drawn_from_the_real_tree(real_data: Path) -> None:
    root = real_data / "300w"
    every = list_names(root, TRAIN_FOLDERS)
    assert draw_validation(every) == list(validation_names())
    assert draw_validation(reversed(every)) == list(validation_names())
    train, validation = (read_300w(root, split).names for split in ("train", "validation"))
    assert validation == validation_names() and sorted(train + validation) == every
    assert not set(map(photo, train)) & set(map(photo, validation))


@st.composite
def trees(draw: st.DrawFn) -> set[str]:
    """Names of faces: up to 30 photos a folder, up to 3 faces a photo."""
    faces = st.builds("{}_{}".format, st.integers(100, 130), st.integers(1, 3))
    return {
        f"{folder}/{i}{face}" for i, folder in enumerate("abc") for face in draw(st.sets(faces))
    }


@given(names=trees(), share=st.floats(0.05, 0.5))
def test_drawn_list_holds_whole_photos_and_no_more_than_its_share(
    names: set[str], share: float
) -> None:
    drawn = draw_validation(sorted(names), share)
    assert drawn == draw_validation(sorted(names, reverse=True), share)
    photos = {photo(name) for name in drawn}
    assert drawn == sorted(name for name in names if photo(name) in photos)
    for folder in "abc":
        taken, there = (sum(n.startswith(folder) for n in part) for part in (drawn, names))
        assert taken <= share * there
