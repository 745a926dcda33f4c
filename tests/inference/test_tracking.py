"""`rednet_jax.track` and `landmark_track`."""

from __future__ import annotations

import gc

import jax.numpy as jnp
import numpy as np
import pytest
from inference.fake_tracker import box_at, middle, shot_frame
from PIL import Image

from rednet_jax.errors import RednetError
from rednet_jax.inference.tracking import landmark_track, track
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.media.video import VideoReader, write_video
from rednet_jax.weights.store import write_weights


def test_track_computes_a_frame_only_on_next(network, portrait):
    read = []

    def frames():
        for number in range(4):
            read.append(number)
            yield portrait

    tracked = track(frames(), network)
    assert read == []
    first = next(tracked)
    assert read == [0]
    assert (first.index, first.seconds) == (0, None) and isinstance(first.faces, list)
    assert [frame.index for frame in tracked] == [1, 2, 3]


def test_a_file_is_tracked_like_its_frames_and_raises_at_the_end_if_it_is_truncated(
    network, portrait, tmp_path, monkeypatch
):
    path = tmp_path / "talk.mp4"
    with write_video(path, 25, (256, 256)) as write:
        for number in range(5):
            write(portrait[:256, 90 + number : 346 + number])
    with VideoReader(path) as reader:
        frames = [frame.image for frame in reader]
    for of_file, of_frames in zip(track(path, network), track(frames, network), strict=True):
        assert of_file.index == of_frames.index
        assert of_file.seconds == pytest.approx(of_file.index / 25)
        for face, expected in zip(of_file.faces, of_frames.faces, strict=True):
            np.testing.assert_array_equal(face.landmarks, expected.landmarks)
    cut_short = property(lambda _: "cut short", lambda *_: None)
    monkeypatch.setattr(VideoReader, "broken", cut_short, raising=False)
    cut = track(str(path), network)
    assert len([next(cut) for _ in range(5)]) == 5
    with pytest.raises(RednetError, match=r"talk\.mp4: cut short$"):
        next(cut)
    with pytest.raises(RednetError, match="missing"):
        track(tmp_path / "missing.mp4", network)


def test_a_video_is_closed_also_if_no_frame_was_read(network, portrait, tmp_path, monkeypatch):
    path, closed = tmp_path / "talk.mp4", []
    with write_video(path, 25, (256, 256)) as write:
        for _ in range(2):
            write(portrait[:256, 90:346])
    leave = VideoReader.__exit__
    monkeypatch.setattr(
        VideoReader, "__exit__", lambda reader, *error: closed.append(leave(reader, *error))
    )
    tracked = track(path, network)
    assert closed == []
    tracked.close()
    assert len(closed) == 1
    tracked = track(path, network)
    del tracked
    gc.collect()
    assert len(closed) == 2
    assert [frame.index for frame in track(path, network)] == [0, 1]
    assert len(closed) == 3


def test_a_checkpoint_may_be_a_path(network, portrait, tmp_path):
    write_weights(tmp_path / "tiny.safetensors", *network)
    assert len(list(track([portrait], tmp_path / "tiny.safetensors"))) == 1


def test_invalid_arguments_are_errors(network):
    with pytest.raises(RednetError, match="feedback steps must be 1 or more, not 0"):
        track([], network, feedback_steps=0)
    with pytest.raises(RednetError, match="feedback steps must be at most 100, not 1000000000"):
        track([], network, feedback_steps=10**9)
    with pytest.raises(RednetError, match="faces must be 1 or more, not 0"):
        track([], network, faces=0)
    with pytest.raises(RednetError, match="faces must be at most 1000, not 1000000"):
        track([], network, faces=10**6)
    for faces in (2.0, "2", True):
        with pytest.raises(RednetError, match=f"faces must be an integer, not {faces!r}"):
            track([], network, faces=faces)
    for source in (True, None, 1.5, -1):
        with pytest.raises(RednetError, match=f"path or the number of a camera, not {source!r}"):
            track(source, network)
    with pytest.raises(RednetError, match="carry: 'none' is not one of all, feedback, nothing"):
        track([], network, carry="none")
    for frame in (
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 3)),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 0, 3), np.uint8),
        None,
        [[1], [2, 3]],
        shot_frame((100, 100)).tolist(),
    ):
        with pytest.raises(RednetError, match="an image is RGB uint8"):
            next(track([frame], network))


def test_integers_may_be_of_numpy(network, portrait):
    assert len(list(track([portrait], network, faces=np.int64(2), feedback_steps=np.int64(1)))) == 1
    with pytest.raises(RednetError, match="camera 99: cannot be opened"):
        next(track(np.int64(99), network))


def test_frames_may_be_arrays_and_images_of_every_kind(fake):
    frame = shot_frame((100, 100))
    for same in (jnp.asarray(frame), Image.fromarray(frame)):
        tracker, _, _ = fake(box_at(100, 100))
        (face,) = tracker.update(same)
        np.testing.assert_allclose(middle(face), [100, 100], atol=2)


def test_landmarks_of_frames_without_a_face_are_nan(fake):
    tracker, _, _ = fake(box_at(100, 100))
    frames = [tracker.update(shot_frame((100, 100))), []]
    points = landmark_track(frames, IBUG68)
    assert points.shape == (2, 68, 2) and points.dtype == np.float32
    np.testing.assert_array_equal(points[0], frames[0][0].landmarks)
    assert np.isnan(points[1]).all()
