"""The losses of a pass against NumPy and finite differences, and for faces with few labels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from train.outputs import CROP, LABELLED, PEOPLE, TARGETS, TRUTH, some_output

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.builtin import REDNET7
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.losses import LossConfig, pass_losses
from rednet_jax.train.terms import Targets

MODEL = RedNetConfig.preset("compact", image_size=CROP, scheme=REDNET7)


def losses_of(config, output, targets=TARGETS):
    return pass_losses(config, MODEL)(output, targets)


def test_terms_against_numpy_and_their_weighted_sum():
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


def test_unit_crop_divides_by_the_side_of_the_crop():
    output = some_output()
    inter_ocular = np.linalg.norm(TRUTH[:, 0] - TRUTH[:, 3], axis=-1)
    eyes = losses_of(LossConfig(), output)["landmarks"]
    crop = losses_of(LossConfig(unit="crop"), output)["landmarks"]
    np.testing.assert_allclose(crop * CROP, eyes * inter_ocular, rtol=1e-4)


def test_without_eye_corners_only_terms_without_unit_are_trained():
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


@pytest.mark.parametrize("filler", [0.0, np.nan])
@pytest.mark.parametrize("form", ["l1", "wing"])
def test_a_face_without_labels_has_no_loss_and_no_gradient(form, filler):
    truth = jnp.where(TARGETS.labelled[..., None], TARGETS.landmarks, filler)
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
            difference = (total(up) - total(down)) / 2e-6
            expected = jnp.vdot(gradient[which], direction)
            assert float(difference) == pytest.approx(float(expected), rel=1e-6), name
            assert abs(float(expected)) > 1e-3, name


def test_wrong_shapes_raise_errors():
    targets = Targets(jnp.zeros((3, 68, 2)), jnp.ones((3, 68), bool), PEOPLE)
    with pytest.raises(ValueError, match="shape"):
        losses_of(LossConfig(), some_output(), targets)
    with pytest.raises(ValueError, match="shape"):
        losses_of(LossConfig(), some_output()._replace(logits=jnp.zeros((3, 8, 8, 7))))


@pytest.mark.parametrize(
    ("field", "value"),
    [("detection", -1.0), ("sigma", 0.0), ("wing_curvature", 0.0), ("correct_below", -0.1)],
)
def test_an_invalid_field_is_named(field, value):
    with pytest.raises(RednetError, match=f"losses.{field} .*{value}"):
        dataclasses.replace(LossConfig(), **{field: value})


def test_identity_is_the_cross_entropy_of_known_people():
    output = some_output()
    without, weighted = (losses_of(LossConfig(identity=weight), output) for weight in (0.0, 2.0))
    assert "identity" not in without
    expected = -scipy.special.log_softmax(np.asarray(output.identity_logits), axis=-1)
    expected = [expected[0, 1], 0, expected[2, 0]]
    np.testing.assert_allclose(weighted["identity"], expected, rtol=1e-5)
    difference = weighted["total"] - without["total"]
    np.testing.assert_allclose(difference, 2 * np.array(expected), rtol=1e-4)


def test_losses_of_bfloat16_outputs_are_float32():
    halves = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), some_output())
    whole = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), halves)
    for half, full in zip(
        losses_of(LossConfig(), halves).values(),
        losses_of(LossConfig(), whole).values(),
        strict=True,
    ):
        assert half.dtype == jnp.float32
        np.testing.assert_array_equal(half, full)
