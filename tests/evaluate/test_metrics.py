"""Metrics compared with cases computed by hand."""

import numpy as np
import pytest

from rednet_jax.errors import RednetError
from rednet_jax.evaluate.metrics import (
    error_jitter,
    face_errors,
    frame_jitter,
    jitter,
    part_errors,
    point_errors,
)
from rednet_jax.landmarks.builtin import IBUG68, REDNET7
from rednet_jax.landmarks.normalisers import face_lengths, inner_landmarks, measurable


def eyes_apart(distance, count=68):
    """Returns points at the origin, except the left outer eye corner at (distance, 0)."""
    landmarks = np.zeros((count, 2))
    landmarks[45 if count == 68 else 3] = distance, 0
    return landmarks


def test_inter_ocular_is_the_distance_of_the_outer_corners():
    landmarks = np.zeros((2, 68, 2))
    landmarks[0, 36], landmarks[0, 45] = (1, 2), (4, 6)
    landmarks[1, 36], landmarks[1, 45] = (0, 0), (0, 7)
    np.testing.assert_allclose(face_lengths(landmarks, IBUG68), [5, 7])
    np.testing.assert_allclose(face_lengths(landmarks, IBUG68, "inter-ocular"), [5, 7])


def test_errors_are_percent_of_the_true_distance():
    truth = eyes_apart(50)
    predicted = truth.copy()
    predicted[45] = 53, 4  # 5 px off, and farther from the other corner
    predicted[8] = 0, 10
    errors = point_errors(predicted, truth, IBUG68)
    np.testing.assert_allclose(errors[[45, 8, 0]], [10, 20, 0])
    assert face_errors(predicted, truth, IBUG68) == pytest.approx((10 + 20) / 68)


def test_seven_points():
    truth = eyes_apart(20, 7)
    predicted = truth + np.array([0.0, 1.0])
    np.testing.assert_allclose(point_errors(predicted, truth, REDNET7), [5.0] * 7)
    assert face_errors(predicted, truth, REDNET7) == pytest.approx(5)


def test_unlabelled_points_are_excluded():
    truth = eyes_apart(50)
    labelled = np.ones(68, bool)
    labelled[10:30] = False
    predicted = truth.copy()
    predicted[0] = 3, 4
    predicted[10:20] = 1000
    predicted[20:30] = np.nan
    truth[15:25] = np.nan
    errors = point_errors(predicted, truth, IBUG68, labelled)
    assert np.isnan(errors[10:30]).all() and np.isfinite(np.delete(errors, range(10, 30))).all()
    assert face_errors(predicted, truth, IBUG68, labelled) == pytest.approx(10 / 48)


def test_a_face_with_a_missing_prediction_is_nan():
    truth = np.stack([eyes_apart(50)] * 2)
    predicted = truth.copy()
    predicted[1, 7] = np.nan
    errors = face_errors(predicted, truth, IBUG68)
    assert errors[0] == 0 and np.isnan(errors[1])


@pytest.mark.parametrize("corner", [36, 45])
def test_a_face_without_an_eye_corner_cannot_be_measured(corner):
    labelled = np.ones((2, 68), bool)
    labelled[1, corner] = False
    truth = np.stack([eyes_apart(50)] * 2)
    assert measurable(labelled, IBUG68).tolist() == [True, False]
    errors = face_errors(truth + 1, truth, IBUG68, labelled)
    assert errors[0] == pytest.approx(2 * 2**0.5) and np.isnan(errors[1])
    assert np.isnan(point_errors(truth + 1, truth, IBUG68, labelled)[1]).all()


@pytest.mark.filterwarnings("error")
def test_a_face_without_labels_is_nan_without_a_warning():
    truth = eyes_apart(50)
    assert np.isnan(face_errors(truth, truth, IBUG68, np.zeros(68, bool)))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shape"):
        face_errors(np.zeros((3, 68, 2)), np.zeros((68, 2)), IBUG68)


def face_of_known_lengths():
    """Returns a face with an inter-ocular distance of 50 px, 30 between the pupils, 60 x 80 box."""
    face = np.full((68, 2), 30.0)
    face[36:42] = (5, 50), (10, 50), (15, 50), (25, 50), (20, 50), (15, 50)
    face[42:48] = (35, 50), (40, 50), (45, 50), (55, 50), (50, 50), (45, 50)
    face[0], face[8] = (0, 30), (60, 80)
    face[20] = 30, 0
    return face


@pytest.mark.parametrize(
    ("normaliser", "length"),
    [("inter-ocular", 50), ("inter-pupil", 30), ("box-diagonal", 100), ("box", 4800**0.5)],
)
def test_each_normaliser_is_a_length_of_the_true_face(normaliser, length):
    truth = face_of_known_lengths()
    assert face_lengths(truth, IBUG68, normaliser) == pytest.approx(length)
    predicted = truth.copy()
    predicted[45] += 3, 4  # changes the predicted face's lengths, which must not matter
    predicted[8] += 0, 10
    errors = point_errors(predicted, truth, IBUG68, normaliser=normaliser)
    assert errors[45] == pytest.approx(500 / length) and errors[8] == pytest.approx(1000 / length)
    whole = face_errors(predicted, truth, IBUG68, normaliser=normaliser)
    assert whole == pytest.approx(1500 / length / 68)


@pytest.mark.parametrize(
    ("normaliser", "needed"),
    [
        ("inter-ocular", {36, 45}),
        ("inter-pupil", set(range(36, 48))),
        ("box-diagonal", set(range(68))),
    ],
)
def test_a_face_is_measurable_with_the_labels_of_its_normaliser(normaliser, needed):
    truth = np.stack([face_of_known_lengths()] * 68)
    labelled = ~np.eye(68, dtype=bool)  # face i lacks point i
    known = measurable(labelled, IBUG68, normaliser)
    assert {int(i) for i in np.flatnonzero(~known)} == needed
    errors = face_errors(truth + 1, truth, IBUG68, labelled, normaliser)
    np.testing.assert_array_equal(np.isnan(errors), ~known)


def test_normalisers_that_seven_points_do_not_have_raise():
    messages = {
        "inter-pupil": "scheme rednet7 has no closed parts 'right_eye' and 'left_eye'",
        "box-diagonal": "the landmarks of scheme rednet7 do not span the face's box",
    }
    for normaliser, reason in messages.items():
        with pytest.raises(RednetError, match=reason):
            point_errors(np.zeros((7, 2)), np.zeros((7, 2)), REDNET7, normaliser=normaliser)
        with pytest.raises(RednetError, match=reason):
            measurable(np.ones(7, bool), REDNET7, normaliser)


def test_inner_landmarks_exclude_the_jaw():
    assert inner_landmarks(IBUG68) == list(range(17, 68))
    assert inner_landmarks(REDNET7) == list(range(7))


@pytest.mark.filterwarnings("error")
def test_errors_of_parts():
    truth = np.stack([eyes_apart(50)] * 3)
    predicted = truth.copy()
    predicted[:, 8] += 0, 10  # 20 % of one of the 17 points of the jaw
    predicted[:, 60] += 3, 4
    labelled = np.ones((3, 68), bool)
    labelled[1, :8] = False  # 9 points of the jaw remain
    labelled[1, 60:68] = False
    labelled[2, :17] = False
    predicted[2, 30] = np.nan
    errors = part_errors(predicted, truth, IBUG68, labelled)
    np.testing.assert_allclose(errors["jaw"], [20 / 17, 20 / 9, np.nan])
    np.testing.assert_allclose(errors["mouth"], [10 / 20, 0, 10 / 20])
    np.testing.assert_allclose(errors["nose"], [0, 0, np.nan])
    np.testing.assert_allclose(errors["eyes"], [0, 0, 0])
    whole = face_errors(predicted[0], truth[0], IBUG68)
    weighted = sum(len(IBUG68.regions[part]) * nme[0] for part, nme in errors.items()) / 68
    assert whole == pytest.approx(weighted)


def test_jitter_of_known_tracks():
    still = np.repeat(eyes_apart(50)[None], 6, axis=0)
    steady = still + np.arange(6)[:, None, None] * [2.0, -1.0]
    shaken = still + np.where(np.arange(6) % 2, 1.0, 0.0)[:, None, None] * [3.0, 4.0]
    assert jitter(still, IBUG68) == 0
    assert jitter(steady, IBUG68) == pytest.approx(0, abs=1e-9)
    # 5 px forth and back: |second difference| = 10 px of 50.
    assert jitter(shaken, IBUG68) == pytest.approx(20)


def test_jitter_excludes_nan_frames_and_their_neighbours():
    track = np.repeat(eyes_apart(50)[None], 9, axis=0)
    track[2] = np.nan
    track[6] += [0.0, 5.0]
    # Frames 4 to 7 have both neighbours; the jump contributes 5, 10 and 5 px to 5, 6, 7.
    assert jitter(track, IBUG68) == pytest.approx(100 * (0 + 5 + 10 + 5) / 4 / 50)
    assert np.isnan(jitter(track[:4], IBUG68))
    assert np.isnan(jitter(track[:2], IBUG68))


def test_jitter_of_each_frame():
    track = np.repeat(eyes_apart(50)[None], 9, axis=0)
    track[2] = np.nan
    track[6] += [0.0, 5.0]
    expected = np.array([np.nan] * 4 + [0, 10, 20, 10, np.nan])
    np.testing.assert_allclose(frame_jitter(track, IBUG68), expected, atol=1e-9)
    assert np.nanmean(expected) == pytest.approx(jitter(track, IBUG68))
    assert np.isnan(frame_jitter(track[:2], IBUG68)).tolist() == [True, True]
    assert np.isnan(frame_jitter(track[:1], IBUG68)).tolist() == [True]


def test_error_jitter_is_the_jitter_of_the_difference_to_the_truth():
    rng = np.random.default_rng(0)
    truth = np.repeat(eyes_apart(50)[None], 8, axis=0) + rng.normal(0, 20, (8, 1, 2))
    truth[4:] *= 2  # the face becomes larger
    still_wrong = truth + np.array([3.0, -7.0])
    np.testing.assert_allclose(error_jitter(still_wrong, truth, IBUG68)[1:-1], 0, atol=1e-9)
    shaken = truth.copy()
    shaken[5] += [3.0, 4.0]
    expected = [np.nan, 0, 0, 0, 5, 10, 5, np.nan]
    np.testing.assert_allclose(error_jitter(shaken, truth, IBUG68), expected, atol=1e-9)
    # Neighbours of nan frames and of unlabelled points are excluded, too.
    shaken[1] = np.nan
    labelled = np.ones(truth.shape[:-1], bool)
    labelled[6, 10:20] = False
    shaken[6, 10:20] = 1e6
    expected = [np.nan, np.nan, np.nan, 0, 5, 10, 5, np.nan]
    np.testing.assert_allclose(error_jitter(shaken, truth, IBUG68, labelled), expected, atol=1e-9)
    # One of 68 points moves forth and back by 10 px of 50.
    moved = truth.copy()
    moved[2, 3] += [0.0, 10.0]
    assert error_jitter(moved, truth, IBUG68)[2] == pytest.approx(40 / 68)


def test_jitter_agrees_with_numpys_second_difference():
    rng = np.random.default_rng(0)
    track = face_of_known_lengths() + rng.normal(0, 1, (20, 68, 2))
    size = np.linalg.norm(track[:, 36] - track[:, 45], axis=-1)[1:-1, None]
    theirs = np.linalg.norm(np.diff(track, 2, axis=0), axis=-1) / size
    assert jitter(track, IBUG68) == pytest.approx(100 * theirs.mean())
