"""`track_file`: the drawn video, the table and the lines of JSON of a video."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
from PIL import Image

from rednet_jax.errors import RednetError
from rednet_jax.inference import track_file as module
from rednet_jax.inference.track_file import _stem, track_file
from rednet_jax.inference.tracking import track
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.drawing import draw_landmarks
from rednet_jax.landmarks.table import read_landmarks_csv
from rednet_jax.media.video import VideoReader, write_video


@pytest.fixture(scope="module")
def grey_video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "grey.mp4"
    with write_video(path, 20, (160, 120)) as write:
        for _ in range(7):
            write(np.full((120, 160, 3), 128, np.uint8))
    return path


def test_each_frame_has_a_row_and_a_drawn_frame(network, video, tmp_path):
    reports = []
    tracked = track_file(
        video,
        checkpoint=network,
        feedback_steps=2,
        smooth=False,
        out=tmp_path / "drawn.mp4",
        landmarks=tmp_path / "points.csv",
        report=lambda done, total: reports.append((done, total)),
    )
    assert reports == [(n, 12) for n in range(1, 13)]
    assert tracked.files == [tmp_path / "drawn.mp4", tmp_path / "points.csv"]
    assert tracked.failures == []
    assert tracked.frames_per_second > 0
    names, points = read_landmarks_csv(tmp_path / "points.csv")
    assert names == [str(n) for n in range(1, 13)]
    header, *rows = (tmp_path / "points.csv").read_text().splitlines()
    assert header.startswith("name,identity,x0,y0,")
    assert {row.split(",")[1] for row in rows} == {"0"}
    np.testing.assert_allclose(points, tracked.landmarks, atol=6e-4)
    with VideoReader(video) as reader, VideoReader(tmp_path / "drawn.mp4") as drawn:
        assert (drawn.fps, drawn.size) == (reader.fps, reader.size) == (20, (300, 252))
        frames = [frame.image for frame in reader]
        drawn_frames = [frame.image for frame in drawn]
    faces = list(track(frames, network, feedback_steps=2))
    assert len(drawn_frames) == len(frames) == 12
    for number, frame in enumerate(faces):
        (face,) = frame.faces
        np.testing.assert_allclose(face.landmarks, tracked.landmarks[number], atol=1e-3)
        expected = draw_landmarks(frames[number], face.landmarks, IBUG68)
        changed = np.abs(expected.astype(float) - frames[number]).max(-1) > 60
        assert changed.sum() > 100
        drawn_error = np.abs(expected[changed].astype(float) - drawn_frames[number][changed]).mean()
        plain_error = np.abs(expected[changed].astype(float) - frames[number][changed]).mean()
        assert drawn_error < 0.5 * plain_error


def test_each_line_has_the_faces_of_its_frame(network, video, tmp_path):
    tracked = track_file(video, checkpoint=network, faces=2, smooth=False, jsonl=tmp_path / "a")
    rows = [json.loads(line) for line in (tmp_path / "a").read_text().splitlines()]
    assert [row["frame"] for row in rows] == list(range(1, 13))
    np.testing.assert_allclose([row["seconds"] for row in rows], np.arange(12) / 20, atol=1e-4)
    for row, points in zip(rows, tracked.landmarks, strict=True):
        first = row["faces"][0]
        assert set(first) == {
            "identity",
            "box",
            "confidence",
            "landmarks",
            "landmark_confidence",
        }
        np.testing.assert_allclose(first["landmarks"], points, atol=6e-4)
        assert first["confidence"] == pytest.approx(np.mean(first["landmark_confidence"]), abs=1e-3)
        assert len(first["box"]) == 4


def test_lines_are_written_to_standard_output(network, video, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    track_file(video, checkpoint=network, jsonl="-")
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["frame"] for line in lines] == list(range(1, 13))
    assert list(tmp_path.iterdir()) == []


def test_the_table_is_written_to_standard_output(network, video, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tracked = track_file(video, checkpoint=network, landmarks="-")
    (tmp_path / "points.csv").write_text(capsys.readouterr().out)
    _, points = read_landmarks_csv(tmp_path / "points.csv")
    np.testing.assert_allclose(points, tracked.landmarks, atol=6e-4)
    assert tracked.files == []
    with pytest.raises(RednetError, match="cannot both go to standard output"):
        track_file(video, checkpoint=network, landmarks="-", jsonl="-")


def test_numbered_images_are_tracked_like_a_video(network, video, tmp_path):
    folder = tmp_path / "seq"
    folder.mkdir()
    with VideoReader(video) as reader:
        for number, frame in enumerate(reader):
            Image.fromarray(frame.image).save(folder / f"f_{number:03d}.png")
    of_video = track_file(video, checkpoint=network, jsonl=tmp_path / "a", smooth=False)
    for source in (folder, folder / "f_%03d.png"):
        of_images = track_file(
            source, checkpoint=network, jsonl=tmp_path / "b", smooth=False, fps=20
        )
        np.testing.assert_array_equal(of_images.landmarks, of_video.landmarks)
        assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()
        assert of_images.failures == []


@pytest.mark.parametrize("unreadable", (2, 11))
def test_an_unreadable_image_keeps_its_number(network, video, tmp_path, unreadable):
    folder = tmp_path / "seq"
    folder.mkdir()
    with VideoReader(video) as reader:
        for number, frame in enumerate(reader):
            Image.fromarray(frame.image).save(folder / f"f_{number:03d}.png")
    broken = folder / f"f_{unreadable:03d}.png"
    broken.write_bytes(b"broken")
    tracked = track_file(
        folder,
        checkpoint=network,
        landmarks=tmp_path / "a.csv",
        jsonl=tmp_path / "a.jsonl",
        out=tmp_path / "a.mp4",
    )
    assert tracked.failures == [
        f"{folder}: {broken}: not an image that can be read; "
        "the 11 frames that could be read are kept"
    ]
    assert (tracked.frames, tracked.found) == (12, 11)
    names, points = read_landmarks_csv(tmp_path / "a.csv")
    assert names == [str(n) for n in range(1, 13)]
    assert np.flatnonzero(np.isnan(points).any((1, 2))).tolist() == [unreadable]
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["frame"] for row in rows] == list(range(1, 13))
    assert [row["seconds"] for row in rows] == [round(n / 25, 4) for n in range(12)]
    assert [n for n, row in enumerate(rows) if not row["faces"]] == [unreadable]
    with VideoReader(tmp_path / "a.mp4") as drawn:
        assert len(list(drawn)) == 11
    with pytest.raises(RednetError, match=r"not an image that can be read$"):
        for index, frame in enumerate(track(folder, network)):
            assert (frame.index, bool(frame.faces)) == (index, index != unreadable)
            assert frame.seconds == index / 25
    assert index == 11


def test_images_of_other_sizes_are_a_failure(network, tmp_path, portrait):
    folder = tmp_path / "seq"
    folder.mkdir()
    for number, size in enumerate((256, 200)):
        Image.fromarray(portrait[:size, 90 : 90 + size]).save(folder / f"{number}.png")
    tracked = track_file(folder, checkpoint=network, jsonl=tmp_path / "a")
    assert tracked.failures == [
        f"{folder}: {folder / '1.png'}: 200x200 px, resized to the 256x256 px of the first image, "
        "in which its landmarks are"
    ]


@pytest.mark.parametrize(
    ("source", "stem"), [("a/f_%04d.png", "f"), ("a/%d.png", "sequence"), (3, "camera_3")]
)
def test_default_names_of_outputs(source, stem):
    assert _stem(source) == stem


def test_smoothing_is_the_default_for_a_network_without_recurrence(network, video, tmp_path):
    def landmarks(smooth):
        return track_file(video, checkpoint=network, smooth=smooth, jsonl=tmp_path / "a").landmarks

    plain, smoothed = landmarks(False), landmarks(True)
    np.testing.assert_array_equal(landmarks(None), smoothed)
    assert np.abs(plain - smoothed).max() > 0.01


def test_the_default_smooths_where_the_recurrence_has_no_memory(
    network, video, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "is_recurrent", lambda variables: True)

    def landmarks(**options):
        jsonl = tmp_path / "a"
        return track_file(video, checkpoint=network, jsonl=jsonl, **options).landmarks

    np.testing.assert_array_equal(landmarks(), landmarks(smooth=False))
    alone = landmarks(carry="nothing")
    np.testing.assert_array_equal(alone, landmarks(carry="nothing", smooth=True))
    assert np.abs(alone - landmarks(carry="nothing", smooth=False)).max() > 0.01


def test_default_outputs(network, video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tracked = track_file(video, checkpoint=network)
    assert [str(path) for path in tracked.files] == ["talk_landmarks.mp4", "talk_landmarks.csv"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "talk_landmarks.mp4",
        "talk_landmarks.csv",
    }


def test_with_one_output_only_this_is_written(network, video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    track_file(video, checkpoint=network, landmarks="points.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["points.csv"]


def test_a_video_without_a_face_is_a_failure(network, grey_video, tmp_path):
    tracked = track_file(grey_video, checkpoint=network, landmarks=tmp_path / "points.csv")
    assert tracked.failures == [f"{grey_video}: no face found in 7 frames"]
    names, points = read_landmarks_csv(tmp_path / "points.csv")
    assert names == ["1", "2", "3", "4", "5", "6", "7"]
    assert np.isnan(points).all()
    assert (tracked.found, tracked.people) == (0, 0)


def test_the_frames_of_a_truncated_video_are_kept(network, video, tmp_path, monkeypatch):

    class Broken(VideoReader):
        def __iter__(self):
            for number, frame in enumerate(super().__iter__(), 1):
                yield frame
                if number == 5:
                    self.broken = "cut short"
                    return

    monkeypatch.setattr(module, "open_frames", lambda source, fps: Broken(source))
    tracked = track_file(video, checkpoint=network, out=tmp_path / "drawn.mp4")
    assert tracked.failures == [f"{video}: cut short; the 5 frames that could be read are kept"]
    assert len(tracked.landmarks) == 5
    with VideoReader(tmp_path / "drawn.mp4") as drawn:
        assert len(list(drawn)) == 5


@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM))
def test_ctrl_c_and_sigterm_keep_the_frames_so_far(network, video, tmp_path, number):
    def report(done, total):
        if done == 4:
            signal.raise_signal(number)

    before = signal.getsignal(number)
    tracked = track_file(
        video,
        checkpoint=network,
        out=tmp_path / "drawn.mp4",
        landmarks=tmp_path / "points.csv",
        jsonl=tmp_path / "faces.jsonl",
        report=report,
    )
    assert tracked.interrupted
    assert tracked.failures == [f"{video}: interrupted; the 4 frames before are kept"]
    assert signal.getsignal(number) is before
    with VideoReader(tmp_path / "drawn.mp4") as drawn:
        assert len(list(drawn)) == 4
        assert drawn.broken is None
    assert len(read_landmarks_csv(tmp_path / "points.csv")[0]) == 4
    assert len((tmp_path / "faces.jsonl").read_text().splitlines()) == 4


def test_a_second_ctrl_c_ends_at_once_without_outputs(network, video, tmp_path):
    def report(done, total):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    # The tests may run as a background job, in which SIGINT is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            track_file(video, checkpoint=network, out=tmp_path / "drawn.mp4", report=report)
    finally:
        signal.signal(signal.SIGINT, before)
    assert list(tmp_path.iterdir()) == []


def test_outputs_must_be_different_files(network, video, tmp_path):
    for out, landmarks in [(video, None), (None, video), (tmp_path / "a.mp4", tmp_path / "a.mp4")]:
        with pytest.raises(RednetError, match="must be different files"):
            track_file(video, checkpoint=network, out=out, landmarks=landmarks)


def test_options_out_of_range_are_errors_before_outputs_are_written(network, video, tmp_path):
    for options, message in (
        ({"feedback_steps": 0}, "1 or more, not 0"),
        ({"carry": "none"}, "carry: 'none' is not one of all, feedback, nothing"),
    ):
        with pytest.raises(RednetError, match=message):
            track_file(video, checkpoint=network, out=tmp_path / "drawn.mp4", **options)
    assert list(tmp_path.iterdir()) == []
