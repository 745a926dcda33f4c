"""Tracked faces: their crops, rolls and batches."""

from __future__ import annotations

import numpy as np
import pytest
from inference.fake_tracker import SIDE, FakeDetector, FakeNetwork, box_at, middle, shot_frame

from rednet_jax.detection.detector import POINTS, Detection
from rednet_jax.inference import streams
from rednet_jax.inference.schedule import NEWCOMERS_EVERY
from rednet_jax.inference.tracker import (
    HIDDEN_ABOVE,
    HIDDEN_FRAMES,
    SURE_ABOVE,
    Tracker,
)
from rednet_jax.landmarks.boxes import face_roll, landmark_box
from rednet_jax.landmarks.builtin import IBUG68, REDNET7
from rednet_jax.landmarks.crops import apply_affine, crop_transform


def test_a_moving_face_is_followed_without_the_detector(fake):
    tracker, net, detector = fake(box_at(100, 100))
    for step in range(15):
        x, y = 100 + 6 * step, 100 + 3 * step
        (face,) = tracker.update(shot_frame((x, y)))
        np.testing.assert_allclose((face.box[:2] + face.box[2:]) / 2, [x, y], atol=10)
        np.testing.assert_allclose(middle(face), [x, y], atol=2)
        assert face.confidence == pytest.approx(np.full(68, 0.9))
        assert face.identity == 0
    assert detector.searched == 1
    assert [call.fresh for call in net.calls] == [True] + [False] * 14


def test_a_face_that_moved_far_gets_a_second_look(fake):
    """The second crop is around the landmarks of the first, with the state of the last frame."""
    tracker, net, detector = fake(box_at(100, 100))
    (first,) = tracker.update(shot_frame((100, 100)))
    (moved,) = tracker.update(shot_frame((118, 100)))
    assert detector.searched == 1
    assert [call.fresh for call in net.calls] == [True, False, False]
    np.testing.assert_allclose(middle(moved), [118, 100], atol=2)
    np.testing.assert_allclose((first.box[:2] + first.box[2:]) / 2, [100, 100], atol=2)
    # The warp shifts by 18 px of the frame, here in pixels of the crop.
    shift = 18 * 64 / (1.25 * SIDE)
    np.testing.assert_allclose(net.calls[2].warp[:, 2], [shift, 0], atol=3)


def test_the_first_look_is_kept_if_the_second_finds_no_face(fake):
    """The face is near the edge of the first crop; the network fails in the second crop."""
    tracker, net, detector = fake(box_at(100, 100))
    tracker.update(shot_frame((100, 100)))
    predict = net.predict
    net.predict = lambda crop: predict(crop if len(net.batches) < 3 else np.zeros_like(crop))
    (face,) = tracker.update(shot_frame((118, 100)))
    np.testing.assert_allclose(middle(face), [118, 100], atol=2)
    assert (face.identity, detector.searched, len(net.calls)) == (0, 1, 3)


def test_two_looks_at_a_frame_advance_the_state_once(network, portrait):
    """The state after the second look equals that after only the second look."""
    config, variables = network
    both, second = (streams.Streams(config, variables, 1, feedback_steps=1) for _ in range(2))
    start, first_region, second_region = (
        streams.Region(np.array([170, 70, 270, 170], np.float32) + np.float32(shift))
        for shift in (0, 8, 20)
    )
    for looks in (both, second):
        looks.keep(0, looks.look(portrait, {0: start})[0])
    both.look(portrait, {0: first_region})
    for looks in (both, second):
        looks.keep(0, looks.look(portrait, {0: second_region})[0])
    after = [looks.look(portrait, {0: second_region})[0] for looks in (both, second)]
    np.testing.assert_array_equal(after[0].landmarks, after[1].landmarks)
    assert [int(looks._state.passes[looks._kept[0].slot]) for looks in (both, second)] == [2, 2]


def test_the_warp_maps_the_new_crop_to_the_old_one(fake, network):
    """A pixel of the new crop and its image in the old crop have the same frame coordinates."""
    tracker, net, _ = fake(box_at(100, 100))
    config = network[0]
    faces = [tracker.update(shot_frame((100 + 7 * step, 100 - 3 * step)))[0] for step in range(4)]
    crops = [
        crop_transform(face.box, margin=config.crop_margin, size=config.image_size)
        for face in faces
    ]
    np.testing.assert_allclose(net.calls[0].warp, np.eye(2, 3), atol=1e-6)
    grid = np.array([[0, 0], [63, 0], [5, 63], [31.5, 20]])
    for old, new, call in zip(crops, crops[1:], net.calls[1:], strict=False):
        assert call.warp.dtype == np.float32
        assert np.abs(call.warp - np.eye(2, 3)).max() > 0.5
        np.testing.assert_allclose(
            apply_affine(old, apply_affine(call.warp, grid)), apply_affine(new, grid), atol=1e-3
        )


def test_the_crop_is_around_the_last_landmarks(fake):
    tracker, _, _ = fake(box_at(100, 100))
    (first,) = tracker.update(shot_frame((100, 100)))
    np.testing.assert_array_equal(first.box, box_at(100, 100))
    (second,) = tracker.update(shot_frame((104, 100)))
    np.testing.assert_array_equal(second.box, landmark_box(first.landmarks))


def test_crops_of_seven_landmarks_are_around_the_whole_face(narrow, network, monkeypatch):
    monkeypatch.setattr(streams, "_compiled_step", lambda: FakeNetwork(REDNET7))
    config = narrow("compact", scheme=REDNET7)
    tracker = Tracker((config, network[1]), detector=FakeDetector(box_at(100, 100)))
    for step in range(12):
        x, y = 100 + 4 * step, 100 + 2 * step
        (face,) = tracker.update(shot_frame((x, y)))
        assert face.landmarks.shape == (7, 2) and face.identity == 0
        side = (face.box[2:] - face.box[:2]).max()
        np.testing.assert_allclose(side, SIDE, rtol=0.12)
        np.testing.assert_allclose((face.box[:2] + face.box[2:]) / 2, [x, y], atol=6)


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
def test_implausible_landmarks_are_no_face(fake, points):
    tracker, net, _ = fake(box_at(100, 100))
    net.predict = lambda crop: (points, np.ones(68))
    assert tracker.update(shot_frame((100, 100))) == []


def test_a_confidence_of_nan_is_no_face(fake):
    tracker, net, _ = fake(box_at(100, 100))
    net.predict = lambda crop: (IBUG68.shape * 60 + 32, np.full(68, np.nan))
    assert tracker.update(shot_frame((100, 100))) == []


def test_reset_drops_all_faces(fake):
    tracker, net, detector = fake(box_at(100, 100))
    tracker.update(shot_frame((100, 100)))
    tracker.reset()
    (face,) = tracker.update(shot_frame((100, 100)))
    assert detector.searched == 2
    assert net.calls[-1].fresh
    assert face.identity == 0


def test_the_faces_of_a_frame_are_one_batch_and_keep_their_identities(fake):
    tracker, net, detector = fake(box_at(60, 60), box_at(200, 60), box_at(60, 180), faces=3)
    for step in range(12):
        centres = [(60 + 5 * step, 60), (200 + 5 * step, 60), (60, 180 - step)]
        faces = tracker.update(shot_frame(*centres))
        assert [face.identity for face in faces] == [0, 1, 2]
        for face, centre in zip(faces, centres, strict=True):
            np.testing.assert_allclose(middle(face), centre, atol=2)
    assert net.batches == [3] * 12
    assert detector.searched == 1


def test_at_most_the_given_number_of_faces_is_tracked(fake):
    tracker, _, _ = fake(box_at(60, 60), box_at(200, 60), box_at(60, 180), faces=2)
    for _ in range(NEWCOMERS_EVERY + 5):
        faces = tracker.update(shot_frame((60, 60), (200, 60), (60, 180)))
        assert [face.identity for face in faces] == [0, 1]


def test_the_older_of_two_tracks_that_converge_is_kept(fake, monkeypatch):
    constant = np.where(np.arange(768) % 2, 1, -1).astype(np.float32)
    monkeypatch.setattr(Tracker, "_thumbnail", lambda tracker, look: constant)
    tracker, _, _ = fake(box_at(60, 60), box_at(160, 60), faces=2)
    assert len(tracker.update(shot_frame((60, 60), (160, 60)))) == 2
    for x in (150, 140, 130, 120, 110, 100, 90, 80, 70, 62):
        faces = tracker.update(shot_frame((60, 60), (x, 60)))
    assert [face.identity for face in faces] == [0]


def test_batches_are_padded_to_a_few_sizes(fake):
    centres = [(60, 60), (160, 60), (260, 60), (60, 180), (160, 180)]
    tracker, net, _ = fake(*(box_at(*centre) for centre in centres[:3]), faces=5)
    tracker.update(shot_frame(*centres[:3]))
    assert net.batches == [4]
    tracker.reset()
    tracker._searches._detector.boxes = tuple(box_at(*centre) for centre in centres)
    tracker.update(shot_frame(*centres))
    assert net.batches == [4, 5]


def test_the_crop_of_a_rolled_face_is_upright(fake):
    """The roll is that of the detector's points in the first frame, then of the landmarks."""
    tracker, net, detector = fake(box_at(100, 100))
    turn = np.array([[0, 1], [-1, 0]])
    detector.detect = lambda image: [
        Detection(box_at(100, 100), 1.0, np.float32(POINTS @ turn * 60 + 100))
    ]
    for step in range(4):
        centre = (100 + 4 * step, 100)
        (face,) = tracker.update(shot_frame(centre))
        np.testing.assert_allclose(middle(face), centre, atol=3)
        # The fake network predicts an upright face in the crop, which is rolled in the frame.
        assert face_roll(face.landmarks, IBUG68) == pytest.approx(np.pi / 2, abs=0.01)
    assert len(net.calls) == 4


def test_a_face_is_rotated_if_the_detector_finds_it_upside_down(fake):
    """The network is confident of upright crops: the square's lower half is brighter."""
    tracker, net, detector = fake(box_at(100, 100))
    turn = np.array([[-1, 0], [0, -1]])
    detector.detect = lambda image: [
        Detection(box_at(100, 100), 1.0, np.float32(POINTS @ turn * 60 + 100))
    ]
    predict = net.predict

    def confident_if_upright(crop):
        points, confidence = predict(crop)
        lower = np.argwhere(crop[..., 0] > 230)
        upright = len(lower) and lower[:, 0].mean() > np.argwhere(crop[..., 0] > 150)[:, 0].mean()
        return points, confidence if upright else confidence * 0.4

    net.predict = confident_if_upright
    image = shot_frame((100, 100))
    image[100:117, 84:117] = 250
    for _ in range(3):
        (face,) = tracker.update(image)
        assert abs(face_roll(face.landmarks, IBUG68)) < 0.01
    assert [call.fresh for call in net.calls] == [True, True, False, False]


def test_a_hidden_face_is_tracked_for_half_a_second(fake):
    """The square moves on; the network sees it with a low confidence."""
    tracker, net, detector = fake(box_at(100, 100))
    predict = net.predict
    tracker.update(shot_frame((100, 100)))
    detector.boxes = ()
    net.predict = lambda crop: (predict(crop)[0], np.full(68, 0.2))
    for frame in range(HIDDEN_FRAMES):
        (face,) = tracker.update(shot_frame((102 + 2 * frame, 100)))
        assert face.identity == 0 and face.confidence.mean() < SURE_ABOVE
        np.testing.assert_allclose(middle(face), [102 + 2 * frame, 100], atol=3)
    assert tracker.update(shot_frame((132, 100))) == []


def test_the_detector_finds_a_hidden_face_again(fake):
    """The crop was beside the face: around the detection, the network is confident."""
    tracker, net, detector = fake(box_at(100, 100))
    predict = net.predict
    tracker.update(shot_frame((100, 100)))

    def confident_if_centred(crop):
        points, confidence = predict(crop)
        x, y = np.abs(points.mean(0) - (len(crop) - 1) / 2)
        return points, confidence if max(x, y) < 6 else confidence * 0.2

    net.predict = confident_if_centred
    for frame in range(4):
        x = 100 + 16 * frame
        detector.boxes = (box_at(x, 100),)
        (face,) = tracker.update(shot_frame((x, 100)))
        assert face.identity == 0 and face.confidence.mean() > SURE_ABOVE
        np.testing.assert_allclose(middle(face), [x, 100], atol=3)


def test_a_face_that_is_seen_in_between_is_hidden_anew(fake):
    tracker, net, _ = fake(box_at(100, 100))
    predict = net.predict
    for frame in range(3 * HIDDEN_FRAMES):
        confidence = 0.9 if frame % HIDDEN_FRAMES == 0 else 0.2
        net.predict = lambda crop, mean=confidence: (predict(crop)[0], np.full(68, mean))
        assert [face.identity for face in tracker.update(shot_frame((100, 100)))] == [0]


def test_a_very_low_confidence_loses_a_face_at_once(fake):
    tracker, net, _ = fake(box_at(100, 100))
    predict = net.predict
    tracker.update(shot_frame((100, 100)))
    net.predict = lambda crop: (predict(crop)[0], np.full(68, HIDDEN_ABOVE - 0.01))
    assert tracker.update(shot_frame((100, 100))) == []


def test_the_crop_follows_only_large_rolls(fake):
    tracker, net, _ = fake(box_at(100, 100))
    predict, rolls = net.predict, [0.0, 0.2, 0.3, 0.6, 0.7]
    crop_rolls = []
    for roll in rolls:

        def rolled(crop, roll=roll):
            points, confidence = predict(crop)
            off = roll - (tracker._tracks[0].region.roll if tracker._tracks else 0.0)
            centre = points.mean(0)
            cosine, sine = np.cos(off), np.sin(off)
            return (points - centre) @ np.array([[cosine, sine], [-sine, cosine]]) + centre, (
                confidence
            )

        net.predict = rolled
        (face,) = tracker.update(shot_frame((100, 100)))
        assert face_roll(face.landmarks, IBUG68) == pytest.approx(roll, abs=0.02)
        crop_rolls.append(tracker._tracks[0].region.roll)
    assert crop_rolls == pytest.approx([0, 0, 0, 0.6, 0.6], abs=0.02)
