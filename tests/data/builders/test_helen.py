"""Helen: manual or machine labels, and splits that agree with those of 300-W."""

from __future__ import annotations

import numpy as np
import tensorflow_datasets as tfds
from data.builders.trees import (
    IMAGE,
    LANDMARKS,
    add_faces,
    names,
    read_back,
    save_image,
    write_labels,
)

from rednet_jax.data.builders.machine_labels import FILE
from rednet_jax.data.builders.tree_300w import photo, validation_names

HELD_OUT = next(name for name in validation_names() if name.startswith("helen/")).split("/")[-1]


def test_folders_with_68_point_files(tmp_path, build) -> None:
    root = add_faces(tmp_path / "helen", ["trainset/7_1", "trainset/7_1_mirror", "testset/9_1"])
    add_faces(root, [f"trainset/{HELD_OUT}", f"trainset/{photo(HELD_OUT)}_9"], ".jpg")
    prepared = build("helen", root)
    assert prepared.left_out == prepared.skipped == ()
    samples = read_back(prepared)
    assert {split: names(faces) for split, faces in samples.items()} == {
        "train": ["trainset/7_1"],
        "validation": [f"trainset/{HELD_OUT}", f"trainset/{photo(HELD_OUT)}_9"],
        "test": ["testset/9_1"],
    }
    face = samples["train"][0]
    np.testing.assert_array_equal(face["image"], IMAGE)
    np.testing.assert_allclose(face["landmarks"], LANDMARKS, atol=1e-3)
    assert face["labelled"].all() and face["style"] == b"300w"


def test_the_publishers_list_names_test_images(tmp_path, build) -> None:
    root = add_faces(tmp_path / "helen", ["helen_1/7_1", "helen_1/8_1", "helen_2/9_1"])
    (root / "testnames.txt").write_text("8_1\n")
    samples = read_back(build("helen", root))
    assert names(samples["train"]) == ["helen_1/7_1", "helen_2/9_1"]
    assert names(samples["test"]) == ["helen_1/8_1"]


def test_upper_case_extensions_and_a_byte_order_mark(tmp_path, build) -> None:
    root = add_faces(tmp_path / "helen", ["helen_1/7_1", "helen_1/8_1"])
    (root / "helen_1/7_1.pts").rename(root / "helen_1/7_1.PTS")
    (root / "helen_1/7_1.png").unlink()
    save_image(root / "helen_1/7_1.JPG", format="JPEG")
    (root / "testnames.txt").write_bytes(b"\xef\xbb\xbf8_1\r\n")
    prepared = build("helen", root)
    assert (prepared.left_out, prepared.skipped, prepared.unread) == ((), (), {})
    samples = read_back(prepared)
    assert names(samples["train"]) == ["helen_1/7_1"]
    assert names(samples["test"]) == ["helen_1/8_1"]


def test_machine_labels(tmp_path, build) -> None:
    root = tmp_path / "helen"
    for name in ("1_1", "2_1", "2_2", "3_1", HELD_OUT):
        save_image(root / f"{name}.jpg")
    write_labels(root / FILE, {"1_1.jpg": 0, "2_1.jpg": 1, "2_2.jpg": 1, f"{HELD_OUT}.jpg": 1})
    add_faces(root, ["1_1"], ".jpg")
    prepared = build("helen", root)
    samples = read_back(prepared)
    assert names(samples["train"]) == ["1_1", "2_1", "2_2"]
    assert names(samples["validation"]) == [HELD_OUT]
    assert prepared.left_out == (f"{root}: 1 images without labels",)
    np.testing.assert_allclose(samples["train"][0]["landmarks"], LANDMARKS, atol=1e-3)
    np.testing.assert_allclose(samples["train"][1]["landmarks"], LANDMARKS, atol=0.01)


def test_rows_of_missing_files_or_outside_the_folder_are_reported(tmp_path, build) -> None:
    root = tmp_path / "helen"
    outside = save_image(tmp_path / "outside.jpg")
    rows = dict.fromkeys([f"{i}_1.jpg" for i in range(100)], 1)
    for name in rows:
        save_image(root / name)
    rows["100_1.jpg"] = 0
    write_labels(root / FILE, {**rows, "../outside.jpg": 1, str(outside): 1, "gone.jpg": 1})
    prepared = build("helen", root)
    assert prepared.samples == {"train": 100}
    assert prepared.left_out == (f"{root}/{FILE}: 1 faces are not trusted",)
    assert prepared.skipped == (
        f"{root}/../outside.jpg: leads outside {root}",
        f"{outside}: leads outside {root}",
        f"{root}/gone.jpg: no such file",
    )


def test_images_of_one_photo_session_are_in_one_split() -> None:
    """2432515626_1 (helen) and 2277805385_1 (300w), identified by eye."""
    held_out = {photo(name) for name in validation_names()}
    assert not {"2432515626", "2277805385"} & held_out


def test_the_real_images(real_data, build) -> None:
    prepared = build("helen", real_data / "helen_more")
    assert prepared.samples == {"train": 1062} and prepared.skipped == ()
    assert [line.split(": ")[1] for line in prepared.left_out] == ["35 faces are not trusted"]
    faces = tfds.builder_from_directory(prepared.folder).as_data_source("train")
    inside = [face["landmarks"][face["labelled"]] for face in faces]
    assert all((points > -0.5).all() and (points < 255.5).all() for points in inside)
    assert sum(map(len, inside)) > 0.999 * 68 * 1062
    train = {photo(path.stem) for path in (real_data / "300w/helen/trainset").glob("*.pts")}
    assert not {photo(name) for name in names(faces)} & train
