"""Searches for lost and new faces, and the identities of people."""

from __future__ import annotations

import numpy as np
import pytest
from inference.fake_tracker import SCENE, SIDE, box_at, middle, shot_frame

from rednet_jax.detection.detector import Detection, by_prominence
from rednet_jax.inference.missing import REMEMBERED
from rednet_jax.inference.schedule import NEWCOMERS_EVERY, SEARCH_EVERY, SEARCHED_BESIDE
from rednet_jax.landmarks.builtin import IBUG68


def test_the_frame_of_a_loss_is_searched(fake):
    """The new face is far from the lost one: it is another person, with a fresh state."""
    tracker, net, detector = fake(box_at(100, 100))
    tracker.update(shot_frame((100, 100)))
    detector.boxes = (box_at(250, 150),)
    (face,) = tracker.update(shot_frame((250, 150)))
    assert detector.searched == 2
    np.testing.assert_array_equal(face.box, detector.boxes[0])
    assert face.identity == 1
    # Found, lost, found: the state is fresh at the first and the last call.
    assert [call.fresh for call in net.calls] == [True, False, True]
    np.testing.assert_allclose(net.calls[-1].warp, np.eye(2, 3), atol=1e-6)


@pytest.mark.parametrize(
    ("frames_away", "centre", "identity"),
    [
        (2, (130, 100), 0),
        (2, (190, 100), 1),
        (REMEMBERED // 2, (190, 100), 0),
        (REMEMBERED + 5, (100, 100), 1),
    ],
    ids=["near", "far", "far after a long time", "after too long a time"],
)
def test_a_face_that_soon_reappears_nearby_is_the_same_person(fake, frames_away, centre, identity):
    tracker, _, detector = fake(box_at(100, 100))
    tracker.update(shot_frame((100, 100)))
    detector.boxes = ()
    for _ in range(frames_away):
        assert tracker.update(shot_frame()) == []
    detector.boxes = (box_at(*centre),)
    faces = [tracker.update(shot_frame(centre)) for _ in range(SEARCH_EVERY)]
    assert faces[-1][0].identity == identity


def mean_face_in_crop():
    """The mean face, crop pixels, for which the next crop is the same as the last."""
    shape = IBUG68.shape
    middle, side = (shape.min(0) + shape.max(0)) / 2, np.ptp(shape, axis=0).max()
    return (shape - middle) / side * 64 / 1.25 + 31.5


def test_a_change_of_person_is_detected(fake, portrait):
    """Person B replaces person A between two frames, and A comes back; there is no shot cut."""
    tracker, net, _ = fake(box_at(100, 100))
    a, b = portrait[60:190, 155:285], portrait[10:140, 10:140]
    shape = mean_face_in_crop()
    net.predict = lambda crop: (shape, np.full(68, 0.9))
    identities = []
    for frame in range(16):
        image = shot_frame()
        image[35:165, 35:165] = (a, b, a, a)[frame // 4]
        identities += [face.identity for face in tracker.update(image)]
    assert identities == [0] * 4 + [1] * 4 + [0] * 8


@pytest.mark.parametrize(
    "detected", [box_at(136, 100), box_at(100, 100, 48)], ids=["the visible face", "a small box"]
)
def test_a_hidden_face_does_not_move_onto_a_visible_one(fake, detected):
    """The faces overlap. In a crop around the small box the network sees the visible one."""
    tracker, net, detector = fake(box_at(100, 100), box_at(136, 100), faces=2)
    image = shot_frame((100, 100), (136, 100))
    image[image[..., 0] == 200] = 160
    image[84:117, 120:153] = 220
    least = 0.9

    def predict(crop):
        brightness, width = crop[32, 32, 0], (np.abs(crop[32, :, 0] - 160.0) < 9).sum()
        if brightness > 200:
            return mean_face_in_crop(), np.full(68, 0.9)
        if width < 30:
            return mean_face_in_crop(), np.full(68, least)
        scale = 64 / 60
        return (mean_face_in_crop() - 31.5) * 64 / 48 + 31.5 + [36 * scale, 0], np.full(68, 0.9)

    net.predict = predict
    for _ in range(4):
        faces = tracker.update(image)
        assert [face.identity for face in faces] == [0, 1]
        for face, x in zip(faces, (100, 136), strict=True):
            np.testing.assert_allclose(middle(face), [x, 100], atol=2)
        least, detector.boxes = 0.2, (detected,)


def test_another_person_near_a_lost_one_has_a_new_identity(fake, portrait):
    tracker, net, _ = fake(box_at(100, 100))
    a, b = portrait[60:190, 155:285], portrait[10:140, 10:140]
    shape = mean_face_in_crop()
    identities = []
    for frame in range(11):
        image = shot_frame()
        image[35:165, 35:165] = b if 3 < frame < 7 else a
        # A low confidence loses the tracked face, and rejects the detector's box.
        confidence = np.full(68, 0.05 if frame in (3, 7) else 0.9)
        net.predict = lambda crop, confidence=confidence: (shape, confidence)
        identities.append([face.identity for face in tracker.update(image)])
    # The frame of a loss is searched, and then one frame of three.
    assert identities == [[0]] * 3 + [[]] * 3 + [[1]] + [[]] * 3 + [[0]]


def test_what_hides_a_face_does_not_change_its_identity(fake, portrait):
    tracker, net, _ = fake(box_at(100, 100))
    seen, hiding = portrait[60:190, 155:285], portrait[10:140, 10:140]
    shape = mean_face_in_crop()
    for frame in range(24):
        hidden = 6 <= frame < 18
        image = shot_frame()
        image[35:165, 35:165] = hiding if hidden else seen
        confidence = np.full(68, 0.2 if hidden else 0.9)
        net.predict = lambda crop, confidence=confidence: (shape, confidence)
        assert [face.identity for face in tracker.update(image)] == [0]


def test_without_a_face_not_every_frame_is_searched(fake):
    tracker, net, detector = fake()
    for _ in range(2 * SEARCH_EVERY + 1):
        assert tracker.update(shot_frame((100, 100))) == []
    # The frame after a search is searched rotated by 90 degrees.
    assert detector.shapes == [(240, 320, 3), (320, 240, 3)] * 2 + [(240, 320, 3)]
    assert not net.calls
    detector.boxes = (box_at(100, 100),)
    counts = [len(tracker.update(shot_frame((100, 100)))) for _ in range(SEARCH_EVERY)]
    assert counts == [0] * (SEARCH_EVERY - 1) + [1]


def test_a_detection_that_the_network_does_not_confirm_is_no_face(fake):
    tracker, net, detector = fake(box_at(100, 100))
    assert tracker.update(shot_frame()) == []
    assert detector.searched == 1 and len(net.calls) == 1
    for _ in range(SEARCH_EVERY - 1):
        assert tracker.update(shot_frame((100, 100))) == []
    assert len(tracker.update(shot_frame((100, 100)))) == 1
    assert net.calls[-1].fresh


def test_a_new_shot_has_new_identities(fake):
    """Even for a face in the same position."""
    tracker, net, detector = fake(box_at(100, 100))
    tracker.update(shot_frame((100, 100)))
    (face,) = tracker.update(shot_frame((100, 100), scene=95 - SCENE))
    assert detector.searched == 2
    assert face.identity == 1
    assert net.calls[-1].fresh
    (face,) = tracker.update(shot_frame((100, 100), scene=95 - SCENE))
    assert (face.identity, detector.searched) == (1, 2)


def test_a_new_face_is_found_while_others_are_tracked(fake):
    """The search runs beside the network; its duration does not change the results."""
    tracker, _, detector = fake(box_at(60, 60), faces=4)
    detector.seconds = 0.05
    tracker.update(shot_frame((60, 60)))
    detector.boxes = (box_at(60, 60), box_at(200, 100))
    both = shot_frame((60, 60), (200, 100))
    counts = [len(tracker.update(both)) for _ in range(NEWCOMERS_EVERY + SEARCHED_BESIDE + 1)]
    before = NEWCOMERS_EVERY + SEARCHED_BESIDE - 1
    assert counts == [1] * before + [2] * 2
    assert detector.searched == 2
    assert [face.identity for face in tracker.update(both)] == [0, 1]


def test_one_of_two_faces_is_lost_and_found_again(fake):
    tracker, _, detector = fake(box_at(60, 60), box_at(200, 100), faces=2)
    tracker.update(shot_frame((60, 60), (200, 100)))
    detector.boxes = (box_at(60, 60),)
    for _ in range(5):
        assert [face.identity for face in tracker.update(shot_frame((60, 60)))] == [0]
    detector.boxes = (box_at(60, 60), box_at(210, 100))
    both = shot_frame((60, 60), (210, 100))
    faces = [tracker.update(both) for _ in range(2 * SEARCH_EVERY + SEARCHED_BESIDE)][-1]
    assert [face.identity for face in faces] == [0, 1]


def test_a_small_face_is_found_in_a_tile_within_a_second(fake):
    """The search of the whole frame is too coarse; each tile is searched once in a second."""
    tracker, _, detector = fake(box_at(100, 100), faces=2)
    frame = np.kron(shot_frame((100, 100)), np.ones((5, 5, 1), np.uint8))[:1080]
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
    # One search in three frames.
    assert len(detector.shapes) <= 1 + 25 / SEARCHED_BESIDE
    assert detector.shapes.count(frame.shape) <= 3


def test_a_large_face_is_more_prominent_than_a_small_one_with_a_higher_score():
    small = Detection(box_at(50, 50, 40), 2.0)
    large = Detection(box_at(150, 150, 120), 1.0)
    doubtful = Detection(box_at(150, 150, 200), 0.1)
    assert by_prominence([small, doubtful, large]) == [large, small, doubtful]
    assert by_prominence([]) == []
