"""Faces are found, followed, lost and searched again; people keep their numbers."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import pytest

from rednet_jax.detection.detector import POINTS, Detection, by_prominence
from rednet_jax.errors import RednetError
from rednet_jax.inference import streams
from rednet_jax.inference.missing import REMEMBERED
from rednet_jax.inference.tracker import (
    NEWCOMERS_EVERY,
    SEARCH_EVERY,
    SEARCHED_BESIDE,
    Tracker,
    landmark_track,
)
from rednet_jax.inference.tracking import track
from rednet_jax.landmarks.boxes import face_roll, landmark_box
from rednet_jax.landmarks.builtin import IBUG68, REDNET7
from rednet_jax.landmarks.crops import apply_affine, crop_transform
from rednet_jax.media.video import VideoReader, write_video

SIDE = 64.0
"""Of the faces in `picture`."""

SCENE = np.kron(np.random.default_rng(0).integers(2, size=(12, 16)), np.ones((20, 20))) * 95
"""Behind the faces: what says that a frame belongs to the same shot."""


def picture(*places: tuple[float, float], scene: np.ndarray = SCENE) -> np.ndarray:
    """A bright square, half of `SIDE` wide, at each place: what the fake network looks for."""
    frame = np.repeat(scene[..., None], 3, axis=2).astype(np.uint8)
    half = SIDE / 4
    for x, y in places:
        frame[round(y - half) : round(y + half) + 1, round(x - half) : round(x + half) + 1] = 200
    return frame


def box_at(x: float, y: float, side: float = SIDE) -> np.ndarray:
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32)


def middle(face) -> np.ndarray:
    return landmark_box(face.landmarks).reshape(2, 2).mean(0)


class Call(NamedTuple):
    fresh: bool
    warp: np.ndarray


class FakeNetwork:
    """Puts the mean face where the crop is bright, and notes each face that it is asked for."""

    def __init__(self, scheme=IBUG68):
        self.shape = scheme.shape
        self.calls: list[Call] = []
        self.batches: list[int] = []

    def __call__(self, variables, carried, crops, warps, sources, targets, fresh, **_):
        used = len(carried.passes) - 1 > targets
        self.batches.append(len(targets))
        self.calls += [
            Call(bool(new), warp) for new, warp in zip(fresh[used], warps[used], strict=True)
        ]
        answers = [self.answer(crop) for crop in crops]
        points, confidence = (np.stack(part) for part in zip(*answers, strict=True))
        return points, confidence.astype(np.float32), carried

    def answer(self, crop):
        bright = np.argwhere(crop[..., 0] > 150)[:, ::-1]
        if not len(bright):
            return np.zeros_like(self.shape), np.full(len(self.shape), 0.1)
        size = 2 * (bright.max(0) - bright.min(0)).max()
        return self.shape * size + bright.mean(0), np.full(len(self.shape), 0.9)


class FakeDetector:
    """Finds its boxes in frames of the shape of `picture`, and nothing in parts of them."""

    def __init__(self, *boxes):
        self.boxes = boxes
        self.shapes = []
        self.seconds = 0.0

    @property
    def searched(self):
        return len(self.shapes)

    def detect(self, image):
        self.shapes.append(image.shape)
        time.sleep(self.seconds)
        if image.shape != (*SCENE.shape, 3):
            return []
        return [Detection(box, 1.0) for box in self.boxes]


@pytest.fixture
def fake(network, monkeypatch):
    """Makes a tracker on `FakeNetwork` and `FakeDetector`, and returns all three."""

    def make(*boxes, faces=1):
        seen, detector = FakeNetwork(), FakeDetector(*boxes)
        monkeypatch.setattr(streams, "_step", seen)
        tracker = Tracker(network, faces=faces, detector=detector)
        seen.calls.clear()
        seen.batches.clear()
        return tracker, seen, detector

    return make


def test_a_moving_face_is_followed_without_the_detector(fake):
    tracker, seen, detector = fake(box_at(100, 100))
    for step in range(15):
        x, y = 100 + 6 * step, 100 + 3 * step
        (face,) = tracker.update(picture((x, y)))
        np.testing.assert_allclose((face.box[:2] + face.box[2:]) / 2, [x, y], atol=10)
        np.testing.assert_allclose(middle(face), [x, y], atol=2)
        assert face.confidence == pytest.approx(np.full(68, 0.9))
        assert face.identity == 0
    assert detector.searched == 1
    assert [call.fresh for call in seen.calls] == [True] + [False] * 14


def test_a_face_that_moved_far_is_looked_at_once_more(fake):
    """The second crop is cut around where the first one found the face; state and warp go along."""
    tracker, seen, detector = fake(box_at(100, 100))
    (first,) = tracker.update(picture((100, 100)))
    (moved,) = tracker.update(picture((118, 100)))
    assert detector.searched == 1
    assert [call.fresh for call in seen.calls] == [True, False, False]
    np.testing.assert_allclose(middle(moved), [118, 100], atol=2)
    np.testing.assert_allclose((first.box[:2] + first.box[2:]) / 2, [100, 100], atol=2)
    # From the crop beside the face to the one on it: 18 px of the frame, in pixels of the crop.
    shift = 18 * 64 / (1.25 * SIDE)
    np.testing.assert_allclose(seen.calls[2].warp[:, 2], [shift, 0], atol=3)


def test_a_second_look_that_finds_nothing_leaves_the_first_answer(fake):
    """The first crop shows the face near its edge; the network fails in the second one."""
    tracker, seen, detector = fake(box_at(100, 100))
    tracker.update(picture((100, 100)))
    answer = seen.answer
    seen.answer = lambda crop: answer(crop if len(seen.batches) < 3 else np.zeros_like(crop))
    (face,) = tracker.update(picture((118, 100)))
    np.testing.assert_allclose(middle(face), [118, 100], atol=2)
    assert (face.identity, detector.searched, len(seen.calls)) == (0, 1, 3)


def test_two_looks_at_a_frame_advance_the_state_once(network, portrait):
    """The state after a second look is that of a tracker whose first look was there."""
    config, variables = network
    one, two = (streams.Streams(config, variables, 1, feedback_steps=1) for _ in range(2))
    begin, beside, there = (
        streams.Region(np.array([170, 70, 270, 170], np.float32) + np.float32(shift))
        for shift in (0, 8, 20)
    )
    for each in (one, two):
        each.keep(0, each.look(portrait, {0: begin})[0])
    one.look(portrait, {0: beside})
    for each in (one, two):
        each.keep(0, each.look(portrait, {0: there})[0])
    after = [each.look(portrait, {0: there})[0] for each in (one, two)]
    np.testing.assert_array_equal(after[0].landmarks, after[1].landmarks)
    assert [int(each._state.passes[each._kept[0].slot]) for each in (one, two)] == [2, 2]


def test_the_warp_leads_from_the_new_crop_to_the_old_one(fake, network):
    """A pixel of the new crop and its image by the warp show the same place of the frame."""
    tracker, seen, _ = fake(box_at(100, 100))
    config = network[0]
    faces = [tracker.update(picture((100 + 7 * step, 100 - 3 * step)))[0] for step in range(4)]
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
    tracker, _, _ = fake(box_at(100, 100))
    (first,) = tracker.update(picture((100, 100)))
    np.testing.assert_array_equal(first.box, box_at(100, 100))
    (second,) = tracker.update(picture((104, 100)))
    np.testing.assert_array_equal(second.box, landmark_box(first.landmarks))


def test_a_network_of_seven_points_keeps_its_crop(narrow, network, monkeypatch):
    """Its crops are cut around the box of the whole face, as in training, not of seven points."""
    monkeypatch.setattr(streams, "_step", FakeNetwork(REDNET7))
    config = narrow("compact", scheme=REDNET7)
    tracker = Tracker((config, network[1]), detector=FakeDetector(box_at(100, 100)))
    for step in range(12):
        x, y = 100 + 4 * step, 100 + 2 * step
        (face,) = tracker.update(picture((x, y)))
        assert face.landmarks.shape == (7, 2) and face.identity == 0
        side = (face.box[2:] - face.box[:2]).max()
        np.testing.assert_allclose(side, SIDE, rtol=0.12)
        np.testing.assert_allclose((face.box[:2] + face.box[2:]) / 2, [x, y], atol=6)


def test_a_lost_face_is_searched_in_the_same_frame_and_begins_anew(fake):
    """It is far from where somebody was lost: another person."""
    tracker, seen, detector = fake(box_at(100, 100))
    tracker.update(picture((100, 100)))
    detector.boxes = (box_at(250, 150),)
    (face,) = tracker.update(picture((250, 150)))
    assert detector.searched == 2
    np.testing.assert_array_equal(face.box, detector.boxes[0])
    assert face.identity == 1
    # Found, lost, found again: blank at the first and at the last.
    assert [call.fresh for call in seen.calls] == [True, False, True]
    np.testing.assert_allclose(seen.calls[-1].warp, np.eye(2, 3), atol=1e-6)


@pytest.mark.parametrize(
    ("away", "place", "identity"),
    [
        (2, (130, 100), 0),
        (2, (190, 100), 1),
        (REMEMBERED // 2, (190, 100), 0),
        (REMEMBERED + 5, (100, 100), 1),
    ],
    ids=["near", "far", "walked", "forgotten"],
)
def test_who_comes_back_near_and_soon_is_the_same_person(fake, away, place, identity):
    tracker, _, detector = fake(box_at(100, 100))
    tracker.update(picture((100, 100)))
    detector.boxes = ()
    for _ in range(away):
        assert tracker.update(picture()) == []
    detector.boxes = (box_at(*place),)
    found = [tracker.update(picture(place)) for _ in range(SEARCH_EVERY)]
    assert found[-1][0].identity == identity


def still_in_its_crop():
    """The mean face, crop pixels, where the next crop is the same as the last."""
    shape = IBUG68.shape
    middle, side = (shape.min(0) + shape.max(0)) / 2, np.ptp(shape, axis=0).max()
    return (shape - middle) / side * 64 / 1.25 + 31.5


def test_another_person_in_the_same_place_is_another_one(fake, portrait):
    """B takes over from A from one frame to the next, and A comes back: two people, no cut."""
    tracker, seen, _ = fake(box_at(100, 100))
    a, b = portrait[60:190, 155:285], portrait[10:140, 10:140]
    shape = still_in_its_crop()
    seen.answer = lambda crop: (shape, np.full(68, 0.9))
    identities = []
    for frame in range(16):
        image = picture()
        image[35:165, 35:165] = (a, b, a, a)[frame // 4]
        identities += [face.identity for face in tracker.update(image)]
    assert identities == [0] * 4 + [1] * 4 + [0] * 8


def test_another_person_found_where_somebody_was_lost_is_another_one(fake, portrait):
    tracker, seen, _ = fake(box_at(100, 100))
    a, b = portrait[60:190, 155:285], portrait[10:140, 10:140]
    shape = still_in_its_crop()
    identities = []
    for frame in range(11):
        image = picture()
        image[35:165, 35:165] = b if 3 < frame < 7 else a
        # Lost for one frame, and the detector's box is as little of a face.
        confidence = np.full(68, 0.1 if frame in (3, 7) else 0.9)
        seen.answer = lambda crop, confidence=confidence: (shape, confidence)
        identities.append([face.identity for face in tracker.update(image)])
    # The whole frame is searched in the frame of a loss, and in one of three after it.
    assert identities == [[0]] * 3 + [[]] * 3 + [[1]] + [[]] * 3 + [[0]]


def test_without_a_face_one_frame_of_a_few_is_searched(fake):
    tracker, seen, detector = fake()
    for _ in range(2 * SEARCH_EVERY + 1):
        assert tracker.update(picture((100, 100))) == []
    # The frame after that is searched turned.
    assert detector.shapes == [(240, 320, 3), (320, 240, 3)] * 2 + [(240, 320, 3)]
    assert not seen.calls
    detector.boxes = (box_at(100, 100),)
    answers = [tracker.update(picture((100, 100))) for _ in range(SEARCH_EVERY)]
    assert [len(answer) for answer in answers] == [0] * (SEARCH_EVERY - 1) + [1]


def test_what_the_network_does_not_confirm_is_no_face(fake):
    tracker, seen, detector = fake(box_at(100, 100))
    assert tracker.update(picture()) == []
    assert detector.searched == 1 and len(seen.calls) == 1
    for _ in range(SEARCH_EVERY - 1):
        assert tracker.update(picture((100, 100))) == []
    assert len(tracker.update(picture((100, 100)))) == 1
    assert seen.calls[-1].fresh


@pytest.mark.parametrize(
    "points",
    [
        np.full((68, 2), np.nan),
        IBUG68.shape * 1e5,
        IBUG68.shape * 2 + 32,
        IBUG68.shape * 60 + [900, 30],
    ],
    ids=["nan", "huge", "tiny", "outside"],
)
def test_points_that_can_be_no_face_are_lost(fake, points):
    tracker, seen, _ = fake(box_at(100, 100))
    seen.answer = lambda crop: (points, np.ones(68))
    assert tracker.update(picture((100, 100))) == []


def test_a_confidence_that_is_nan_is_lost(fake):
    tracker, seen, _ = fake(box_at(100, 100))
    seen.answer = lambda crop: (IBUG68.shape * 60 + 32, np.full(68, np.nan))
    assert tracker.update(picture((100, 100))) == []


def test_reset_forgets(fake):
    tracker, seen, detector = fake(box_at(100, 100))
    tracker.update(picture((100, 100)))
    tracker.reset()
    (face,) = tracker.update(picture((100, 100)))
    assert detector.searched == 2
    assert seen.calls[-1].fresh
    assert face.identity == 0


def test_a_new_shot_has_new_people(fake):
    """The face is where the old one was, so that it alone would not tell."""
    tracker, seen, detector = fake(box_at(100, 100))
    tracker.update(picture((100, 100)))
    (face,) = tracker.update(picture((100, 100), scene=95 - SCENE))
    assert detector.searched == 2
    assert face.identity == 1
    assert seen.calls[-1].fresh
    (face,) = tracker.update(picture((100, 100), scene=95 - SCENE))
    assert (face.identity, detector.searched) == (1, 2)


def test_faces_that_meet_the_same_frame_share_a_batch_and_keep_their_numbers(fake):
    tracker, seen, detector = fake(box_at(60, 60), box_at(200, 60), box_at(60, 180), faces=3)
    for step in range(12):
        places = [(60 + 5 * step, 60), (200 + 5 * step, 60), (60, 180 - step)]
        faces = tracker.update(picture(*places))
        assert [face.identity for face in faces] == [0, 1, 2]
        for face, place in zip(faces, places, strict=True):
            np.testing.assert_allclose(middle(face), place, atol=2)
    assert seen.batches == [3] * 12
    assert detector.searched == 1


def test_no_more_faces_are_followed_than_asked_for(fake):
    tracker, _, _ = fake(box_at(60, 60), box_at(200, 60), box_at(60, 180), faces=2)
    for _ in range(NEWCOMERS_EVERY + 5):
        faces = tracker.update(picture((60, 60), (200, 60), (60, 180)))
        assert [face.identity for face in faces] == [0, 1]


def test_a_newcomer_is_found_while_others_are_followed(fake):
    """The search runs beside the network; how long it takes does not change what is found."""
    tracker, _, detector = fake(box_at(60, 60), faces=4)
    detector.seconds = 0.05
    tracker.update(picture((60, 60)))
    detector.boxes = (box_at(60, 60), box_at(200, 100))
    both = picture((60, 60), (200, 100))
    counts = [len(tracker.update(both)) for _ in range(NEWCOMERS_EVERY + SEARCHED_BESIDE + 1)]
    found_in = NEWCOMERS_EVERY + SEARCHED_BESIDE - 1
    assert counts == [1] * found_in + [2] * 2
    assert detector.searched == 2
    assert [face.identity for face in tracker.update(both)] == [0, 1]


def test_one_of_two_is_lost_and_found_while_the_other_is_followed(fake):
    tracker, _, detector = fake(box_at(60, 60), box_at(200, 100), faces=2)
    tracker.update(picture((60, 60), (200, 100)))
    detector.boxes = (box_at(60, 60),)
    for _ in range(5):
        assert [face.identity for face in tracker.update(picture((60, 60)))] == [0]
    detector.boxes = (box_at(60, 60), box_at(210, 100))
    both = picture((60, 60), (210, 100))
    faces = [tracker.update(both) for _ in range(2 * SEARCH_EVERY + SEARCHED_BESIDE)][-1]
    assert [face.identity for face in faces] == [0, 1]


def test_where_two_slide_onto_one_face_the_elder_stays(fake, monkeypatch):
    alike = np.where(np.arange(768) % 2, 1, -1).astype(np.float32)
    monkeypatch.setattr(Tracker, "_thumbnail", lambda tracker, look: alike)
    tracker, _, _ = fake(box_at(60, 60), box_at(160, 60), faces=2)
    assert len(tracker.update(picture((60, 60), (160, 60)))) == 2
    for x in (150, 140, 130, 120, 110, 100, 90, 80, 70, 62):
        faces = tracker.update(picture((60, 60), (x, 60)))
    assert [face.identity for face in faces] == [0]


def test_batches_are_filled_up_to_a_few_sizes(fake):
    places = [(60, 60), (160, 60), (260, 60), (60, 180), (160, 180)]
    tracker, seen, _ = fake(*(box_at(*place) for place in places[:3]), faces=5)
    tracker.update(picture(*places[:3]))
    assert seen.batches == [4]
    tracker.reset()
    tracker._detector.boxes = tuple(box_at(*place) for place in places)
    tracker.update(picture(*places))
    assert seen.batches == [4, 5]


def test_a_face_that_only_a_tile_shows_is_found_within_a_second(fake):
    """The whole of a large frame is searched too coarsely, and each tile once in a second."""
    tracker, _, detector = fake(box_at(100, 100), faces=2)
    frame = np.kron(picture((100, 100)), np.ones((5, 5, 1), np.uint8))[:1080]
    frame[800 - 16 : 800 + 17, 1500 - 16 : 1500 + 17] = 200

    def detect(image):
        detector.shapes.append(image.shape)
        if image.shape == frame.shape:
            return [Detection(box_at(502, 502, 5 * SIDE), 1.0)]
        ys, xs = np.nonzero(image[..., 0] == 200)
        small = xs.size == 33 * 33
        return [Detection(box_at(xs.mean(), ys.mean()), 1.0)] if small else []

    detector.detect = detect
    counts = [len(tracker.update(frame)) for _ in range(25)]
    assert counts[0] == 1 and counts[-1] == 2
    (small,) = (face for face in tracker.update(frame) if face.identity == 1)
    np.testing.assert_allclose(middle(small), [1500, 800], atol=2)
    # One search in three frames, of at most a tile's pixels or of the whole frame.
    assert len(detector.shapes) <= 1 + 25 / SEARCHED_BESIDE
    assert detector.shapes.count(frame.shape) <= 3


def test_a_face_that_lies_on_its_side_is_tracked_upright(fake):
    """The detector says the roll, later the landmarks: the network sees an upright face."""
    tracker, seen, detector = fake(box_at(100, 100))
    turn = np.array([[0, 1], [-1, 0]])
    detector.detect = lambda image: [
        Detection(box_at(100, 100), 1.0, np.float32(POINTS @ turn * 60 + 100))
    ]
    for step in range(4):
        place = (100 + 4 * step, 100)
        (face,) = tracker.update(picture(place))
        np.testing.assert_allclose(middle(face), place, atol=3)
        # The fake network answers an upright face in the crop: in the frame it lies on its side.
        assert face_roll(face.landmarks, IBUG68) == pytest.approx(np.pi / 2, abs=0.01)
    assert len(seen.calls) == 4


def test_a_face_that_the_detector_finds_upside_down_is_turned(fake):
    """The network is sure of upright crops alone: a bright square whose lower half is brighter."""
    tracker, seen, detector = fake(box_at(100, 100))
    turn = np.array([[-1, 0], [0, -1]])
    detector.detect = lambda image: [
        Detection(box_at(100, 100), 1.0, np.float32(POINTS @ turn * 60 + 100))
    ]
    answer = seen.answer

    def sure_if_upright(crop):
        points, confidence = answer(crop)
        lower = np.argwhere(crop[..., 0] > 230)
        upright = len(lower) and lower[:, 0].mean() > np.argwhere(crop[..., 0] > 150)[:, 0].mean()
        return points, confidence if upright else confidence * 0.4

    seen.answer = sure_if_upright
    image = picture((100, 100))
    image[100:117, 84:117] = 250
    for _ in range(3):
        (face,) = tracker.update(image)
        assert abs(face_roll(face.landmarks, IBUG68)) < 0.01
    assert [call.fresh for call in seen.calls] == [True, True, False, False]


def test_a_crop_turns_with_a_face_that_rolls_far(fake):
    tracker, seen, _ = fake(box_at(100, 100))
    answer, rolls = seen.answer, [0.0, 0.2, 0.3, 0.6, 0.7]
    crop_rolls = []
    for roll in rolls:

        def rolled(crop, roll=roll):
            points, confidence = answer(crop)
            off = roll - (tracker._tracks[0].region.roll if tracker._tracks else 0.0)
            centre = points.mean(0)
            cosine, sine = np.cos(off), np.sin(off)
            return (points - centre) @ np.array([[cosine, sine], [-sine, cosine]]) + centre, (
                confidence
            )

        seen.answer = rolled
        (face,) = tracker.update(picture((100, 100)))
        assert face_roll(face.landmarks, IBUG68) == pytest.approx(roll, abs=0.02)
        crop_rolls.append(tracker._tracks[0].region.roll)
    assert crop_rolls == pytest.approx([0, 0, 0, 0.6, 0.6], abs=0.02)


def test_track_answers_each_frame_when_it_is_asked(network, portrait):
    asked = []

    def frames():
        for number in range(4):
            asked.append(number)
            yield portrait

    tracked = track(frames(), network)
    assert asked == []
    first = next(tracked)
    assert asked == [0]
    assert (first.index, first.seconds) == (0, None) and isinstance(first.faces, list)
    assert [frame.index for frame in tracked] == [1, 2, 3]


def test_a_file_is_tracked_like_its_frames_and_says_at_the_end_that_it_was_cut(
    network, portrait, tmp_path, monkeypatch
):
    path = tmp_path / "talk.mp4"
    with write_video(path, 25, (256, 256)) as write:
        for number in range(5):
            write(portrait[:256, 90 + number : 346 + number])
    with VideoReader(path) as reader:
        frames = [frame.image for frame in reader]
    for mine, theirs in zip(track(path, network), track(frames, network), strict=True):
        assert mine.index == theirs.index
        assert mine.seconds == pytest.approx(mine.index / 25)
        for one, other in zip(mine.faces, theirs.faces, strict=True):
            np.testing.assert_array_equal(one.landmarks, other.landmarks)
    cut_short = property(lambda _: "cut short", lambda *_: None)
    monkeypatch.setattr(VideoReader, "broken", cut_short, raising=False)
    cut = track(str(path), network)
    assert len([next(cut) for _ in range(5)]) == 5
    with pytest.raises(RednetError, match=r"talk\.mp4: cut short$"):
        next(cut)
    with pytest.raises(RednetError, match="missing"):
        track(tmp_path / "missing.mp4", network)


def test_wrong_arguments_are_one_line(network):
    with pytest.raises(RednetError, match="feedback steps must be 1 or more, not 0"):
        track([], network, feedback_steps=0)
    with pytest.raises(RednetError, match="faces must be 1 or more, not 0"):
        track([], network, faces=0)
    for frame in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((8, 8, 4), np.uint8)):
        with pytest.raises(RednetError, match="a frame is uint8"):
            next(track([frame], network))


def test_a_near_face_goes_before_a_sharper_small_one():
    small = Detection(box_at(50, 50, 40), 2.0)
    large = Detection(box_at(150, 150, 120), 1.0)
    doubtful = Detection(box_at(150, 150, 200), 0.1)
    assert by_prominence([small, doubtful, large]) == [large, small, doubtful]
    assert by_prominence([]) == []


def test_a_track_has_nan_where_there_is_no_face(fake):
    tracker, _, _ = fake(box_at(100, 100))
    frames = [tracker.update(picture((100, 100))), []]
    points = landmark_track(frames, IBUG68)
    assert points.shape == (2, 68, 2) and points.dtype == np.float32
    np.testing.assert_array_equal(points[0], frames[0][0].landmarks)
    assert np.isnan(points[1]).all()
