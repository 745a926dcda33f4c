"""Losses against numpy, against finite differences, and on faces with few labels or none."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.schemes import LANDMARKS_7, LANDMARKS_68
from rednet_jax.model.network import PassOutput
from rednet_jax.train.losses import (
    LossConfig,
    Targets,
    confidence_loss,
    coordinate_loss,
    detection_loss,
    detection_targets,
    inter_ocular,
    pass_losses,
    stability_loss,
)

CROP, MAP = 32, 8
RNG = np.random.default_rng(0)
LABELLED = np.ones((3, 7), bool)
LABELLED[1, [1, 4]] = False
LABELLED[2] = False
TRUTH = RNG.uniform(4, 28, (3, 7, 2))
TRUTH[0, 5] = -3, 40  # beyond the crop
PEOPLE = jnp.asarray([1, -1, 0])
TARGETS = Targets(jnp.asarray(TRUTH, jnp.float32), jnp.asarray(LABELLED), PEOPLE)


def some_output(dtype=np.float32, batch=3, points=7):
    rng = np.random.default_rng(1)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=(batch, *shape)), dtype)

    logits = normal(MAP, MAP, points + 1)
    return PassOutput(
        logits=logits,
        response_maps=jax.nn.softmax(logits),
        map_landmarks=16 + 6 * normal(points, 2),
        landmarks=16 + 6 * normal(points, 2),
        confidence_logits=3 * normal(points),
        identity_logits=normal(2),
        coarse_logits=None,
    )


def losses_of(config, output, targets=TARGETS, scheme=LANDMARKS_7):
    return pass_losses(config, scheme, CROP)(output, targets)


def test_targets_sum_to_one_and_peak_at_their_points():
    landmarks = jnp.asarray([[[2.0, 5.0], [6.0, 1.0]] + [[-50.0, 9.0]] * 5])
    labelled = jnp.ones((1, 7), bool).at[0, 1].set(False)
    target = np.asarray(detection_targets(landmarks, labelled, (9, 12), 1.0))
    assert target.shape == (1, 9, 12, 8)
    np.testing.assert_allclose(target.sum(-1), 1, atol=1e-6)
    assert (target >= 0).all()
    # On the point itself nothing is left for the background.
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


def test_the_background_counts_its_share_at_any_resolution():
    landmarks, labelled = jnp.full((1, 7, 2), 15.5), jnp.ones((1, 7), bool)
    for size in (8, 16, 32):
        target = detection_targets(
            (landmarks + 0.5) * size / CROP - 0.5, labelled, (size,) * 2, 1.0
        )
        # Logits that give every class one eighth: each pixel costs log 8 times its weight.
        loss = detection_loss(jnp.zeros((1, size, size, 8)), target, labelled, 0.5)
        assert float(loss.sum()) == pytest.approx(np.log(8), rel=1e-4)


def test_a_class_without_label_takes_no_part_in_the_softmax():
    output = some_output()
    target = detection_targets(TARGETS.landmarks / 4, TARGETS.labelled, (MAP, MAP), 1.0)
    raised = output.logits.at[1, ..., 2].add(50.0)  # class 2 is point 1, not labelled on face 1
    arguments = target, TARGETS.labelled, 0.5
    np.testing.assert_array_equal(
        detection_loss(output.logits, *arguments), detection_loss(raised, *arguments)
    )


def wing(error, width, curvature):
    offset = width - width * np.log(1 + width / curvature)
    return np.where(error < width, width * np.log(1 + error / curvature), error - offset)


@pytest.mark.parametrize("form", ["l1", "wing"])
def test_coordinate_loss(form):
    config = LossConfig(coordinate=form, wing_width=0.3, wing_curvature=0.07)
    points, unit = np.asarray(some_output().landmarks), np.array([10.0, 20.0, 40.0], np.float32)
    loss = coordinate_loss(jnp.asarray(points), TARGETS.landmarks, jnp.asarray(unit), config)
    error = np.abs(points - TRUTH) / unit[:, None, None]
    expected = (wing(error, 0.3, 0.07) if form == "wing" else error).mean(-1)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    assert (error < 0.3).any() and (error > 0.3).any()


def test_confidence_loss_is_the_cross_entropy_of_being_within_reach():
    output, unit = some_output(), np.array([60.0, 80.0, 100.0])
    loss = confidence_loss(
        output.confidence_logits, output.landmarks, TARGETS.landmarks, jnp.asarray(unit), 0.1
    )
    distance = np.linalg.norm(np.asarray(output.landmarks) - TRUTH, axis=-1)
    right = distance < 0.1 * unit[:, None]
    p = scipy.special.expit(np.asarray(output.confidence_logits, np.float64))
    np.testing.assert_allclose(loss, -np.log(np.where(right, p, 1 - p)), rtol=1e-4)
    assert right.any() and not right.all()


def test_confidence_pulls_on_no_point():
    output = some_output()
    gradient = jax.grad(
        lambda landmarks: confidence_loss(
            output.confidence_logits, landmarks, TARGETS.landmarks, jnp.full(3, 100.0), 0.1
        ).sum()
    )(output.landmarks)
    assert (np.asarray(gradient) == 0).all()


def test_inter_ocular_has_a_floor_and_says_what_it_does_not_know():
    landmarks = jnp.zeros((4, 7, 2)).at[0, 3].set([3.0, 4.0]).at[1, 3].set([0.1, 0.0])
    labelled = jnp.ones((4, 7), bool).at[2, 0].set(False)
    distance, known = inter_ocular(Targets(landmarks, labelled, PEOPLE), LANDMARKS_7)
    np.testing.assert_allclose(distance, [5, 1, 1, 1])
    assert known.tolist() == [True, True, False, True]


def test_total_is_the_weighted_sum_of_terms_that_numpy_agrees_with():
    config = LossConfig(detection=0.3, map_landmarks=2, landmarks=5, confidence=0.7)
    output = some_output()
    losses = {name: np.asarray(value) for name, value in losses_of(config, output).items()}
    assert all(value.shape == (3,) for value in losses.values())
    np.testing.assert_allclose(
        losses["total"],
        sum(
            getattr(config, name) * losses[name] for name in losses if name not in ("total", "nme")
        ),
        rtol=1e-6,
    )
    for face in (0, 1):
        eyes = np.linalg.norm(TRUTH[face, 0] - TRUTH[face, 3])
        regressed = np.abs(np.asarray(output.landmarks)[face] - TRUTH[face]).mean(-1) / eyes
        mapped = np.abs(np.asarray(output.map_landmarks)[face] - TRUTH[face]).mean(-1) / eyes
        distance = np.linalg.norm(np.asarray(output.landmarks)[face] - TRUTH[face], axis=-1)
        known = LABELLED[face]
        inside = known & ((TRUTH[face] > -0.5) & (TRUTH[face] < CROP - 0.5)).all(-1)
        assert inside.sum() == (6, 5)[face]
        assert losses["landmarks"][face] == pytest.approx(regressed[known].mean(), rel=1e-4)
        assert losses["map_landmarks"][face] == pytest.approx(mapped[inside].mean(), rel=1e-4)
        assert losses["nme"][face] == pytest.approx(100 * distance[known].mean() / eyes, rel=1e-4)


def test_unit_crop_measures_in_sides_of_the_crop():
    output = some_output()
    apart = np.linalg.norm(TRUTH[:, 0] - TRUTH[:, 3], axis=-1)
    eyes = losses_of(LossConfig(), output)["landmarks"]
    crop = losses_of(LossConfig(unit="crop"), output)["landmarks"]
    np.testing.assert_allclose(crop * CROP, eyes * apart, rtol=1e-4)


def test_without_eye_corners_only_what_needs_no_unit_is_trained():
    labelled = TARGETS.labelled.at[0, 3].set(False)
    targets = TARGETS._replace(labelled=labelled)
    losses = losses_of(LossConfig(), some_output(), targets)
    assert float(losses["landmarks"][0]) == float(losses["confidence"][0]) == 0
    assert float(losses["detection"][0]) > 0 and np.isnan(losses["nme"][0])
    assert float(losses_of(LossConfig(unit="crop"), some_output(), targets)["landmarks"][0]) > 0


FIELDS = ("logits", "map_landmarks", "landmarks", "confidence_logits")


def gradients(config, output, targets):
    def total(values):
        replaced = output._replace(**dict(zip(FIELDS, values, strict=True)))
        return losses_of(config, replaced, targets)["total"].sum()

    return total, jax.grad(total)([getattr(output, name) for name in FIELDS])


@pytest.mark.parametrize("nothing", [0.0, np.nan])
@pytest.mark.parametrize("form", ["l1", "wing"])
def test_a_face_without_labels_costs_nothing_and_pulls_on_nothing(form, nothing):
    truth = jnp.where(TARGETS.labelled[..., None], TARGETS.landmarks, nothing)
    targets = TARGETS._replace(landmarks=truth)
    config = LossConfig(coordinate=form)
    losses = losses_of(config, some_output(), targets)
    assert float(losses["total"][2]) == 0
    assert np.isfinite(losses["total"]).all()
    _, gradient = gradients(config, some_output(), targets)
    for name, value in zip(FIELDS, gradient, strict=True):
        assert np.isfinite(value).all(), name
        assert (np.asarray(value[2]) == 0).all(), name
        assert (np.asarray(value[:2]) != 0).any(), name


@pytest.mark.parametrize("form", ["l1", "wing"])
def test_gradients_agree_with_finite_differences(form):
    with jax.enable_x64(True):
        targets = Targets(jnp.asarray(TRUTH, jnp.float64), jnp.asarray(LABELLED), PEOPLE)
        config = LossConfig(coordinate=form, wing_width=0.4, confidence=1.0)
        output = some_output(np.float64)
        total, gradient = gradients(config, output, targets)
        total = jax.jit(total)
        values = [getattr(output, name) for name in FIELDS]
        rng = np.random.default_rng(2)
        for which, name in enumerate(FIELDS):
            direction = jnp.asarray(rng.normal(size=values[which].shape))
            step = 1e-6 * direction
            up, down = list(values), list(values)
            up[which], down[which] = values[which] + step, values[which] - step
            measured = (total(up) - total(down)) / 2e-6
            expected = jnp.vdot(gradient[which], direction)
            assert float(measured) == pytest.approx(float(expected), rel=1e-6), name
            assert abs(float(expected)) > 1e-3, name


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="shape"):
        losses_of(
            LossConfig(),
            some_output(),
            scheme=LANDMARKS_68,
            targets=Targets(jnp.zeros((3, 68, 2)), jnp.ones((3, 68), bool), PEOPLE),
        )
    with pytest.raises(ValueError, match="shape"):
        coordinate_loss(jnp.zeros((3, 7, 2)), jnp.zeros((7, 2)), jnp.ones(3), LossConfig())


@pytest.mark.parametrize(
    ("field", "value"),
    [("detection", -1.0), ("sigma", 0.0), ("wing_curvature", 0.0), ("correct_below", -0.1)],
)
def test_a_config_that_cannot_be_is_refused_by_name(field, value):
    with pytest.raises(RednetError, match=f"losses.{field} .*{value}"):
        dataclasses.replace(LossConfig(), **{field: value})


def test_identity_is_a_cross_entropy_over_the_people_that_are_known():
    output = some_output()
    plain, told = (losses_of(LossConfig(identity=weight), output) for weight in (0.0, 2.0))
    assert "identity" not in plain
    expected = -scipy.special.log_softmax(np.asarray(output.identity_logits), axis=-1)
    expected = [expected[0, 1], 0, expected[2, 0]]
    np.testing.assert_allclose(told["identity"], expected, rtol=1e-5)
    np.testing.assert_allclose(told["total"] - plain["total"], 2 * np.array(expected), rtol=1e-4)


def test_losses_of_half_precision_are_float32():
    halves = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), some_output())
    whole = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), halves)
    for half, full in zip(
        losses_of(LossConfig(), halves).values(),
        losses_of(LossConfig(), whole).values(),
        strict=True,
    ):
        assert half.dtype == jnp.float32
        np.testing.assert_array_equal(half, full)


def some_clip():
    """Two clips of three frames, eyes 10 px apart, and an error that is the same in all frames."""
    truth = np.tile(RNG.uniform(4, 28, (2, 1, 7, 2)), (1, 3, 1, 1)) + np.arange(3)[:, None, None]
    truth[..., 0, :], truth[..., 3, :] = [[5, 8], [15, 8]]
    known = np.ones((2, 3, 7), bool)
    targets = Targets(jnp.asarray(truth), jnp.asarray(known), jnp.full((2, 3), -1))
    return jnp.asarray(truth + RNG.normal(size=(2, 2, 1, 7, 2))), targets


def test_an_error_that_stays_the_same_is_stable():
    landmarks, targets = some_clip()
    np.testing.assert_allclose(stability_loss(landmarks, targets, LANDMARKS_7), 0, atol=1e-6)


def test_instability_is_the_change_of_the_error_in_inter_ocular_distances():
    landmarks, targets = some_clip()
    # One axis of one point of seven jumps by 3 px in the middle frame, in one of two passes.
    landmarks = landmarks.at[1, 0, 1, 5, 0].add(3.0)
    loss = np.asarray(stability_loss(landmarks, targets, LANDMARKS_7))
    np.testing.assert_allclose(loss, [0.3 * 2 / (2 * 2 * 2 * 7), 0], rtol=1e-5, atol=1e-7)
    # Where the point has no label in that frame, nothing is known of a change.
    hidden = targets._replace(labelled=targets.labelled.at[0, 1, 5].set(False))
    np.testing.assert_allclose(stability_loss(landmarks, hidden, LANDMARKS_7), 0, atol=1e-6)
    # Nor where the eyes are not labelled.
    hidden = targets._replace(labelled=targets.labelled.at[0, 1, 0].set(False))
    np.testing.assert_allclose(stability_loss(landmarks, hidden, LANDMARKS_7), 0, atol=1e-6)
