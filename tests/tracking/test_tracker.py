"""A face is found, followed, lost and searched again; the network's state goes with the crop."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rednet_jax.detection.dlib import Detection
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.crops import apply_affine, crop_transform, cut_crop, invert_affine
from rednet_jax.landmarks.schemes import LANDMARKS_68, mean_shape
from rednet_jax.model import rednet
from rednet_jax.tracking import tracker as module
from rednet_jax.tracking.tracker import SEARCH_EVERY, Tracker, landmark_track, most_prominent, track

SIDE = 64.0
"""Of the face in `picture`."""


def picture(x: float, y: float, visible: bool = True) -> np.ndarray:
    """A bright square, half of `SIDE` wide, around (x, y): what the fake network looks for."""
    frame = np.zeros((240, 320, 3), np.uint8)
    if visible:
        half = SIDE / 4
        frame[round(y - half) : round(y + half) + 1, round(x - half) : round(x + half) + 1] = 200
    return frame


def box_at(x: float, y: float, side: float = SIDE) -> np.ndarray:
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32)


class Call(NamedTuple):
    state: str
    warp: np.ndarray


class FakeNetwork:
    """Puts the mean face where the crop is bright; its state is the number of the call."""

    def __init__(self):
        self.calls: list[Call] = []

    def __call__(self, variables, state, crop, warp, *, config, feedback_steps):
        name = state if isinstance(state, str) else "blank"
        if name == "blank":
            assert all(not np.any(leaf) for leaf in jax.tree.leaves(state))
        self.calls.append(Call(name, warp))
        bright = np.argwhere(crop[..., 0] > 100)[:, ::-1]
        if not len(bright):
            return np.zeros((68, 2)), np.full(68, 0.1), f"after {len(self.calls)}"
        size = 2 * (bright.max(0) - bright.min(0)).max()
        points = mean_shape(LANDMARKS_68) * size + bright.mean(0)
        return points, np.full(68, 0.9), f"after {len(self.calls)}"


class FakeDetector:
    def __init__(self, box):
        self.box = box
        self.searched = 0

    def detect(self, image):
        self.searched += 1
        return [] if self.box is None else [Detection(self.box, 1.0)]


@pytest.fixture
def fake(network, monkeypatch):
    """A tracker on `FakeNetwork` and `FakeDetector`, and both of them."""
    seen, detector = FakeNetwork(), FakeDetector(box_at(100, 100))
    monkeypatch.setattr(module, "_step", seen)
    tracker = Tracker(*network, detector=detector)
    seen.calls.clear()  # of the compilation
    return tracker, seen, detector


def test_a_moving_face_is_followed_without_the_detector(fake):
    tracker, seen, detector = fake
    for step in range(15):
        x, y = 100 + 6 * step, 100 + 3 * step
        face = tracker.update(picture(x, y))
        np.testing.assert_allclose((face.box[:2] + face.box[2:]) / 2, [x, y], atol=10)
        middle = landmark_box(face.landmarks).reshape(2, 2).mean(0)
        np.testing.assert_allclose(middle, [x, y], atol=2)
        assert face.confidence == pytest.approx(0.9)
    assert detector.searched == 1
    assert len(seen.calls) == 15


def test_a_face_that_moved_far_is_looked_at_once_more(fake):
    """The second crop is cut around where the first one found the face; state and warp go along."""
    tracker, seen, detector = fake
    first = tracker.update(picture(100, 100))
    moved = tracker.update(picture(118, 100))
    assert detector.searched == 1
    assert [call.state for call in seen.calls] == ["blank", "after 1", "after 2"]
    np.testing.assert_allclose((moved.box[:2] + moved.box[2:]) / 2, [118, 100], atol=2)
    np.testing.assert_allclose((first.box[:2] + first.box[2:]) / 2, [100, 100], atol=2)
    # From the crop beside the face to the one on it: 18 px of the frame, in pixels of the crop.
    shift = 18 * 64 / (1.25 * SIDE)
    np.testing.assert_allclose(seen.calls[2].warp[:, 2], [shift, 0], atol=3)


def test_state_goes_from_frame_to_frame(fake):
    tracker, seen, _ = fake
    for x in (100, 104, 108):
        tracker.update(picture(x, 100))
    assert [call.state for call in seen.calls] == ["blank", "after 1", "after 2"]


def test_the_warp_leads_from_the_new_crop_to_the_old_one(fake, network):
    """A pixel of the new crop and its image by the warp show the same place of the frame."""
    tracker, seen, _ = fake
    config = network[0]
    faces = [tracker.update(picture(100 + 7 * step, 100 - 3 * step)) for step in range(4)]
    crops = [
        crop_transform(face.box, margin=config.crop_margin, size=config.image_size)
        for face in faces
    ]
    np.testing.assert_allclose(seen.calls[0].warp, np.eye(2, 3), atol=1e-6)
    grid = np.array([[0, 0], [63, 0], [5, 63], [31.5, 20]])
    for old, new, call in zip(crops, crops[1:], seen.calls[1:], strict=False):
        assert call.warp.dtype == np.float32
        assert np.abs(call.warp - np.eye(2, 3)).max() > 0.5
        place = apply_affine(new, grid)
        np.testing.assert_allclose(
            apply_affine(old, apply_affine(call.warp, grid)), place, atol=1e-3
        )


def test_the_crop_is_cut_around_the_last_landmarks(fake):
    tracker, _, _ = fake
    first = tracker.update(picture(100, 100))
    np.testing.assert_array_equal(first.box, box_at(100, 100))
    second = tracker.update(picture(104, 100))
    np.testing.assert_array_equal(second.box, landmark_box(first.landmarks))


def test_a_lost_face_is_searched_in_the_same_frame_and_begins_anew(fake):
    tracker, seen, detector = fake
    tracker.update(picture(100, 100))
    detector.box = box_at(250, 150)
    face = tracker.update(picture(250, 150))
    assert detector.searched == 2
    np.testing.assert_array_equal(face.box, detector.box)
    # Found, lost, found again: blank at the first and at the last.
    assert [call.state for call in seen.calls] == ["blank", "after 1", "blank"]
    np.testing.assert_allclose(seen.calls[-1].warp, np.eye(2, 3), atol=1e-6)


def test_without_a_face_one_frame_of_a_few_is_searched(fake):
    tracker, seen, detector = fake
    detector.box = None
    for _ in range(2 * SEARCH_EVERY + 1):
        assert tracker.update(picture(100, 100)) == module.NO_FACE
    assert detector.searched == 3
    assert not seen.calls
    detector.box = box_at(100, 100)
    answers = [tracker.update(picture(100, 100)) for _ in range(SEARCH_EVERY)]
    assert [answer.landmarks is None for answer in answers] == [True] * (SEARCH_EVERY - 1) + [False]
    assert detector.searched == 4


def test_what_the_network_does_not_confirm_is_no_face(fake):
    tracker, seen, detector = fake
    assert tracker.update(picture(0, 0, visible=False)) == module.NO_FACE
    assert detector.searched == 1 and len(seen.calls) == 1
    for _ in range(SEARCH_EVERY - 1):
        assert tracker.update(picture(100, 100)) == module.NO_FACE
    assert tracker.update(picture(100, 100)).landmarks is not None
    assert seen.calls[-1].state == "blank"


@pytest.mark.parametrize(
    "points",
    [
        np.full((68, 2), np.nan),
        mean_shape(LANDMARKS_68) * 1e5,
        mean_shape(LANDMARKS_68) * 2 + 32,
        mean_shape(LANDMARKS_68) * 60 + [900, 30],
    ],
    ids=["nan", "huge", "tiny", "outside"],
)
def test_points_that_can_be_no_face_are_lost(fake, monkeypatch, points):
    tracker, _, _ = fake
    tracker._step = lambda state, crop, warp: (points, np.ones(68), state)
    assert tracker.update(picture(100, 100)) == module.NO_FACE


def test_a_confidence_that_is_nan_is_lost(fake):
    tracker, _, _ = fake
    points = mean_shape(LANDMARKS_68) * 60 + 32
    tracker._step = lambda state, crop, warp: (points, np.full(68, np.nan), state)
    assert tracker.update(picture(100, 100)) == module.NO_FACE


def test_reset_forgets(fake):
    tracker, seen, detector = fake
    tracker.update(picture(100, 100))
    tracker.reset()
    tracker.update(picture(100, 100))
    assert detector.searched == 2
    assert seen.calls[-1].state == "blank"


def test_the_network_sees_what_step_says(network):
    """Two frames through the tracker are two calls of `step`, crop and warp made by hand."""
    config, variables = network
    rng = np.random.default_rng(0)
    frames = rng.integers(256, size=(2, 240, 320, 3), dtype=np.uint8)
    tracker = Tracker(config, variables, feedback_steps=2, detector=FakeDetector(box_at(150, 120)))
    compiled = module._step._cache_size()
    faces = [tracker.update(frame) for frame in frames]
    assert module._step._cache_size() == compiled  # when the tracker was made, and for all frames
    step = jax.jit(functools.partial(rednet.step, config, feedback_steps=2))
    state, old = rednet.initial_state(config, 1), None
    for frame, face in zip(frames, faces, strict=True):
        new = crop_transform(face.box, margin=config.crop_margin, size=config.image_size)
        warp = jnp.eye(2, 3)[None]
        if old is not None:
            grid = np.array([[0.0, 0], [1, 0], [0, 1]])
            origin, right, down = apply_affine(invert_affine(old), apply_affine(new, grid))
            warp = jnp.asarray(
                np.stack([right - origin, down - origin, origin], -1)[None], "float32"
            )
        crop = jnp.asarray(cut_crop(frame, new, config.image_size)[None] / 255, "float32")
        out, state = step(variables, state, crop, warp)
        np.testing.assert_allclose(
            face.landmarks, apply_affine(new, np.asarray(out.landmarks[0])), atol=1e-2
        )
        assert face.confidence == pytest.approx(float(out.confidence.mean()), abs=1e-4)
        old = new


def test_track_answers_each_frame_when_it_is_asked(network, portrait):
    asked = []

    def frames():
        for number in range(4):
            asked.append(number)
            yield portrait

    faces = track(frames(), network)
    assert asked == []
    next(faces)
    assert asked == [0]
    assert len(list(faces)) == 3


def test_wrong_arguments_are_one_line(network):
    with pytest.raises(RednetError, match="feedback steps must be 1 or more, not 0"):
        track([], network, feedback_steps=0)
    for frame in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((8, 8, 4), np.uint8)):
        with pytest.raises(RednetError, match="a frame is uint8"):
            next(track([frame], network))


def test_a_near_face_goes_before_a_sharper_small_one():
    small = Detection(box_at(50, 50, 40), 2.0)
    large = Detection(box_at(150, 150, 120), 1.0)
    doubtful = Detection(box_at(150, 150, 200), 0.1)
    assert most_prominent([small, large, doubtful]) is large
    assert most_prominent([small]) is small
    assert most_prominent([]) is None


def test_a_track_has_nan_where_there_is_no_face(fake):
    tracker, _, _ = fake
    faces = [tracker.update(picture(100, 100)), module.NO_FACE]
    points = landmark_track(faces, 68)
    assert points.shape == (2, 68, 2) and points.dtype == np.float32
    np.testing.assert_array_equal(points[0], faces[0].landmarks)
    assert np.isnan(points[1]).all()
