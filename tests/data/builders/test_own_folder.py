"""A user's folder: .pts files, a CSV table, COCO keypoints, and splits by person."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from any_scheme import random_scheme
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rednet_jax import cli
from rednet_jax.data.builders.own_folder import OwnData, _split_by_shares
from rednet_jax.data.crops import face_crops
from rednet_jax.data.prepare import find_prepared, own_data, prepare
from rednet_jax.data.sources import read_split
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.boxes import whole_face_box
from rednet_jax.landmarks.pts import write_pts
from rednet_jax.landmarks.schemes import Scheme

SCHEME = random_scheme(5, seed=1)
FACE = SCHEME.shape * 60 + [70, 64]


def add_images(folder: Path, names: Sequence[str]) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((128, 140, 3), 10 + number, np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


def table(path: Path, rows: Sequence[dict[str, Any]], scheme: Scheme = SCHEME) -> Path:
    columns = ["name", *(f"{axis}{i}" for i in range(scheme.count) for axis in "xy")]
    columns += [name for name in rows[0] if name not in columns]
    lines = [",".join(columns)]
    lines += [",".join(str(row[name]) for name in columns) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def row(name: str, points: np.ndarray = FACE, **more: Any) -> dict[str, Any]:
    cells = {
        f"{axis}{i}": f"{value:.3f}"
        for i, point in enumerate(points)
        for axis, value in zip("xy", point, strict=True)
    }
    return {"name": name, **cells, **more}


def read_all(name: str, data_dir: Path) -> dict[str, list[Any]]:
    prepared = find_prepared(name, data_dir)
    assert prepared is not None
    return {split: list(read_split(name, split, data_dir)) for split in prepared.samples}


def test_pts_files_beside_images(tmp_path: Path) -> None:
    root = add_images(tmp_path / "mine", ["a.png", "in/b.jpg", "in/c.png", "unlabelled.png"])
    for name in ("a", "in/b", "in/c"):
        write_pts(root / f"{name}.pts", FACE)
    prepared = prepare("mine", root, tmp_path / "data", own=OwnData(SCHEME, shares=(1.0, 0.0, 0.0)))
    assert prepared.samples == {"train": 3} and prepared.scheme == SCHEME and prepared.built
    assert prepared.unread == {".png": 1}
    faces = read_all("mine", tmp_path / "data")["train"]
    assert [face.name for face in faces] == ["a", "in/b", "in/c"]
    assert faces[0].image[0, 0, 0] == 10 and faces[0].landmarks.shape == (5, 2)
    np.testing.assert_allclose(faces[0].landmarks, FACE, atol=1e-3)
    assert read_split("mine", "train", tmp_path / "data").scheme == SCHEME
    assert own_data(tmp_path / "data") == ["mine"]
    again = prepare("mine", root, tmp_path / "data", own=OwnData(SCHEME, shares=(1.0, 0.0, 0.0)))
    assert not again.built


@pytest.mark.parametrize("source", ["../mine", ".hidden/mine"])
def test_dots_in_the_path_of_the_folder_hide_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    root = add_images(Path(source), ["a.png", ".b/b.png"])
    for name in ("a", ".b/b"):
        write_pts(root / f"{name}.pts", FACE)
    prepared = prepare("mine", root, tmp_path / "data", own=OwnData(SCHEME, shares=(1.0, 0.0, 0.0)))
    assert prepared.samples == {"train": 1}


def test_a_table_has_identities_boxes_and_visibility(tmp_path: Path) -> None:
    root = add_images(tmp_path / "mine", ["a.png", "b.png", "c.png"])
    box = {"box_x0": 40, "box_y0": 30, "box_x1": 100, "box_y1": 110}
    hidden = {f"visible{i}": v for i, v in enumerate([2, 1, 0, 2, 2])}
    shown = {f"visible{i}": 2 for i in range(5)}
    half = FACE.copy()
    half[1] = np.nan
    labels = table(
        tmp_path / "labels.csv",
        [
            row("a.png", identity="ann", **box, **hidden),
            row("b", half, identity="bob", **box, **shown),
            row("b", identity="ann", **box, **shown),
            row("c.png", identity="", **dict.fromkeys(box, ""), **shown),
        ],
    )
    own = OwnData(SCHEME, labels, shares=(1.0, 0.0, 0.0))
    prepare("mine", root, tmp_path / "data", own=own)
    faces = {face.name: face for face in read_all("mine", tmp_path / "data")["train"]}
    assert list(faces) == ["a", "b", "b_1", "c"]
    assert [face.identity for face in faces.values()] == [0, 1, 0, -1]
    assert faces["a"].labelled.tolist() == [True, True, False, True, True]
    assert faces["b"].labelled.tolist() == [True, False, True, True, True]
    np.testing.assert_array_equal(faces["a"].box, [40, 30, 100, 110])
    np.testing.assert_allclose(faces["c"].box, [*FACE.min(0), *FACE.max(0)], atol=1e-3)
    assert {face.style for face in faces.values()} == {""}
    # Crops are cut around the whole face, not around the table's box.
    cut = face_crops("mine", "train", margin=1.5, size=48, data_dir=tmp_path / "data")
    assert cut.scheme == SCHEME
    whole = whole_face_box(FACE.astype(np.float32), SCHEME)
    middle = cut.affines[3] @ [23.5, 23.5, 1]
    np.testing.assert_allclose(middle, (whole[:2] + whole[2:]) / 2, atol=0.1)


def test_coco_keypoints(tmp_path: Path) -> None:
    root = add_images(tmp_path / "mine", ["a.png", "b.png"])
    keypoints = np.concatenate([FACE, [[2], [1], [0], [2], [2]]], axis=1)
    unlabelled = np.zeros((5, 3))
    plain = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "b.png"}],
        "annotations": [
            {"image_id": 9, "keypoints": keypoints.ravel().tolist(), "bbox": [40, 30, 60, 80]},
            {"image_id": 7, "keypoints": unlabelled.ravel().tolist(), "bbox": [1, 1, 9, 9]},
        ],
        "categories": [{"id": 1, "name": "face"}],
    }
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(plain), encoding="utf-8")
    own = OwnData(SCHEME, labels, shares=(1.0, 0.0, 0.0))
    prepare("mine", root, tmp_path / "data", own=own)
    (face,) = read_all("mine", tmp_path / "data")["train"]
    assert face.name == "b" and face.labelled.tolist() == [True, True, False, True, True]
    np.testing.assert_array_equal(face.box, [40, 30, 100, 110])
    np.testing.assert_allclose(face.landmarks[0], FACE[0], atol=1e-3)


def test_one_landmark_needs_a_box(tmp_path: Path) -> None:
    """A face with one landmark has the size of its box; without a box it is refused."""
    scheme = random_scheme(1, seed=0)
    root = add_images(tmp_path / "mine", ["a.png", "b.png"])
    box = {"box_x0": 40, "box_y0": 30, "box_x1": 100, "box_y1": 110}
    place = np.array([[70.0, 60.0]])
    labels = table(
        tmp_path / "labels.csv", [row("a.png", place, **box), row("b.png", place, **box)], scheme
    )
    own = OwnData(scheme, labels, shares=(1.0, 0.0, 0.0))
    assert prepare("mine", root, tmp_path / "data", own=own).samples == {"train": 2}
    cut = face_crops("mine", "train", margin=1.0, size=40, data_dir=tmp_path / "data")
    # The larger side of the box, 80 pixels, is the side of the whole face.
    np.testing.assert_allclose(cut.affines[0][0, 0], 80 / 40, rtol=0.2)
    bare = table(tmp_path / "bare.csv", [row("a.png", place)], scheme)
    with pytest.raises(RednetError, match="one labelled point and no box"):
        prepare("bare", root, tmp_path / "data", own=OwnData(scheme, bare))


def test_lists_define_the_splits(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(6)]
    root = add_images(tmp_path / "mine", names)
    people = ["ann", "ann", "bob", "cid", "cid", "dan"]
    labels = table(
        tmp_path / "labels.csv",
        [row(name, identity=who) for name, who in zip(names, people, strict=True)],
    )
    (tmp_path / "train.txt").write_text("# mine\n0.png\n1\n")
    (tmp_path / "test.txt").write_text("2.png\n5.png\n")
    lists = (("train", tmp_path / "train.txt"), ("test", tmp_path / "test.txt"))
    prepared = prepare("mine", root, tmp_path / "data", own=OwnData(SCHEME, labels, lists))
    assert prepared.samples == {"train": 2, "test": 2}
    assert prepared.left_out == (f"{root}: 2 labelled faces in no list",)
    (tmp_path / "test.txt").write_text("1\n")
    with pytest.raises(RednetError, match="person ann is in train and in test"):
        prepare("mine", root, tmp_path / "data", own=OwnData(SCHEME, labels, lists))
    (tmp_path / "test.txt").write_text("nobody.png\n")
    with pytest.raises(RednetError, match=r"test.txt: 'nobody.png' is not a labelled image"):
        prepare("mine", root, tmp_path / "data", own=OwnData(SCHEME, labels, lists))


@given(
    st.lists(st.integers(0, 12), min_size=3, max_size=60),
    st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.5, 0.0), (0.0, 0.5, 0.5), (1.0, 0.0, 0.0)]),
    st.integers(0, 3),
)
def test_shares_keep_the_faces_of_a_person_together(people, shares, seed) -> None:
    groups = {f"face{i}": f"person {who}" for i, who in enumerate(people)}
    splits = _split_by_shares(groups, shares, seed)
    assert sorted(name for names in splits.values() for name in names) == sorted(groups)
    split_groups = [{groups[name] for name in names} for names in splits.values()]
    assert sum(map(len, split_groups)) == len(set(groups.values()))
    for share, names in zip(shares, splits.values(), strict=True):
        assert share or not names
        if share and len(set(groups.values())) >= 3:
            assert names
    assert splits == _split_by_shares(groups, shares, seed)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1: no column 'name'"),
        ("name,x0\n", "line 1: no column 'y0'"),
        ("name,x0,x0\n", "line 1: a column appears twice"),
        ("HEADER,colour\n", "line 1: unknown column 'colour'"),
        ("HEADER,box_x0\n", "line 1: no column 'box_y0'"),
        ("HEADER\na.png,1\n", "line 2: 2 columns instead of 11"),
        ("HEADER\na.png" + ",one" * 10 + "\n", "line 2: could not convert"),
        ("HEADER\na.png" + ",inf" * 10 + "\n", "line 2: a coordinate is out of range"),
        ("HEADER,visible0\na.png" + ",1" * 10 + ",7\n", "line 2: visible must be"),
        (
            "HEADER,box_x0,box_y0,box_x1,box_y1\na.png" + ",1" * 10 + ",9,9,1,1\n",
            "line 2: not a box",
        ),
    ],
)
def test_an_invalid_table_raises(tmp_path: Path, text: str, reason: str) -> None:
    header = ",".join(["name", *(f"{axis}{i}" for i in range(5) for axis in "xy")])
    labels = tmp_path / "labels.csv"
    labels.write_text(text.replace("HEADER", header), encoding="utf-8")
    root = add_images(tmp_path / "mine", ["a.png"])
    with pytest.raises(RednetError, match=reason) as caught:
        prepare("mine", root, tmp_path / "data", own=OwnData(SCHEME, labels))
    assert str(caught.value).startswith(f"{labels}: ")
    assert find_prepared("mine", tmp_path / "data") is None


@pytest.mark.parametrize(
    ("plain", "reason"),
    [
        ({}, "not COCO keypoints"),
        ([], "not COCO keypoints"),
        ({"images": [], "annotations": [{"image_id": 3, "keypoints": []}]}, "annotation 0: KeyErr"),
        (
            {"images": [{"id": 3, "file_name": "a.png"}], "annotations": [
                {"image_id": 3, "keypoints": [1, 2, 2]}]},
            "annotation 0: 1 keypoints, scheme random5-1 has 5",
        ),
        (
            {"images": [{"id": 3, "file_name": "a.png"}], "annotations": [
                {"image_id": 3, "keypoints": ["a"] * 15}]},
            "annotation 0: ValueError",
        ),
    ],
)  # fmt: skip
def test_invalid_keypoints_raise(tmp_path: Path, plain: Any, reason: str) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(plain), encoding="utf-8")
    root = add_images(tmp_path / "mine", ["a.png"])
    with pytest.raises(RednetError, match=reason):
        prepare("mine", root, tmp_path / "data", own=OwnData(SCHEME, labels))


def test_bad_faces_are_skipped_and_counted(tmp_path: Path) -> None:
    names = [f"{i:02d}.png" for i in range(30)]
    root = add_images(tmp_path / "mine", names)
    rows = [row(name) for name in names]
    rows[3] = row("03.png", FACE + 4000)
    labels = table(tmp_path / "labels.csv", rows)
    prepared = prepare("mine", root, tmp_path / "data", own=OwnData(SCHEME, labels))
    assert sum(prepared.samples.values()) == 29
    assert prepared.skipped == (
        f"{labels}: line 5: 0 of 5 points lie in the image of 140 x 128 pixels",
    )
    rows[4] = row("../outside.png")
    rows[5] = row("gone.png")
    table(labels, rows)
    with pytest.raises(RednetError, match=r"3 of 30 faces are bad.*leads outside"):
        prepare("mine", root, tmp_path / "data", own=OwnData(SCHEME, labels))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = add_images(tmp_path / "mine", [f"{i}.png" for i in range(10)])
    for number in range(10):
        write_pts(root / f"{number}.pts", FACE)
    scheme = tmp_path / "scheme.json"
    scheme.write_text(json.dumps(SCHEME.to_json()))
    prepares = ["data", "prepare", "folder", "--from", str(root), "--data-dir", str(tmp_path / "d")]
    own = ["--name", "mine", "--scheme", str(scheme)]
    assert cli.main([*prepares, *own, "--shares", "0.6,0.2,0.2", "--seed", "3"]) == 0
    assert "train 6, validation 2, test 2, 0 files skipped" in capsys.readouterr().out
    assert cli.main(["data", "list", "--data-dir", str(tmp_path / "d")]) == 0
    assert "mine            train 6, validation 2, test 2 (random5-1)" in capsys.readouterr().out
    for words, reason in [
        ([*prepares, "--name", "mine"], "needs --scheme"),
        ([*prepares, "--name", "300w", "--scheme", "ibug68"], "is the name of another data set"),
        ([*prepares, "--name", "a/b", "--scheme", "ibug68"], "'a/b' may contain letters"),
        ([*prepares, *own, "--shares", "0.6,0.2"], "must sum to 1"),
        ([*prepares, *own, "--split-list", "dev=x"], "no split 'dev'"),
        ([*prepares, *own, "--split-list", "train=x", "--shares", "1,0,0"], "used together"),
        ([*prepares[:2], "lfw", *prepares[3:], "--name", "mine"], "--name is only for your own"),
    ]:
        assert cli.main(words) == 2
        assert reason in capsys.readouterr().err
