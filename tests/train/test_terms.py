"""Single terms against NumPy, for landmarks with and without label."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from train.outputs import CROP, LABELLED, MAP, PEOPLE, TARGETS, TRUTH, some_output

from rednet_jax.landmarks.builtin import REDNET7
from rednet_jax.train.terms import (
    Targets,
    confidence_loss,
    coordinate_loss,
    detection_loss,
    detection_targets,
    disc_loss,
    face_unit,
    heat_map_loss,
    stability_loss,
)

SIDE = 20.0
"""Side of a face's box in crop pixels; not used by schemes with eye corners."""


def test_targets_sum_to_one_and_peak_at_landmarks():
    landmarks = jnp.asarray([[[2.0, 5.0], [6.0, 1.0]] + [[-50.0, 9.0]] * 5])
    labelled = jnp.ones((1, 7), bool).at[0, 1].set(False)
    target = np.asarray(detection_targets(landmarks, labelled, (9, 12), 1.0))
    assert target.shape == (1, 9, 12, 8)
    np.testing.assert_allclose(target.sum(-1), 1, atol=1e-6)
    assert (target >= 0).all()
    # The background has no share at a landmark.
    assert target[0, 5, 2, 1] == pytest.approx(1) and target[0, 5, 2, 0] == pytest.approx(0)
    assert target[0, 5, 3, 1] == pytest.approx(np.exp(-0.5))
    assert (target[..., 2] == 0).all(), "a point without label has a peak"
    assert target[0, 0, 11, 0] == pytest.approx(1)


def test_detection_loss_is_the_weighted_cross_entropy():
    output, share = some_output(), 0.5
    target = detection_targets(TARGETS.landmarks / 4, TARGETS.labelled, (MAP, MAP), 1.0)
    loss = np.asarray(detection_loss(output.logits, target, TARGETS.labelled, share))
    logits, target = np.asarray(output.logits, np.float64), np.asarray(target, np.float64)
    for face in range(3):
        classes = [0, *(1 + np.flatnonzero(LABELLED[face]))]
        log_p = scipy.special.log_softmax(logits[face][..., classes], axis=-1)
        goal = target[face][..., classes]
        peaks, background = goal[..., 1:].sum(), goal[..., 0].sum()
        weights = np.array([share * peaks / background] + [1.0] * (len(classes) - 1))
        expected = -(weights * goal * log_p).sum(-1) / max((1 + share) * peaks, 1)
        np.testing.assert_allclose(loss[face], expected, rtol=2e-5, atol=1e-7)
    assert loss[0].min() > 0 and loss[1].min() > 0 and (loss[2] == 0).all()


def test_the_background_has_its_share_at_any_resolution():
    landmarks, labelled = jnp.full((1, 7, 2), 15.5), jnp.ones((1, 7), bool)
    for size in (8, 16, 32):
        target = detection_targets(
            (landmarks + 0.5) * size / CROP - 0.5, labelled, (size,) * 2, 1.0
        )
        # Every class has probability 1 / 8, so a pixel's loss is log 8 times its weight.
        loss = detection_loss(jnp.zeros((1, size, size, 8)), target, labelled, 0.5)
        assert float(loss.sum()) == pytest.approx(np.log(8), rel=1e-4)


def test_landmarks_without_label_are_left_out_of_the_softmax():
    output = some_output()
    target = detection_targets(TARGETS.landmarks / 4, TARGETS.labelled, (MAP, MAP), 1.0)
    raised = output.logits.at[1, ..., 2].add(50.0)  # landmark 1, without label in face 1
    arguments = target, TARGETS.labelled, 0.5
    np.testing.assert_array_equal(
        detection_loss(output.logits, *arguments), detection_loss(raised, *arguments)
    )


def independent_maps():
    """Logits and discs [3, 9, 9, 7], with labels `LABELLED`."""
    rng = np.random.default_rng(4)
    return rng.normal(size=(3, 9, 9, 7)).astype(np.float32), rng.random((3, 9, 9, 7)) < 0.1


def cross_entropy(logits, target):
    p = scipy.special.expit(logits.astype(np.float64))
    target = np.asarray(target, np.float64)
    return -target * np.log(p) - (1 - target) * np.log(1 - p)


def test_heat_map_loss_is_the_cross_entropy_divided_by_the_peaks():
    logits, discs = independent_maps()
    target = 0.8 * discs + 0.1
    loss = np.asarray(heat_map_loss(jnp.asarray(logits), jnp.asarray(target), TARGETS.labelled))
    for face in range(3):
        known = LABELLED[face]
        expected = cross_entropy(logits[face], target[face]) / max(
            target[face][..., known].sum(), 1
        )
        np.testing.assert_allclose(loss[face][..., known], expected[..., known], rtol=1e-5)
        assert (loss[face][..., ~known] == 0).all()


def test_the_gradient_of_the_heat_map_loss_is_that_of_a_squared_error():
    logits, discs = independent_maps()
    target, everything = jnp.asarray(0.9 * discs), jnp.ones((3, 7), bool)
    gradient = jax.grad(lambda x: heat_map_loss(x, target, everything).sum())(jnp.asarray(logits))
    difference = scipy.special.expit(logits) - target
    peaks = np.asarray(target).sum((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(gradient, difference / peaks, atol=1e-7)


def test_disc_loss_weights_the_background_by_its_share():
    logits, discs = independent_maps()
    share = 0.4
    arguments = jnp.asarray(logits), jnp.asarray(discs), TARGETS.labelled, share
    loss = np.asarray(disc_loss(*arguments))
    for face in (0, 1):
        known = LABELLED[face]
        inside = discs[face][..., known].sum()
        outside = 81 * known.sum() - inside
        weight = np.where(discs[face], 1, share * inside / outside) / ((1 + share) * inside)
        expected = weight * cross_entropy(logits[face], discs[face])
        np.testing.assert_allclose(loss[face][..., known], expected[..., known], rtol=1e-5)
        assert (loss[face][..., ~known] == 0).all()
        # The sum of a face's weights is 1 at any resolution.
        assert weight[..., known].sum() == pytest.approx(1)
    assert (loss[2] == 0).all()


def wing(error, width, curvature):
    offset = width - width * np.log(1 + width / curvature)
    return np.where(error < width, width * np.log(1 + error / curvature), error - offset)


@pytest.mark.parametrize("form", ["l1", "wing"])
def test_coordinate_loss(form):
    points, unit = np.asarray(some_output().landmarks), np.array([10.0, 20.0, 40.0], np.float32)
    loss = coordinate_loss(
        jnp.asarray(points),
        TARGETS.landmarks,
        jnp.asarray(unit),
        form=form,
        wing_width=0.3,
        wing_curvature=0.07,
    )
    error = np.abs(points - TRUTH) / unit[:, None, None]
    expected = (wing(error, 0.3, 0.07) if form == "wing" else error).mean(-1)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    assert (error < 0.3).any() and (error > 0.3).any()


def test_confidence_loss_is_the_cross_entropy_of_being_correct():
    output, unit = some_output(), np.array([60.0, 80.0, 100.0])
    loss = confidence_loss(
        output.confidence_logits, output.landmarks, TARGETS.landmarks, jnp.asarray(unit), 0.1
    )
    distance = np.linalg.norm(np.asarray(output.landmarks) - TRUTH, axis=-1)
    correct = distance < 0.1 * unit[:, None]
    p = scipy.special.expit(np.asarray(output.confidence_logits, np.float64))
    np.testing.assert_allclose(loss, -np.log(np.where(correct, p, 1 - p)), rtol=1e-4)
    assert correct.any() and not correct.all()


def test_the_confidence_loss_has_no_gradient_by_landmarks():
    output = some_output()
    gradient = jax.grad(
        lambda landmarks: confidence_loss(
            output.confidence_logits, landmarks, TARGETS.landmarks, jnp.full(3, 100.0), 0.1
        ).sum()
    )(output.landmarks)
    assert (np.asarray(gradient) == 0).all()


def test_the_inter_ocular_distance_has_a_minimum_and_a_mask():
    landmarks = jnp.zeros((4, 7, 2)).at[0, 3].set([3.0, 4.0]).at[1, 3].set([0.1, 0.0])
    labelled = jnp.ones((4, 7), bool).at[2, 0].set(False)
    distance, known = face_unit(Targets(landmarks, labelled, PEOPLE), REDNET7, SIDE)
    np.testing.assert_allclose(distance, [5, 1, 1, 1])
    assert known.tolist() == [True, True, False, True]


def test_the_unit_of_a_scheme_without_eye_corners_is_the_side_of_the_box():
    boxed = dataclasses.replace(REDNET7, name="boxed7", normaliser="box")
    sides = jnp.asarray([9.0, 12.0, 30.0])
    length, known = face_unit(TARGETS, boxed, sides)
    np.testing.assert_array_equal(length, sides)
    assert known.tolist() == [True, True, False]
    np.testing.assert_array_equal(face_unit(TARGETS, boxed, 20.0)[0], [20, 20, 20])


def test_wrong_shapes_raise_errors():
    options = {"form": "l1", "wing_width": 0.1, "wing_curvature": 0.02}
    with pytest.raises(ValueError, match="shape"):
        coordinate_loss(jnp.zeros((3, 7, 2)), jnp.zeros((7, 2)), jnp.ones(3), **options)
    logits, discs = map(jnp.asarray, independent_maps())
    with pytest.raises(ValueError, match="shape"):
        heat_map_loss(logits, discs[..., :6].astype(jnp.float32), TARGETS.labelled)
    with pytest.raises(ValueError, match="shape"):
        disc_loss(logits, discs, TARGETS.labelled[:, :6], 1.0)


def some_clip():
    """Two clips of three frames, eye corners 10 px apart, with a constant error."""
    rng = np.random.default_rng(3)
    truth = np.tile(rng.uniform(4, 28, (2, 1, 7, 2)), (1, 3, 1, 1)) + np.arange(3)[:, None, None]
    truth[..., 0, :], truth[..., 3, :] = [[5, 8], [15, 8]]
    known = np.ones((2, 3, 7), bool)
    targets = Targets(jnp.asarray(truth), jnp.asarray(known), jnp.full((2, 3), -1))
    return jnp.asarray(truth + rng.normal(size=(2, 2, 1, 7, 2))), targets


def test_the_stability_loss_of_a_constant_error_is_0():
    landmarks, targets = some_clip()
    np.testing.assert_allclose(stability_loss(landmarks, targets, REDNET7, SIDE), 0, atol=1e-6)


def test_stability_is_the_change_of_the_error_in_inter_ocular_distances():
    landmarks, targets = some_clip()
    # One axis of one of seven landmarks changes by 3 px in the middle frame, in one of two passes.
    landmarks = landmarks.at[1, 0, 1, 5, 0].add(3.0)
    loss = np.asarray(stability_loss(landmarks, targets, REDNET7, SIDE))
    np.testing.assert_allclose(loss, [0.3 * 2 / (2 * 2 * 2 * 7), 0], rtol=1e-5, atol=1e-7)
    # Without a label of the landmark in that frame there is no change.
    hidden = targets._replace(labelled=targets.labelled.at[0, 1, 5].set(False))
    np.testing.assert_allclose(stability_loss(landmarks, hidden, REDNET7, SIDE), 0, atol=1e-6)
    # The same without labels of the eye corners.
    hidden = targets._replace(labelled=targets.labelled.at[0, 1, 0].set(False))
    np.testing.assert_allclose(stability_loss(landmarks, hidden, REDNET7, SIDE), 0, atol=1e-6)
