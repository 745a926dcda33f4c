"""Metrics against cases counted by hand."""

import numpy as np
import pytest

from rednet_jax.evaluate.metrics import (
    cumulative_auc,
    face_errors,
    failure_rate,
    inter_ocular,
    jitter,
    measurable,
    point_errors,
)


def eyes_apart(distance, count=68):
    """Points on the origin, but for the outer corner of the left eye at (distance, 0)."""
    landmarks = np.zeros((count, 2))
    landmarks[45 if count == 68 else 3] = distance, 0
    return landmarks


def test_inter_ocular_is_the_distance_of_the_outer_corners():
    landmarks = np.zeros((2, 68, 2))
    landmarks[0, 36], landmarks[0, 45] = (1, 2), (4, 6)
    landmarks[1, 36], landmarks[1, 45] = (0, 0), (0, 7)
    np.testing.assert_allclose(inter_ocular(landmarks), [5, 7])


def test_errors_are_percent_of_the_true_distance_not_of_the_predicted_one():
    truth = eyes_apart(50)
    predicted = truth.copy()
    predicted[45] = 53, 4  # 5 px off, and farther from the other corner
    predicted[8] = 0, 10
    errors = point_errors(predicted, truth)
    np.testing.assert_allclose(errors[[45, 8, 0]], [10, 20, 0])
    assert face_errors(predicted, truth) == pytest.approx((10 + 20) / 68)


def test_seven_points():
    truth = eyes_apart(20, 7)
    predicted = truth + np.array([0.0, 1.0])
    np.testing.assert_allclose(point_errors(predicted, truth), [5.0] * 7)
    assert face_errors(predicted, truth) == pytest.approx(5)


def test_unlabelled_points_do_not_count_whatever_stands_there():
    truth = eyes_apart(50)
    labelled = np.ones(68, bool)
    labelled[10:30] = False
    predicted = truth.copy()
    predicted[0] = 3, 4
    predicted[10:20] = 1000
    predicted[20:30] = np.nan
    truth[15:25] = np.nan
    errors = point_errors(predicted, truth, labelled)
    assert np.isnan(errors[10:30]).all() and np.isfinite(np.delete(errors, range(10, 30))).all()
    assert face_errors(predicted, truth, labelled) == pytest.approx(10 / 48)


def test_a_labelled_point_without_answer_leaves_the_face_without_error():
    truth = np.stack([eyes_apart(50)] * 2)
    predicted = truth.copy()
    predicted[1, 7] = np.nan
    errors = face_errors(predicted, truth)
    assert errors[0] == 0 and np.isnan(errors[1])


@pytest.mark.parametrize("corner", [36, 45])
def test_a_face_without_an_eye_corner_cannot_be_measured(corner):
    labelled = np.ones((2, 68), bool)
    labelled[1, corner] = False
    truth = np.stack([eyes_apart(50)] * 2)
    assert measurable(labelled).tolist() == [True, False]
    errors = face_errors(truth + 1, truth, labelled)
    assert errors[0] == pytest.approx(2 * 2**0.5) and np.isnan(errors[1])
    assert np.isnan(point_errors(truth + 1, truth, labelled)[1]).all()


@pytest.mark.filterwarnings("error")
def test_a_face_without_labels_is_nan_without_a_warning():
    truth = eyes_apart(50)
    assert np.isnan(face_errors(truth, truth, np.zeros(68, bool)))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shape"):
        face_errors(np.zeros((3, 68, 2)), np.zeros((68, 2)))


def test_failure_rate_counts_what_is_above_the_cut_and_what_has_no_answer():
    errors = np.array([2.0, 8.0, 8.5, np.nan])
    assert failure_rate(errors, 8) == 50
    assert failure_rate(errors[:2], 8) == 0
    assert failure_rate(errors[3:], 8) == 100


def test_auc_is_the_area_under_the_cumulative_curve():
    # A quarter of the faces below every cut from 2, a half from 4, three quarters from 6:
    # (2 * 1/4 + 2 * 1/2 + 2 * 3/4) / 8.
    assert cumulative_auc(np.array([2.0, 4.0, 6.0, 9.0]), 8) == pytest.approx(100 * 3 / 8)
    assert cumulative_auc(np.zeros(3), 8) == 100
    assert cumulative_auc(np.array([8.0, 50.0]), 8) == 0
    assert cumulative_auc(np.array([4.0, np.nan]), 8) == 25


def test_auc_agrees_with_a_fine_histogram():
    errors = np.random.default_rng(0).gamma(4, 1.2, 500)
    cuts = np.linspace(0, 8, 20_001)
    curve = np.searchsorted(np.sort(errors), cuts, side="right") / len(errors)
    assert cumulative_auc(errors, 8) == pytest.approx(100 * np.trapezoid(curve, cuts) / 8, abs=0.01)


def test_jitter_of_known_tracks():
    still = np.repeat(eyes_apart(50)[None], 6, axis=0)
    steady = still + np.arange(6)[:, None, None] * [2.0, -1.0]
    shaken = still + np.where(np.arange(6) % 2, 1.0, 0.0)[:, None, None] * [3.0, 4.0]
    assert jitter(still) == 0
    assert jitter(steady) == pytest.approx(0, abs=1e-9)
    # 5 px there and 5 px back: |second difference| = 10 px of 50.
    assert jitter(shaken) == pytest.approx(20)


def test_jitter_leaves_out_frames_without_answer_and_their_neighbours():
    track = np.repeat(eyes_apart(50)[None], 9, axis=0)
    track[2] = np.nan
    track[6] += [0.0, 5.0]
    # Frames 4 to 7 have both neighbours; 5, 6, 7 see the jump as 5, 10 and 5 px.
    assert jitter(track) == pytest.approx(100 * (0 + 5 + 10 + 5) / 4 / 50)
    assert np.isnan(jitter(track[:4]))
    assert np.isnan(jitter(track[:2]))
