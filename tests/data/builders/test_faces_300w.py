"""300-W in records: the splits of its tree, the bytes of its files."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data.builders.trees import LANDMARKS, PICTURE, add_faces, names, read_back, save_picture
from PIL import Image

from rednet_jax.data.builders.tree_300w import SPLITS, photo, split_names, validation_names
from rednet_jax.data.prepare import find_prepared
from rednet_jax.media.images import read_image


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "300w"
    add_faces(root, ["afw/5_1", "afw/5_1_mirror", "helen/trainset/7_1", "helen/trainset/7_2"])
    add_faces(root, ["lfpw/trainset/image_0001", *validation_names()[:2]])
    add_faces(root, ["helen/testset/9_1", "lfpw/testset/image_0001", "ibug/image_003_1"])
    return root


def test_splits_are_those_of_the_tree(tree, build) -> None:
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


def test_a_sample_is_what_the_files_say(tree, build) -> None:
    face = read_back(build("300w", tree))["train"][0]
    assert face["name"] == b"afw/5_1"
    np.testing.assert_array_equal(face["image"], PICTURE)
    np.testing.assert_allclose(face["landmarks"], LANDMARKS, atol=1e-3)
    np.testing.assert_array_equal(face["box"][:2], face["landmarks"].min(0))
    np.testing.assert_array_equal(face["box"][2:], face["landmarks"].max(0))
    assert face["labelled"].all() and face["labelled"].dtype == bool
    assert (face["identity"], face["style"]) == (-1, b"300w")


def test_pictures_are_stored_as_their_own_bytes(tree, build) -> None:
    (tree / "afw/5_1.png").unlink()
    turned = Image.Exif()
    turned[0x0112] = 6
    file = save_picture(tree / "afw/5_1.jpg", quality=70, exif=turned)
    folder = build("300w", tree).folder
    builder = tfds.builder_from_directory(folder)
    skip = {"image": tfds.decode.SkipDecoding()}
    stored = list(builder.as_data_source("train", decoders=skip))
    assert file.read_bytes() in [face["image"] for face in stored]
    # The labels were made on stored pixels: turning the picture would tear them off.
    assert {face["image"].shape for face in builder.as_data_source("train")} == {PICTURE.shape}


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "I", "F"])
def test_other_images_become_rgb_as_everywhere(tree, build, mode) -> None:
    grey = np.asarray(Image.fromarray(PICTURE).convert("L"))
    deep = {"I;16": grey.astype(np.uint16) * 257, "I": grey.astype(np.int32) * 257}
    deep["F"] = (grey / 255).astype(np.float32)
    image = Image.fromarray(deep.get(mode, PICTURE))
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


def test_a_tree_of_test_folders_builds_the_test_splits(tmp_path, build) -> None:
    root = add_faces(tmp_path / "300w", ["ibug/image_003_1"])
    prepared = build("300w", root)
    assert prepared.samples == {"challenging": 1, "full": 1}
    assert f"{root}/lfpw/testset: no such folder" in prepared.left_out
    assert len(prepared.left_out) == 5


def test_a_bad_file_of_two_splits_counts_once(tmp_path, build) -> None:
    root = add_faces(tmp_path / "300w", [f"ibug/{i}" for i in range(100, 120)])
    (root / "ibug/100.png").write_text("no picture")
    prepared = build("300w", root)
    assert prepared.samples == {"challenging": 19, "full": 19}
    assert prepared.skipped == (f"{root}/ibug/100.png: not an image that can be read",)


def test_the_real_tree(real_300w) -> None:
    prepared = find_prepared("300w", real_300w)
    assert prepared is not None
    assert prepared.samples == {"train": 1812, "validation": 200} and prepared.skipped == ()
    assert len(prepared.left_out) == 3
    builder = tfds.builder_from_directory(prepared.folder)
    train, validation = (names(builder.as_data_source(s)) for s in ("train", "validation"))
    assert not {photo(name) for name in train} & {photo(name) for name in validation}
