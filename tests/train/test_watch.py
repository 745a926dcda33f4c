"""The logs of a run: rows, TensorBoard events, and images."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

from rednet_jax.errors import RednetError
from rednet_jax.evaluate.protocols import Crops
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.train.watch import (
    JITTER,
    VALIDATION,
    Face,
    RunLog,
    faces_to_show,
    image_files,
    image_step,
    read_rows,
    worst_and_typical,
)


def events(run):
    """A run's events without those that TensorBoard discards at a restart."""
    kept = []
    for path in sorted((run / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            if event.session_log.status == SessionLog.START:
                kept = [earlier for earlier in kept if earlier.step < event.step]
            kept.append(event)
    return kept


def scalars(run):
    """{tag: [(step, value), ...]} of a run's events."""
    by_tag = {}
    for event in events(run):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                by_tag.setdefault(value.tag, []).append((event.step, value.simple_value))
    return by_tag


def face(name="a", **changes):
    landmarks = IBUG68.shape * 40 + 30
    known = np.ones(68, bool)
    grey = np.full((64, 64, 3), 90, np.uint8)
    return Face(name, grey, landmarks, landmarks, known, 3.25, IBUG68)._replace(**changes)


def test_rows_are_written_as_lines_and_events(tmp_path):
    rows = [
        {"step": 50, "loss": 2.5, "gradient_norm": 1.5, "stage": "images"},
        {"step": 50, "validation_nme": [4.5, 4.25]},
        {"step": 100, "loss": 1.25},
    ]
    with RunLog(tmp_path, kept_until=0, start={}) as log:
        for row in rows:
            log.write(row)
            assert read_rows(tmp_path / "metrics.jsonl")[-1] == row
    assert scalars(tmp_path) == {
        "train/loss": [(50, 2.5), (100, 1.25)],
        "train/gradient_norm": [(50, 1.5)],
        "validation/nme_pass1": [(50, 4.5)],
        "validation/nme_pass2": [(50, 4.25)],
    }


def test_values_that_are_not_finite_are_null(tmp_path):
    """JSON has no nan. Earlier versions wrote it; their lines are converted at the next start."""

    def constant(name):
        raise ValueError(f"{name} is not JSON")

    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10, "nme": NaN}\n')
    with RunLog(tmp_path, kept_until=10, start={"x": [float("inf")]}) as log:
        log.write({"step": 20, "nme": float("nan")})
        log.write({"step": 20, VALIDATION: [3.0, 2.0], JITTER: [float("nan"), 1.0]})
    rows = [json.loads(line, parse_constant=constant) for line in path.read_text().splitlines()]
    assert rows == [
        {"step": 10, "nme": None},
        {"step": 20, "nme": None},
        {"step": 20, VALIDATION: [3.0, 2.0], JITTER: [None, 1.0]},
    ]
    assert read_rows(path) == rows
    assert np.isnan(scalars(tmp_path)["train/nme"]).any()
    (start,) = read_rows(tmp_path / "environment.jsonl")
    assert start["x"] == [None]


def test_steps_that_run_again_are_logged_once(tmp_path):
    with RunLog(tmp_path, kept_until=0, start={}) as log:
        for step in 10, 20, 30:
            log.write({"step": step, "loss": step})
            log.images(step, [face()])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "lo')
    with RunLog(tmp_path, kept_until=20, start={}) as log:
        log.write({"step": 30, "loss": 7})
    with RunLog(tmp_path, kept_until=30, start={}) as log:
        log.write({"step": 40, "loss": 8})
    rows = [(row["step"], row["loss"]) for row in read_rows(tmp_path / "metrics.jsonl")]
    assert rows == scalars(tmp_path)["train/loss"] == [(10, 10), (20, 20), (30, 7), (40, 8)]
    assert [image_step(path) for path in image_files(tmp_path)] == [10, 20]


def test_only_files_with_the_name_of_an_image_are_images(tmp_path):
    with RunLog(tmp_path, kept_until=0, start={}) as log:
        log.images(20, [face()])
    (path,) = image_files(tmp_path)
    for name in "step_00000100 (1).png", "step_.png", "step_1.5.png":
        path.with_name(name).touch()
    RunLog(tmp_path, kept_until=30, start={}).__exit__()
    assert image_files(tmp_path) == [path]


def test_images_of_a_run_of_an_earlier_version(tmp_path):
    """Earlier versions wrote them to pictures/."""
    with RunLog(tmp_path, kept_until=0, start={}) as log:
        for step in 10, 20:
            log.images(step, [face()])
    (tmp_path / "images").rename(tmp_path / "pictures")
    with RunLog(tmp_path, kept_until=10, start={}) as log:
        log.images(20, [face()])
    paths = [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path)]
    assert paths == ["pictures/step_00000010.png", "images/step_00000020.png"]


def test_each_start_from_which_steps_are_kept_is_recorded_once(tmp_path):
    for kept_until in 0, 20, 20, 10:
        RunLog(tmp_path, kept_until, start={"command": f"from {kept_until}"}).__exit__()
    rows = read_rows(tmp_path / "environment.jsonl")
    assert rows == [{"step": step, "command": f"from {step}"} for step in (0, 10)]


def test_a_full_disk_raises_errors_instead_of_waiting(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with RunLog(tmp_path, kept_until=0, start={}) as log:
        monkeypatch.setattr(RecordWriter, "write", full)
        for _ in range(20):
            with pytest.raises(RednetError, match=r"tensorboard: .*No space left on device"):
                log.write({"step": 1, "loss": 1.0})


def test_an_image_shows_landmarks_and_labels(tmp_path):
    """The label of one landmark is far from the network's, and another one has no label."""
    truth = face().landmarks.copy()
    truth[30], truth[8] = (5, 58), (58, 58)
    shown = face("x" * 90, truth=truth, labelled=np.arange(68) != 8)
    with RunLog(tmp_path, kept_until=0, start={}) as log:
        log.images(1_000, [shown] * 8)
    path = tmp_path / "images" / "step_00001000.png"
    sheet = np.asarray(Image.open(path))
    assert sheet.shape == (2 * (20 + 196), 6 * 196 + 4, 3)
    for left, top in (4, 20), (4 + 196, 20 + 216):
        tile = sheet[top : top + 192, left : left + 192]
        x, y = np.round((truth[30] + 0.5) * 3 - 0.5).astype(int)
        assert (tile[y, x] == 255).all()
        x, y = np.round((truth[8] + 0.5) * 3 - 0.5).astype(int)
        assert (tile[y - 6 : y + 6, x - 6 : x + 6] == 90).all()
        x, y = np.round((shown.landmarks[30] + 0.5) * 3 - 0.5).astype(int)
        assert (tile[y, x] != 90).any()
    (event,) = (event for event in events(tmp_path) if event.step == 1_000)
    (value,) = event.summary.value
    assert value.tag == "validation/faces"
    assert value.image.encoded_image_string == path.read_bytes()
    assert (value.image.height, value.image.width) == sheet.shape[:2]


def test_incomplete_and_invalid_lines_are_skipped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_rows(path) == []
    row = {"step": 3, "nme": float("inf")}
    path.write_bytes(json.dumps(row).encode() + b'\n[1]\n{"loss": 1}\n\x00\xff\n{"step": 4, "ls": ')
    assert read_rows(path) == [row]


@given(
    st.lists(st.floats(0, 100) | st.just(float("nan")), max_size=30).map(np.array),
    st.integers(1, 8),
)
def test_worst_and_typical(errors, count):
    chosen = worst_and_typical(errors.astype(float), count)
    known = np.sort(errors[~np.isnan(errors)])[::-1]
    assert len(chosen) == len(set(chosen)) == min(2 * count, len(known))
    worst, typical = errors[chosen[:count]], errors[chosen[count:]]
    np.testing.assert_array_equal(worst, known[:count])
    if len(typical):
        distance = np.sort(np.abs(known[count:] - np.median(known)))
        np.testing.assert_array_equal(np.abs(typical - np.median(known)), distance[:count])


def test_landmarks_of_shown_faces_are_in_crop_pixels():
    affines = np.array([[[2.0, 0, 10], [0, 2.0, 20]], [[1.0, 0, 0], [0, 1.0, 0]]])
    truth = np.arange(2 * 68 * 2, dtype=np.float32).reshape(2, 68, 2)
    known = truth[..., 0] > 9
    images, boxes = np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 4), np.float32)
    crops = Crops(["a", "b"], images, affines, truth, known, boxes, [], IBUG68)
    shown = faces_to_show(crops, truth + 1, np.array([4.0, 8.0]))
    assert [(each.name, each.nme) for each in shown] == [("b", 8.0), ("a", 4.0)]
    np.testing.assert_array_equal(shown[0].truth, truth[1])
    np.testing.assert_array_equal(shown[1].truth, (truth[0] - [10, 20]) / 2)
    np.testing.assert_array_equal(shown[1].landmarks, truth[0] + 1)
    np.testing.assert_array_equal(shown[1].labelled, known[0])
