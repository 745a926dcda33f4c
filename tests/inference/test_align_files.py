"""`align_files`: names, tables, JSON, overlays, and images that cannot be read."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from rednet_jax.errors import RednetError
from rednet_jax.inference.align_files import align_files
from rednet_jax.inference.aligner import Aligner
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.drawing import draw_landmarks
from rednet_jax.landmarks.table import read_landmarks_csv
from rednet_jax.media.images import read_image


def points(aligned, *names):
    """Landmarks [N, L, 2] of the one face of each image."""
    faces_of = [aligned.faces[name] for name in names]
    assert all(len(faces) == 1 for faces in faces_of)
    return np.stack([faces[0].landmarks for faces in faces_of])


def test_the_detector_finds_the_portrait(network, save):
    aligned = align_files(save("a.png"), checkpoint=network)
    assert list(aligned.faces) == ["a"] and aligned.failures == []
    (face,) = aligned.faces["a"]
    assert face.landmarks.shape == (68, 2) and face.landmarks.dtype == np.float32
    assert face.score > 0.8
    x0, y0, x1, y1 = landmark_box(face.landmarks)
    # An untrained network predicts landmarks near the centre of the crop.
    assert 170 < (x0 + x1) / 2 < 280 and 70 < (y0 + y1) / 2 < 190


def test_landmarks_move_with_the_image(network, save, portrait, boxes):
    """With the box of a shifted face, the landmarks shift with it."""
    moved = np.zeros((600, 640, 3), np.uint8)
    moved[40:552, 100:612] = portrait
    first = align_files([save("a.png")], checkpoint=network, boxes=boxes("a"))
    second = align_files(
        [save("b.png", moved)], checkpoint=network, boxes=boxes("b", box=(275, 120, 370, 220))
    )
    np.testing.assert_allclose(points(second, "b") - [100, 40], points(first, "a"), atol=1e-2)
    assert second.faces["b"][0].score is None


def test_results_of_an_image_do_not_depend_on_the_others(network, save, boxes, tmp_path):
    """Also in the table and in the overlays."""
    names = [f"{n:02d}" for n in range(4)]
    rng = np.random.default_rng(0)
    for name in names:
        save(f"{name}.png", rng.integers(256, size=(300, 300, 3), dtype=np.uint8))
    file = boxes(*names)
    folder = tmp_path / "images"
    drawn = tmp_path / "drawn"
    reports = []
    aligned = align_files(
        [folder],
        checkpoint=network,
        boxes=file,
        overlay=drawn,
        csv=tmp_path / "a.csv",
        report=lambda done, total: reports.append((done, total)),
    )
    assert reports == [(n + 1, len(names)) for n in range(len(names))]
    for name in names:
        alone = align_files([folder / f"{name}.png"], checkpoint=network, boxes=file)
        np.testing.assert_allclose(points(alone, name), points(aligned, name), atol=1e-2)
        image, overlay = (read_image(f / f"{name}.png", upright=True) for f in (folder, drawn))
        expected = draw_landmarks(image, aligned.faces[name][0].landmarks, IBUG68)
        np.testing.assert_array_equal(overlay, expected)
    written, landmarks = read_landmarks_csv(tmp_path / "a.csv")
    assert written == names
    np.testing.assert_allclose(landmarks, points(aligned, *names), atol=6e-4)


def test_an_image_has_a_row_for_each_face(network, save, portrait, boxes, tmp_path):
    """With detected faces and with boxes; CSV and JSON agree."""
    two = np.concatenate([portrait, portrait], axis=1)
    file = save("two.png", two)
    outputs = {"csv": tmp_path / "a.csv", "json": tmp_path / "a.json"}
    aligned = align_files([file], checkpoint=network, faces=None, **outputs)
    left, right = sorted(aligned.faces["two"], key=lambda face: face.box[0])
    np.testing.assert_allclose(right.box - left.box, [512, 0, 512, 0], atol=4)
    rows = (tmp_path / "a.csv").read_text().splitlines()
    assert rows[0].startswith("name,face,score,confidence,x0,y0,")
    assert [row.split(",")[:2] for row in rows[1:]] == [["two", "0"], ["two", "1"]]
    (image,) = json.loads((tmp_path / "a.json").read_text())["images"]
    assert image["name"] == "two" and len(image["faces"]) == 2
    for written, face in zip(image["faces"], aligned.faces["two"], strict=True):
        np.testing.assert_allclose(written["landmarks"], face.landmarks, atol=6e-4)
        assert written["score"] == pytest.approx(face.score, abs=6e-4)
    assert len(align_files([file], checkpoint=network).faces["two"]) == 1
    table = boxes("two.png", "two.png")
    aligned = align_files([file], checkpoint=network, faces=None, boxes=table)
    assert len(aligned.faces["two"]) == 2


def test_a_face_has_the_number_of_its_box(network, save, tmp_path, monkeypatch):
    faces_of = Aligner._faces_of

    def doubtful(aligner, images, crops):
        faces = faces_of(aligner, images, crops)
        small = [face.box[2] - face.box[0] < 90 for face in faces]
        return [
            face._replace(confidence=face.confidence * 0) if doubt else face
            for face, doubt in zip(faces, small, strict=True)
        ]

    monkeypatch.setattr(Aligner, "_faces_of", doubtful)
    table = tmp_path / "boxes.csv"
    small, large = "180,80,265,180", "175,80,270,180"
    rows = [f"a,{small}", f"a,{large}", f"b,{small}", f"a,{small}", f"a,{large}"]
    table.write_text("\n".join(["name,x0,y0,x1,y1", *rows]) + "\n")
    files = [save("a.png"), save("b.png")]
    options = {"checkpoint": network, "boxes": table, "csv": tmp_path / "a.csv"}

    def numbers():
        written = (tmp_path / "a.csv").read_text().splitlines()[1:]
        return [tuple(row.split(",")[:2]) for row in written]

    aligned = align_files(files, faces=None, **options)
    assert numbers() == [("a", "1"), ("a", "3"), ("b", "0")]
    assert aligned.failures == [
        f"a: no confident face in box 0 ({small})",
        f"a: no confident face in box 2 ({small})",
        f"b: no confident face in box 0 ({small})",
    ]
    aligned = align_files(files[0], faces=1, **options)
    assert numbers() == [("a", "1")]
    assert aligned.failures == [f"a: no confident face in box 0 ({small})"]


def test_ctrl_c_keeps_the_results_so_far(network, save, boxes, tmp_path):
    files = [save("a.png"), save("b.png")]

    def interrupt(done, total):
        raise KeyboardInterrupt

    table = tmp_path / "a.csv"
    file = boxes("a", "b")
    aligned = align_files(files, checkpoint=network, boxes=file, csv=table, report=interrupt)
    assert aligned.interrupted
    assert aligned.failures == ["interrupted; the results of 1 of 2 images are kept"]
    assert read_landmarks_csv(table)[0] == ["a"]


def test_an_interrupted_image_is_not_one_without_a_face(
    network, save, boxes, tmp_path, monkeypatch
):
    align, calls = Aligner.align, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return align(*arguments)

    monkeypatch.setattr(Aligner, "align", interrupted)
    files, table = [save("a.png"), save("b.png")], tmp_path / "a.csv"
    options = {"checkpoint": network, "boxes": boxes("a", "b"), "csv": table}
    assert list(align_files(files, **options).faces) == ["a"]
    assert read_landmarks_csv(table)[0] == ["a"]
    table.unlink()
    calls[:] = [None]
    with pytest.raises(KeyboardInterrupt):
        align_files(files, **options)
    assert not table.exists()


def test_outputs_are_checked_before_work_starts(network, save, tmp_path):
    (tmp_path / "file").touch()
    reports = []
    for output in ({"csv": tmp_path}, {"json": tmp_path / "file/a.json"}):
        with pytest.raises(RednetError, match="cannot be written"):
            align_files(
                [save("a.png")],
                checkpoint=network,
                report=lambda done, total: reports.append(done),
                **output,
            )
    assert reports == []


def test_an_output_that_fails_does_not_stop_the_others(network, save, boxes, tmp_path):
    files, drawn = [save("a.png"), save("b.png")], tmp_path / "drawn"
    table, faces = tmp_path / "a.csv", tmp_path / "a.json"

    def report(done, total):
        (drawn / "b.png" / "file").mkdir(parents=True, exist_ok=True)

    options = {"checkpoint": network, "boxes": boxes("a", "b"), "overlay": drawn}
    aligned = align_files(files, **options, csv=table, report=report)
    (failure,) = aligned.failures
    assert failure.startswith(f"{drawn / 'b.png'}: cannot be written (")
    assert read_landmarks_csv(table)[0] == ["a", "b"]
    assert (drawn / "a.png").is_file()
    table.unlink()
    with pytest.raises(RednetError, match=r"a\.csv: cannot be written"):
        align_files(
            files[0],
            checkpoint=network,
            csv=table,
            json=faces,
            report=lambda *_: (table / "file").mkdir(parents=True),
        )
    assert faces.is_file()


def test_paths_may_be_any_iterable_that_is_not_empty(network, save, boxes):
    files = [save("a.png"), save("b.png")]
    aligned = align_files(iter(files), checkpoint=network, boxes=boxes("a", "b"))
    assert list(aligned.faces) == ["a", "b"]
    with pytest.raises(RednetError, match="no image and no folder is given"):
        align_files([], checkpoint=network)
    for path in ("", None, 3):
        with pytest.raises(RednetError, match=f"^{path!r}: not the name of an image or a folder"):
            align_files([path], checkpoint=network)


def test_a_bad_image_does_not_stop_the_others(network, save, tmp_path):
    good = save("good.png")
    empty = good.with_name("empty.png")
    empty.touch()
    grey = save("grey.png", np.full((200, 200, 3), 128, np.uint8))
    missing = good.with_name("missing.png")
    aligned = align_files([empty, good, grey, missing], checkpoint=network, csv=tmp_path / "a.csv")
    assert {name: len(faces) for name, faces in aligned.faces.items()} == {
        "empty": 0,
        "good": 1,
        "grey": 0,
        "missing": 0,
    }
    reasons = "not an image", "no face found", "No such file"
    for failure, name, reason in zip(
        aligned.failures, ("empty", "grey", "missing"), reasons, strict=True
    ):
        assert name in failure and reason in failure and "\n" not in failure
    assert np.isnan(read_landmarks_csv(tmp_path / "a.csv")[1][0]).all()


def test_nothing_is_written_if_no_image_can_be_read(network, tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(RednetError, match=r"a.png: not an image that can be read \(and 1 more\)"):
        align_files(
            [tmp_path / "a.png", tmp_path / "b.png"],
            checkpoint=network,
            csv=tmp_path / "a.csv",
            overlay=tmp_path / "drawn",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_an_image_without_a_box_is_a_failure(network, save, boxes):
    files = [save("a.png"), save("b.png")]
    aligned = align_files(files, checkpoint=network, boxes=boxes("b"))
    assert aligned.failures == ["a: has no row in the boxes file"]
    assert np.isfinite(points(aligned, "b")).all()


def test_an_overlay_replaces_no_image(network, save, portrait):
    path = save("a.png")
    with pytest.raises(RednetError, match="would replace"):
        align_files([path], checkpoint=network, overlay=path.parent)
    np.testing.assert_array_equal(read_image(path, upright=True), portrait)


def test_feedback_steps_below_one_are_an_error(network, save):
    with pytest.raises(RednetError, match="1 or more, not 0"):
        align_files([save("a.png")], checkpoint=network, feedback_steps=0)


def test_orientation_and_16_bits_are_applied(network, save, boxes, portrait, tmp_path):
    """A rotated 16-bit image with an EXIF orientation gives the landmarks of the upright image."""
    grey = np.asarray(Image.fromarray(portrait).convert("L"))
    plain = save("plain.png", grey)
    deep = save("deep.png", np.rot90(grey).astype(np.uint16) * 257, exif=turned_clockwise())
    aligned = align_files([plain, deep], checkpoint=network, boxes=boxes("plain", "deep"))
    np.testing.assert_allclose(points(aligned, "plain"), points(aligned, "deep"), atol=1e-3)


def turned_clockwise():
    """EXIF orientation 6: viewers rotate the image clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif
