"""YouTube Faces with 68 points: sources of labels, and the split by person."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data.builders.trees import IMAGE, LANDMARKS, names, read_back, save_image, write_labels

from rednet_jax.data.builders.machine_labels import FILE
from rednet_jax.data.builders.people import identity, person
from rednet_jax.data.builders.trees import read_list

HELD_OUT = read_list("people_validation")[0]
FRAMES = [
    "test/Ann_Other_02.jpg",
    f"test/{HELD_OUT}_02.jpg",
    "training/Ann_Other_00.jpg",
    "training/Ann_Other_51.jpg",
    f"training/{HELD_OUT}_01.jpg",
    "training/Jo_00.jpg",
]


def write_publishers(root: Path, folder: str, files: list[str]) -> None:
    values = ",".join(str(float(value)) for value in LANDMARKS.round().reshape(-1))
    header = ",".join(["", *map(str, range(136))])
    rows = [f"{file.split('/')[1]},{values}" for file in files]
    (root / f"{folder}_frames_keypoints.csv").write_text("\n".join([header, *rows]) + "\n")


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "ytf68"
    for file in FRAMES:
        save_image(root / file)
    for folder in ("training", "test"):
        write_publishers(root, folder, [file for file in FRAMES if file.startswith(folder)])
    return root


def test_both_folders_are_split_by_person(tree, build) -> None:
    write_labels(tree / FILE, {**dict.fromkeys(FRAMES, 1), FRAMES[0]: 0})
    prepared = build("ytf68", tree)
    assert prepared.left_out == prepared.skipped == ()
    samples = read_back(prepared)
    assert names(samples["validation"]) == [f"test/{HELD_OUT}_02", f"training/{HELD_OUT}_01"]
    train = samples["train"]
    assert names(train) == [
        "test/Ann_Other_02",
        "training/Ann_Other_00",
        "training/Ann_Other_51",
        "training/Jo_00",
    ]
    number = [face["identity"] for face in train]
    assert number == [identity("Ann_Other")] * 3 + [identity("Jo")] and number[0] != number[3]
    assert {face["style"] for face in train} == {b"300w"}
    untrusted, trusted = train[:2]
    assert not untrusted["labelled"].any() and not untrusted["landmarks"].any()
    height, width = IMAGE.shape[:2]
    assert untrusted["box"].tolist() == [0, 0, width - 1, height - 1]
    np.testing.assert_allclose(trusted["landmarks"], LANDMARKS, atol=0.01)
    assert trusted["labelled"].all()


def test_the_publishers_labels_have_their_own_style(tree, build) -> None:
    samples = read_back(build("ytf68", tree))
    assert {split: len(faces) for split, faces in samples.items()} == {"train": 4, "validation": 2}
    face = samples["train"][0]
    np.testing.assert_array_equal(face["landmarks"], LANDMARKS.round())
    assert face["labelled"].all() and face["style"] == b"ytf68"


@pytest.mark.parametrize("machine_labels", [True, False])
def test_a_missing_folder_is_reported(tree, build, machine_labels) -> None:
    if machine_labels:
        write_labels(tree / FILE, dict.fromkeys(FRAMES, 1))
    for file in (tree / "training").iterdir():
        file.unlink()
    (tree / "training").rmdir()
    prepared = build("ytf68", tree)
    assert prepared.left_out == (f"{tree}/training: no such folder",)
    assert prepared.samples == {"train": 1, "validation": 1} and prepared.skipped == ()


def test_a_missing_table_is_reported(tree, build) -> None:
    (tree / "training_frames_keypoints.csv").unlink()
    prepared = build("ytf68", tree)
    assert prepared.left_out == (f"{tree}/training_frames_keypoints.csv: no such file",)
    assert prepared.samples == {"train": 1, "validation": 1}


def test_a_name_outside_the_folder_is_skipped(tree, tmp_path, build) -> None:
    save_image(tmp_path / "outside_00.jpg")
    files = [f"training/Jo_{i}.jpg" for i in range(40)]
    for file in files:
        save_image(tree / file)
    write_publishers(tree, "training", [*files, "training/../../outside_00.jpg"])
    table = tree / "training_frames_keypoints.csv"
    table.write_text(table.read_text().replace("\n..,", "\n../../outside_00.jpg,"))
    prepared = build("ytf68", tree)
    assert prepared.skipped == (f"{tree}/training/../../outside_00.jpg: leads outside {tree}",)


def test_people_of_clips_are_in_one_split() -> None:
    """Three validation clips and four other clips of 300-VW show known people."""
    held_out = set(read_list("people_validation"))
    assert {"Al_Pacino", "Julia_Roberts", "Victoria_Beckham"} <= held_out
    train = {"Anderson_Cooper", "Bill_Clinton", "Gloria_Estefan", "Sylvester_Stallone"}
    assert not train & held_out
    for clip in read_list("300vw_validation"):
        assert not any(clip.endswith(who.lower()) for who in train)


@pytest.mark.parametrize(
    ("name", "who"),
    [
        ("training/Luis_Fonsi_21", "Luis_Fonsi"),
        ("Aaron_Peirsol/Aaron_Peirsol_0001", "Aaron_Peirsol"),
        ("Jo", "Jo"),
    ],
)
def test_person_is_the_name_without_its_number(name, who) -> None:
    assert person(name) == who


def test_the_real_tree(real_data, build) -> None:
    prepared = build("ytf68", real_data / "ytf68")
    assert prepared.samples == {"train": 3327, "validation": 346}
    assert prepared.left_out == prepared.skipped == ()
    skip = {"image": tfds.decode.SkipDecoding()}
    builder = tfds.builder_from_directory(prepared.folder)
    source = builder.as_data_source(decoders=skip)
    faces = {split: list(source[split]) for split in prepared.samples}
    people = {split: {face["identity"] for face in faces[split]} for split in faces}
    assert not people["train"] & people["validation"]
    named = {person(path.stem) for path in (real_data / "ytf68").rglob("*.jpg")}
    assert people["train"] | people["validation"] == {identity(who) for who in named}
    # No two of the 300 names have the same number.
    assert len(people["train"] | people["validation"]) == len(named) == 300
    untrusted = sum(not face["labelled"].any() for split in faces for face in faces[split])
    table = (real_data / "ytf68" / FILE).read_text()
    assert untrusted == len(re.findall(r"\.jpg,0,", table)) == 204
