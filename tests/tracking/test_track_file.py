"""A video in, a drawn video and a table out: whole, or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.drawing import draw_landmarks
from rednet_jax.landmarks.table import read_landmarks_csv
from rednet_jax.tracking import track_file as module
from rednet_jax.tracking.track_file import track_file
from rednet_jax.tracking.tracker import track
from rednet_jax.tracking.video import VideoReader, write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory, portrait):
    """Twelve frames of the portrait's upper part, moving; odd in height."""
    path = tmp_path_factory.mktemp("video") / "talk.mp4"
    with write_video(path, 20, (300, 251)) as write:
        for number in range(12):
            write(portrait[number : number + 251, 50 + 2 * number : 350 + 2 * number])
    return path


@pytest.fixture(scope="module")
def grey_video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "grey.mp4"
    with write_video(path, 20, (160, 120)) as write:
        for _ in range(7):
            write(np.full((120, 160, 3), 128, np.uint8))
    return path


def test_one_row_and_one_drawn_frame_for_each_frame(network, video, tmp_path):
    told = []
    tracked = track_file(
        video,
        checkpoint=network,
        feedback_steps=2,
        out=tmp_path / "drawn.mp4",
        landmarks=tmp_path / "points.csv",
        report=lambda done, total: told.append((done, total)),
    )
    assert told == [(n, 12) for n in range(1, 13)]
    assert tracked.files == [tmp_path / "drawn.mp4", tmp_path / "points.csv"]
    assert tracked.failures == []
    assert tracked.frames_per_second > 0
    names, points = read_landmarks_csv(tmp_path / "points.csv")
    assert names == [str(n) for n in range(1, 13)]
    np.testing.assert_allclose(points, tracked.landmarks, atol=6e-4)
    with VideoReader(video) as reader, VideoReader(tmp_path / "drawn.mp4") as drawn:
        assert (drawn.fps, drawn.size) == (reader.fps, reader.size) == (20, (300, 252))
        frames = list(reader)
        shown = list(drawn)
    faces = list(track(frames, network, feedback_steps=2))
    assert len(shown) == len(frames) == 12
    for number, face in enumerate(faces):
        np.testing.assert_allclose(face.landmarks, tracked.landmarks[number], atol=1e-3)
        assert face.confidence == pytest.approx(tracked.confidence[number])
        want = draw_landmarks(frames[number], face.landmarks)
        changed = np.abs(want.astype(float) - frames[number]).max(-1) > 60
        assert changed.sum() > 100
        drawn_error = np.abs(want[changed].astype(float) - shown[number][changed]).mean()
        plain_error = np.abs(want[changed].astype(float) - frames[number][changed]).mean()
        assert drawn_error < 0.5 * plain_error


def test_files_are_named_after_the_video(network, video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tracked = track_file(video, checkpoint=network)
    assert [str(path) for path in tracked.files] == ["talk_landmarks.mp4", "talk_landmarks.csv"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "talk_landmarks.mp4",
        "talk_landmarks.csv",
    }


def test_only_what_is_asked_for_is_written(network, video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    track_file(video, checkpoint=network, landmarks="points.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["points.csv"]


def test_a_video_without_a_face_says_so(network, grey_video, tmp_path):
    tracked = track_file(grey_video, checkpoint=network, landmarks=tmp_path / "points.csv")
    assert tracked.failures == [f"{grey_video}: no face found in 7 frames"]
    names, points = read_landmarks_csv(tmp_path / "points.csv")
    assert names == ["1", "2", "3", "4", "5", "6", "7"]
    assert np.isnan(points).all()
    assert not tracked.confidence.any()


def test_the_frames_before_a_break_are_kept(network, video, tmp_path, monkeypatch):
    """The reader says after its last frame that more should have come."""

    class Broken(VideoReader):
        def __iter__(self):
            for number, frame in enumerate(super().__iter__(), 1):
                yield frame
                if number == 5:
                    self.broken = "cut short"
                    return

    monkeypatch.setattr(module, "VideoReader", Broken)
    tracked = track_file(video, checkpoint=network, out=tmp_path / "drawn.mp4")
    assert tracked.failures == [f"{video}: cut short; the 5 frames before that are kept"]
    assert len(tracked.landmarks) == 5
    with VideoReader(tmp_path / "drawn.mp4") as drawn:
        assert len(list(drawn)) == 5


@pytest.mark.parametrize("error", [KeyboardInterrupt, RednetError])
def test_stopped_half_way_it_leaves_nothing(network, video, tmp_path, error):
    def report(done, total):
        if done == 4:
            raise error

    with pytest.raises(error):
        track_file(
            video,
            checkpoint=network,
            out=tmp_path / "drawn.mp4",
            landmarks=tmp_path / "points.csv",
            report=report,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_cannot_be_written_leaves_no_video(network, video, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(RednetError, match="folder: cannot be written"):
        track_file(
            video,
            checkpoint=network,
            out=tmp_path / "drawn.mp4",
            landmarks=tmp_path / "folder",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_files_must_differ(network, video, tmp_path):
    for out, landmarks in [(video, None), (None, video), (tmp_path / "a", tmp_path / "a")]:
        with pytest.raises(RednetError, match="must be different files"):
            track_file(video, checkpoint=network, out=out, landmarks=landmarks)


def test_feedback_steps_below_one_are_refused_before_anything_is_written(network, video, tmp_path):
    with pytest.raises(RednetError, match="1 or more, not 0"):
        track_file(video, checkpoint=network, feedback_steps=0, out=tmp_path / "drawn.mp4")
    assert list(tmp_path.iterdir()) == []
