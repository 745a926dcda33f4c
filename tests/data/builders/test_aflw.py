"""AFLW: its database, the points that it shares with `ibug68`, splits by image."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from data.builders.trees import IMAGE, LANDMARKS, names, read_back, save_image

from rednet_jax.data.builders.aflw import SHARED, split_of
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.builtin import IBUG68

POINTS = [*SHARED, "LeftEyeCenter", "LeftEar", "NoseLeft", "MouthCenter"]


def write_aflw(root: Path, faces: dict[int, tuple[str, dict[str, object]]]) -> Path:
    """Writes the publisher's folders, with {face: (image, {point: (x, y)})} in the database."""
    (root / "data").mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(root / "data/aflw.sqlite")) as database:
        database.executescript(
            "CREATE TABLE Faces (face_id INTEGER PRIMARY KEY, file_id TEXT, db_id TEXT);"
            "CREATE TABLE FaceImages (image_id INTEGER PRIMARY KEY, db_id TEXT, file_id TEXT,"
            " filepath TEXT, bw INTEGER, width INTEGER, height INTEGER);"
            "CREATE TABLE FeatureCoords (face_id INTEGER, feature_id INTEGER, x REAL, y REAL);"
            "CREATE TABLE FeatureCoordTypes (feature_id INTEGER, descr TEXT, code TEXT,"
            " x REAL, y REAL, z REAL);"
        )
        database.executemany(
            "INSERT INTO FeatureCoordTypes VALUES (?, ?, '', 0, 0, 0)",
            [(i + 1, point) for i, point in enumerate(POINTS)],
        )
        for i, file in enumerate(sorted({file for file, _ in faces.values()})):
            database.execute(
                "INSERT INTO FaceImages VALUES (?, 'flickr', ?, ?, 0, 32, 24)",
                (i, file.split("/")[-1], file),
            )
            save_image(root / "data/flickr" / file)
        for face, (file, points) in faces.items():
            where = (face, file.split("/")[-1])
            database.execute("INSERT INTO Faces VALUES (?, ?, 'flickr')", where)
            database.executemany(
                "INSERT INTO FeatureCoords VALUES (?, ?, ?, ?)",
                [(face, POINTS.index(point) + 1, *place) for point, place in points.items()],
            )
        database.commit()
    return root


def places(*points: str) -> dict[str, list[float]]:
    """Returns the coordinates of points: those of LANDMARKS, or (1, 1) if only AFLW has them."""
    return {p: LANDMARKS[SHARED[p]].tolist() if p in SHARED else [1.0, 1.0] for p in points}


def image_of(split: str, skip: int = 0) -> str:
    files = (f"0/image{i:05d}.jpg" for i in range(1000))
    return [file for file in files if split_of(file) == split][skip]


def test_a_sample_labels_only_the_shared_points(tmp_path, build) -> None:
    subset = ("LeftEyeLeftCorner", "NoseCenter", "ChinCenter", "LeftEar")
    file = image_of("train")
    root = write_aflw(tmp_path / "aflw", {7: (file, places(*POINTS)), 9: (file, places(*subset))})
    prepared = build("aflw", root)
    assert prepared.left_out == prepared.skipped == ()
    whole, part = read_back(prepared)["train"]
    assert names([whole, part]) == [f"{file[:-4]}_7", f"{file[:-4]}_9"]
    assert whole["image"].shape == IMAGE.shape
    assert np.flatnonzero(whole["labelled"]).tolist() == sorted(SHARED.values())
    assert np.flatnonzero(part["labelled"]).tolist() == [8, 30, 36]
    for face in (whole, part):
        known = face["labelled"]
        np.testing.assert_allclose(face["landmarks"][known], LANDMARKS[known])
        assert not face["landmarks"][~known].any()
        np.testing.assert_allclose(face["box"][:2], LANDMARKS[known].min(0))
        np.testing.assert_allclose(face["box"][2:], LANDMARKS[known].max(0))
        assert (face["style"], face["identity"]) == (b"aflw", -1)


def test_left_and_right_are_mirror_pairs() -> None:
    """Swapping both words in AFLW's names gives the mirrored index of `ibug68`."""
    swap = str.maketrans("<>", "><")
    for point, index in SHARED.items():
        short = point.replace("Left", "<").replace("Right", ">").translate(swap)
        mirrored = short.replace("<", "Left").replace(">", "Right")
        assert SHARED[mirrored] == IBUG68.mirror[index]


def test_faces_of_an_image_are_in_one_split(tmp_path, build) -> None:
    files = [image_of(split) for split in ("train", "validation", "test")]
    faces = {i: (files[i % 3], places(*POINTS)) for i in range(6)}
    samples = read_back(build("aflw", write_aflw(tmp_path / "aflw", faces)))
    assert {split: names(read) for split, read in samples.items()} == {
        split: [f"{file[:-4]}_{i}", f"{file[:-4]}_{i + 3}"]
        for i, (split, file) in enumerate(zip(("train", "validation", "test"), files, strict=True))
    }


def test_shares_of_the_splits() -> None:
    splits = [split_of(f"3/image{i:05d}.jpg") for i in range(5000)]
    for split, share in (("test", 0.2), ("validation", 0.08), ("train", 0.72)):
        assert abs(splits.count(split) / len(splits) - share) < 0.02


def test_a_missing_folder_and_faces_with_few_points_are_reported(tmp_path, build) -> None:
    file = image_of("train")
    faces = {
        1: (file, places(*POINTS)),
        2: (file, places("NoseCenter", "ChinCenter", "LeftEar")),
        3: (file, {}),
        4: ("2/image00001.jpg", places(*POINTS)),
    }
    root = write_aflw(tmp_path / "aflw", faces)
    (root / "data/flickr/2/image00001.jpg").unlink()
    (root / "data/flickr/2").rmdir()
    prepared = build("aflw", root)
    assert prepared.samples == {"train": 1} and prepared.skipped == ()
    assert prepared.left_out == (
        f"{root}/data/flickr/2: no such folder",
        f"{root}: 2 faces with fewer than 3 of the points",
    )


def test_bad_faces_are_reported(tmp_path, build) -> None:
    faces = {i: (image_of("train"), places(*POINTS)) for i in range(100)}
    outside = "../../../outside.jpg"
    faces[100] = (outside, places(*POINTS))
    gone = image_of("train", skip=1)
    faces[101] = (gone, places(*POINTS))
    for face, place in ((102, ["x", 1.0]), (103, [None, 1.0]), (104, [1e300, 1.0])):
        faces[face] = (image_of("train"), {**places(*POINTS), "NoseCenter": place})
    root = write_aflw(tmp_path / "aflw", faces)
    (root / "data/flickr" / gone).unlink()
    prepared = build("aflw", root)
    stem = image_of("train")[:-4]
    assert sorted(prepared.skipped) == sorted(
        [
            f"{root}/data/flickr/{outside}: leads outside {root}",
            f"{root}/data/flickr/{gone}: no such file",
            f"{root}: face {stem}_102: a coordinate is not a number",
            f"{root}: face {stem}_103: a coordinate is out of range",
            f"{root}: face {stem}_104: a coordinate is out of range",
        ]
    )
    assert sum(prepared.samples.values()) == 100


def test_another_database_is_refused(tmp_path, build) -> None:
    (tmp_path / "aflw/data").mkdir(parents=True)
    (tmp_path / "aflw/data/aflw.sqlite").write_text("no database")
    with pytest.raises(RednetError, match=r"aflw.sqlite: not AFLW's database \(file is not a"):
        build("aflw", tmp_path / "aflw")
    (tmp_path / "aflw/data/aflw.sqlite").unlink()
    with pytest.raises(RednetError, match=r"contains no part .* \(looked for data/aflw.sqlite\)"):
        build("aflw", tmp_path / "aflw")
