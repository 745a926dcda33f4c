"""300-W in records: its splits, images and labels."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data.builders.trees import IMAGE, LANDMARKS, add_faces, names, read_back, save_image
from PIL import Image

from rednet_jax.data.builders.tree_300w import SPLITS, photo, split_names, validation_names
from rednet_jax.data.prepare import find_prepared
from rednet_jax.landmarks.pts import write_pts
from rednet_jax.media.images import read_image


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "300w"
    add_faces(root, ["afw/5_1", "afw/5_1_mirror", "helen/trainset/7_1", "helen/trainset/7_2"])
    add_faces(root, ["lfpw/trainset/image_0001", *validation_names()[:2]])
    add_faces(root, ["helen/testset/9_1", "lfpw/testset/image_0001", "ibug/image_003_1"])
    return root


def test_splits_are_those_of_the_folders(tree, build) -> None:
    prepared = build("300w", tree)
    assert prepared.left_out == prepared.skipped == ()
    samples = read_back(prepared)
    assert prepared.samples == {
        "train": 4,
        "validation": 2,
        "common": 2,
        "challenging": 1,
        "full": 3,
    }
    for split in SPLITS:
        assert names(samples[split]) == split_names(tree, split)


def test_a_sample_has_the_image_and_labels_of_its_files(tree, build) -> None:
    face = read_back(build("300w", tree))["train"][0]
    assert face["name"] == b"afw/5_1"
    np.testing.assert_array_equal(face["image"], IMAGE)
    np.testing.assert_allclose(face["landmarks"], LANDMARKS, atol=1e-3)
    np.testing.assert_array_equal(face["box"][:2], face["landmarks"].min(0))
    np.testing.assert_array_equal(face["box"][2:], face["landmarks"].max(0))
    assert face["labelled"].all() and face["labelled"].dtype == bool
    assert (face["identity"], face["style"]) == (-1, b"300w")


def test_rgb_images_are_stored_without_recompression(tree, build) -> None:
    (tree / "afw/5_1.png").unlink()
    turned = Image.Exif()
    turned[0x0112] = 6
    file = save_image(tree / "afw/5_1.jpg", quality=70, exif=turned)
    folder = build("300w", tree).folder
    builder = tfds.builder_from_directory(folder)
    skip = {"image": tfds.decode.SkipDecoding()}
    stored = list(builder.as_data_source("train", decoders=skip))
    assert file.read_bytes() in [face["image"] for face in stored]
    # The labels are in pixels as stored, so the EXIF orientation must be ignored.
    assert {face["image"].shape for face in builder.as_data_source("train")} == {IMAGE.shape}


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "I", "F"])
def test_other_images_are_converted_to_rgb(tree, build, mode) -> None:
    grey = np.asarray(Image.fromarray(IMAGE).convert("L"))
    deep = {"I;16": grey.astype(np.uint16) * 257, "I": grey.astype(np.int32) * 257}
    deep["F"] = (grey / 255).astype(np.float32)
    image = Image.fromarray(deep.get(mode, IMAGE))
    image = image if mode in deep else image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    form = {"CMYK": "JPEG", "I": "TIFF", "F": "TIFF"}.get(mode, "PNG")
    image.save(tree / "afw/5_1.png", form, exif=exif)
    face = read_back(build("300w", tree))["train"][0]
    expected = read_image(tree / "afw/5_1.png", upright=False)
    np.testing.assert_array_equal(face["image"], expected)
    if mode in (*deep, "L"):
        np.testing.assert_array_equal(expected[..., 0], grey)


def test_extensions_match_in_any_case(tree, build) -> None:
    """All image formats are read."""
    for name, ending in (("5_1", ".PTS"), ("7_1", ".Pts")):
        folder = tree / ("afw" if name == "5_1" else "helen/trainset")
        (folder / f"{name}.pts").rename(folder / f"{name}{ending}")
    for name, ending, form in (
        ("afw/5_1", ".JPG", "JPEG"),
        ("helen/trainset/7_1", ".jpeg", "JPEG"),
        ("helen/trainset/7_2", ".Bmp", "BMP"),
        ("lfpw/trainset/image_0001", ".PNG", "PNG"),
    ):
        (tree / f"{name}.png").unlink()
        save_image(tree / f"{name}{ending}", format=form)
    prepared = build("300w", tree)
    assert prepared.skipped == () and prepared.samples["train"] == 4
    assert names(read_back(prepared)["train"]) == split_names(tree, "train")


def test_two_files_of_one_name_are_skipped_and_reported(tmp_path, build) -> None:
    root = add_faces(tmp_path / "300w", [f"ibug/{i}" for i in range(100, 150)])
    save_image(root / "ibug/100.JPG", format="JPEG")
    write_pts(root / "ibug/101.PTS", LANDMARKS)
    prepared = build("300w", root)
    assert prepared.samples["challenging"] == 48
    assert prepared.skipped == (
        f"{root}/ibug/100: has 2 files (.JPG and .png) for its image",
        f"{root}/ibug/101: has 2 files (.PTS and .pts) for its labels",
    )


def test_labels_that_do_not_fit_the_image_are_skipped_and_reported(tmp_path, build) -> None:
    root = add_faces(tmp_path / "300w", [f"ibug/{i}" for i in range(100, 240)])
    far = LANDMARKS.copy()
    far[3] += [-60, 0]
    for number, landmarks in enumerate(
        (LANDMARKS + 500, LANDMARKS * 4, far, LANDMARKS / 32, LANDMARKS * [1, 0] + 3), 100
    ):
        write_pts(root / f"ibug/{number}.pts", landmarks)
    prepared = build("300w", root)
    inside = ((LANDMARKS * 4 <= [31.5, 23.5]) & (LANDMARKS * 4 >= -0.5)).all(1).sum()
    image = "the image of 32 x 24 pixels"
    assert prepared.skipped == (
        f"{root}/ibug/100.pts: 0 of 68 points lie in {image}",
        f"{root}/ibug/101.pts: {inside} of 68 points lie in {image}",
        f"{root}/ibug/102.pts: a point lies {-far[3, 0] - 0.5:.0f} pixels outside {image}",
        f"{root}/ibug/103.pts: the face is 0.6 pixels large",
        f"{root}/ibug/104.pts: all points lie on one line",
    )
    assert prepared.samples["challenging"] == 135


def test_a_face_at_the_edge_of_its_image_is_accepted(tmp_path, build) -> None:
    root = add_faces(tmp_path / "300w", ["ibug/100", "ibug/101"])
    aside = LANDMARKS + np.array([14, 0], np.float32)
    assert 0.2 < (aside[:, 0] > 31.5).mean() < 0.5
    write_pts(root / "ibug/100.pts", aside)
    prepared = build("300w", root)
    assert prepared.skipped == ()
    face, _ = read_back(prepared)["challenging"]
    np.testing.assert_allclose(face["landmarks"], aside, atol=1e-3)
    assert face["labelled"].all()


def test_files_that_are_not_read_are_counted(tree, build) -> None:
    for file in ("ibug/readme.txt", "ibug/more.TXT", "afw/._5_1.pts", "afw/.DS_Store", "LICENCE"):
        (tree / file).touch()
    save_image(tree / "ibug/bare.png")
    (tree / "elsewhere").mkdir()
    write_pts(tree / "elsewhere/1.pts", LANDMARKS)
    prepared = build("300w", tree)
    assert prepared.skipped == ()
    assert prepared.unread == {
        "mirrored copies": 2,
        "hidden files": 2,
        ".txt": 1,
        ".TXT": 1,
        ".png": 1,
        ".pts": 1,
        "without ending": 1,
    }


def test_test_folders_alone_give_the_test_splits(tmp_path, build) -> None:
    root = add_faces(tmp_path / "300w", ["ibug/image_003_1"])
    prepared = build("300w", root)
    assert prepared.samples == {"challenging": 1, "full": 1}
    assert f"{root}/lfpw/testset: no such folder" in prepared.left_out
    assert len(prepared.left_out) == 5


def test_a_bad_file_of_two_splits_counts_once(tmp_path, build) -> None:
    root = add_faces(tmp_path / "300w", [f"ibug/{i}" for i in range(100, 120)])
    (root / "ibug/100.png").write_text("no image")
    prepared = build("300w", root)
    assert prepared.samples == {"challenging": 19, "full": 19}
    assert prepared.skipped == (f"{root}/ibug/100.png: not an image that can be read",)


def test_the_real_tree(real_300w) -> None:
    prepared = find_prepared("300w", real_300w)
    assert prepared is not None
    assert prepared.samples == {"train": 1812, "validation": 200} and prepared.skipped == ()
    assert len(prepared.left_out) == 3 and prepared.unread == {".md": 1}
    builder = tfds.builder_from_directory(prepared.folder)
    train, validation = (names(builder.as_data_source(s)) for s in ("train", "validation"))
    assert not {photo(name) for name in train} & {photo(name) for name in validation}
