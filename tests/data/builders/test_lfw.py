"""LFW: identities, and points if the folder has labels."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data.builders.trees import IMAGE, LANDMARKS, names, read_back, save_image, write_labels

from rednet_jax.data.builders.machine_labels import FILE
from rednet_jax.data.builders.people import identity, person
from rednet_jax.data.builders.trees import read_list
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.boxes import landmark_box

HELD_OUT = read_list("people_validation")[-1]
FACES = ["Ann_Other/Ann_Other_0001", "Ann_Other/Ann_Other_0002", f"{HELD_OUT}/{HELD_OUT}_0003"]


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "lfw"
    for name in FACES:
        save_image(root / f"{name}.jpg")
    save_image(root / "Ann_Other/thumbnail.jpg")
    return root


def test_the_publishers_folders_give_identities_without_points(tree, build) -> None:
    prepared = build("lfw", tree)
    assert prepared.left_out == (f"{tree}/{FILE}: no such file; no landmark is labelled",)
    samples = read_back(prepared)
    assert names(samples["train"]) == FACES[:2] and names(samples["validation"]) == FACES[2:]
    height, width = IMAGE.shape[:2]
    for face in samples["train"]:
        assert face["identity"] == identity("Ann_Other")
        assert not face["labelled"].any() and not face["landmarks"].any()
        assert face["box"].tolist() == [0, 0, width - 1, height - 1]


def test_points_outside_the_image_are_not_labelled(tree, build) -> None:
    lower = LANDMARKS + np.array([0, 6], np.float32)
    write_labels(tree / FILE, {f"{name}.jpg": 1 for name in FACES[1:]}, lower)
    prepared = build("lfw", tree)
    assert prepared.left_out == ()
    bare, masked = read_back(prepared)["train"]
    assert not bare["labelled"].any()
    shown = lower[:, 1] <= IMAGE.shape[0] - 0.5
    assert 0 < shown.sum() < 68
    np.testing.assert_array_equal(masked["labelled"], shown)
    np.testing.assert_allclose(masked["landmarks"][shown], lower[shown], atol=0.01)
    assert not masked["landmarks"][~shown].any()
    np.testing.assert_allclose(masked["box"], landmark_box(lower, shown), atol=0.01)


def test_rows_of_another_scale_are_skipped_and_reported(tree, build) -> None:
    for i in range(60):
        save_image(tree / f"Jo/Jo_{i:04d}.JPG", format="JPEG")
    rows = {f"Jo/Jo_{i:04d}.JPG": 1 for i in range(60)}
    write_labels(tree / FILE, rows)
    text = (tree / FILE).read_text().splitlines()
    values = ",".join(f"{value:.2f}" for value in (LANDMARKS * 4).ravel())
    # An untrusted row is not checked: its face is kept for its identity.
    text[1], text[2] = (f"Jo/Jo_000{i}.JPG,{i},2.5,{values}" for i in (0, 1))
    (tree / FILE).write_text("\n".join(text) + "\n")
    prepared = build("lfw", tree)
    (line,) = prepared.skipped
    assert line.startswith(f"{tree}/{FILE}: the row of 'Jo/Jo_0001.JPG': ")
    assert line.endswith(" of 68 points lie in the image of 32 x 24 pixels")
    assert prepared.samples == {"train": 61, "validation": 1}


def test_two_images_of_one_name_are_refused(tree, build) -> None:
    save_image(tree / f"{FACES[0]}.png")
    with pytest.raises(RednetError, match=r"lfw: 1 faces have two images, in different formats"):
        build("lfw", tree)


def test_a_row_outside_the_folder_is_skipped(tree, tmp_path, build) -> None:
    save_image(tmp_path / "Jo_0001.jpg")
    for i in range(40):
        save_image(tree / f"Jo/Jo_{i:04d}.jpg")
    write_labels(tree / FILE, {"../Jo_0001.jpg": 1, "Jo/Jo_0001.jpg": 1})
    prepared = build("lfw", tree)
    assert prepared.skipped == (f"{tree}/../Jo_0001.jpg: leads outside {tree}",)
    assert prepared.samples == {"train": 42, "validation": 1}


def test_the_real_tree(real_data, build) -> None:
    """No person in the validation split of ytf68 is in the train split."""
    prepared = build("lfw", real_data / "lfw")
    assert prepared.samples == {"train": 2990, "validation": 326}
    assert prepared.left_out == prepared.skipped == ()
    builder = tfds.builder_from_directory(prepared.folder)
    source = builder.as_data_source(decoders={"image": tfds.decode.SkipDecoding()})
    faces = {split: list(source[split]) for split in prepared.samples}
    people = {split: {face["identity"] for face in faces[split]} for split in faces}
    assert not people["train"] & people["validation"]
    assert len(people["train"]) + len(people["validation"]) == 1658
    held_out = {identity(who) for who in read_list("people_validation")}
    frames = {identity(person(path.stem)) for path in (real_data / "ytf68").rglob("*.jpg")}
    assert len(frames & held_out) == 29
    assert not people["train"] & frames & held_out
    both = [face for split in faces for face in faces[split]]
    # 2.8 % are untrusted; a third of the others has points outside the image.
    assert sum(not face["labelled"].any() for face in both) == 93
    assert sum(0 < face["labelled"].sum() < 68 for face in both) == 1002
    for face in both:
        points = face["landmarks"][face["labelled"]]
        assert ((points >= -0.5) & (points <= 127.5)).all()
