"""Re-crops between passes: their position, and the resampling of the state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as arrays
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.loops import SCANS, SLOW_DEEP, Problem

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.crops import apply_affine, compose_affine, invert_affine
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.feedback import move
from rednet_jax.model.recrop import crop_images, first_crop, next_crop, relative_transform

Narrow = Callable[..., RedNetConfig]

RECROPS = {"recrop": "similarity", "context": 1.5, "recrop_margin": 1.2}
CONFIG = RedNetConfig.preset("compact", **RECROPS)
SHAPE = IBUG68.shape * (128 / 1.2) + 63.5


def similarity(angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cosine, -sine, shift[0]], [sine, cosine, shift[1]]])


@given(
    angle=st.floats(-3, 3),
    scale=st.floats(0.5, 2),
    shift=st.tuples(st.floats(-10, 60), st.floats(-10, 60)),
)
def test_the_crop_aligns_a_transformed_mean_shape(
    angle: float, scale: float, shift: tuple[float, float]
) -> None:
    placed = similarity(angle, scale, shift)
    points = apply_affine(placed, SHAPE)
    if not ((points.mean(0) >= 0) & (points.mean(0) <= CONFIG.input_size - 1)).all():
        return
    crop = next_crop(CONFIG, jnp.asarray(points[None], "float32"))[0]
    np.testing.assert_allclose(crop, placed, atol=2e-3)


PLACED = st.builds(
    similarity,
    st.floats(-3, 3),
    st.floats(0.3, 3.5),
    st.tuples(st.floats(-100, 200), st.floats(-100, 200)),
)


@given(placed=PLACED)
def test_resampling_into_the_same_crop_is_exactly_the_identity(placed: np.ndarray) -> None:
    """Not only up to rounding: off a pixel centre, index and weight may be of different pixels."""
    crop = jnp.asarray(placed[None], "float32")
    identity = relative_transform(crop, crop)
    np.testing.assert_array_equal(identity, [[[1, 0, 0], [0, 1, 0]]])
    maps = jax.random.normal(jax.random.key(0), (1, 4, 4, 2))
    np.testing.assert_array_equal(move(maps, identity, 128), maps)


@given(new=PLACED, old=PLACED)
def test_relative_transform_maps_pixels_of_crops(new: np.ndarray, old: np.ndarray) -> None:
    crops = (jnp.asarray(each[None], "float32") for each in (new, old))
    relative = relative_transform(*crops)[0]
    points = np.array([[0.0, 0], [127, 0], [0, 127], [50, 60]])
    expected = apply_affine(invert_affine(old), apply_affine(new, points))
    np.testing.assert_allclose(apply_affine(np.asarray(relative), points), expected, atol=2e-3)


@given(
    bend=arrays.arrays(np.float64, (68, 2), elements=st.floats(-4, 4)),
    angle=st.floats(-1, 1),
    scale=st.floats(0.7, 1.4),
)
def test_a_crop_follows_similarities_of_its_landmarks(
    bend: np.ndarray, angle: float, scale: float
) -> None:
    points = SHAPE + bend
    centre = points.mean(0)
    moved = similarity(angle, scale, (0, 0))
    moved[:, 2] = centre + np.array([3, -2]) - moved[:, :2] @ centre
    crops = next_crop(CONFIG, jnp.asarray([points, apply_affine(moved, points)], "float32"))
    np.testing.assert_allclose(crops[1], compose_affine(moved, np.asarray(crops[0])), atol=5e-3)


def test_shift_scale_keeps_the_crop_upright() -> None:
    config = RedNetConfig.preset("compact", **{**RECROPS, "recrop": "shift_scale"})
    points = apply_affine(similarity(0.5, 1.2, (30, 10)), SHAPE)
    crop = next_crop(config, jnp.asarray(points[None], "float32"))[0]
    np.testing.assert_allclose(crop[:, :2], 1.2 * np.eye(2), atol=1e-4)
    centre = apply_affine(np.asarray(crop), SHAPE).mean(0)
    np.testing.assert_allclose(centre, points.mean(0), atol=1e-3)


def test_degenerate_landmarks_keep_the_crop_in_the_image() -> None:
    coincident, far_away = jnp.full((1, 68, 2), 50.0), 1e4 + 1e4 * jnp.asarray(SHAPE[None])
    for points in (coincident, far_away):
        crop = np.asarray(next_crop(CONFIG, points))[0]
        assert 0.2 < np.sqrt(np.linalg.det(crop[:, :2])) < 4.1
        centre = apply_affine(crop, SHAPE).mean(0)
        assert (centre >= -0.1).all() and (centre <= CONFIG.input_size).all()


def test_no_gradient_flows_through_a_crop() -> None:
    gradient = jax.grad(lambda points: next_crop(CONFIG, points).sum())(jnp.asarray(SHAPE[None]))
    assert not gradient.any()


def test_the_first_crop_is_the_middle_of_the_image() -> None:
    corners = np.array([[0, 0], [127, 127]])
    on_image = apply_affine(np.asarray(first_crop(CONFIG, 1)[0]), corners)
    np.testing.assert_array_equal(on_image, [[32, 32], [159, 159]])


@pytest.mark.parametrize("preset", SLOW_DEEP)
def test_one_pass_with_recrops_is_a_plain_pass_on_the_middle(shallow: Narrow, preset: str) -> None:
    recropped, plain = shallow(preset, **RECROPS), shallow(preset)
    variables = rednet.init(plain, jax.random.key(0))
    side, size = recropped.input_size, plain.image_size
    images = jax.random.uniform(jax.random.key(1), (2, side, side, 3))
    border = (side - size) // 2
    middle = images[:, border : border + size, border : border + size]
    expected, _ = rednet.align_image(plain, variables, middle, feedback_steps=1)
    actual, _ = rednet.align_image(recropped, variables, images, feedback_steps=1)
    np.testing.assert_allclose(actual.landmarks, expected.landmarks + border, atol=1e-3)
    np.testing.assert_allclose(actual.response_maps, expected.response_maps, atol=1e-4)


# Not the journal form: its coarse pass counts as a pass, and its crop is the first crop.
@pytest.mark.parametrize("preset", SLOW_DEEP[:3])
def test_the_second_pass_has_the_crop_of_the_first_passes_landmarks(
    shallow: Narrow, preset: str
) -> None:
    config = shallow(preset, feedback="none", **RECROPS)
    variables = rednet.init(config, jax.random.key(0))
    side, size = config.input_size, config.image_size
    images = jax.random.uniform(jax.random.key(1), (2, side, side, 3))
    out, _ = rednet.align_image(config, variables, images, feedback_steps=2)
    crop = next_crop(config, out.per_step.landmarks[0])
    np.testing.assert_allclose(out.crop, crop, atol=1e-4)
    assert not np.allclose(crop, first_crop(config, 2), atol=0.5)
    # The second pass alone, on images with that crop in the middle.
    cropped = crop_images(config, images, crop)
    border = (side - size) // 2
    padded = jnp.pad(cropped, ((0, 0), (border, border), (border, border), (0, 0)))
    state = rednet.initial_state(config, 2)._replace(passes=jnp.ones(2, jnp.int32))
    # f_tRNN's output layer is initialised to zero, so it has no effect.
    alone, _ = rednet.step(config, variables, state, padded, feedback_steps=1)
    onto_image = compose_affine(crop, invert_affine(first_crop(config, 2)))
    landmarks = apply_affine(onto_image, alone.landmarks)
    np.testing.assert_allclose(out.landmarks, landmarks, atol=1e-3)


# Not the journal form: the peaks of an untrained network jump with rounding errors.
@pytest.mark.parametrize("preset", SLOW_DEEP[:3])
def test_a_stream_equals_a_clip_also_if_its_image_is_shifted(shallow: Narrow, preset: str) -> None:
    """A shifted image, with the shift as its warp, gives the same landmarks on the face."""
    problem = Problem(shallow(preset, **RECROPS), frames=3)
    config = problem.config
    clip, after, _ = rednet.align_clip(
        config, problem.variables, problem.clips, problem.state, feedback_steps=2
    )
    state, shift = problem.state, 0
    for frame in range(3):
        # Rolled by whole pixels; the pixels that wrap around are outside of every crop.
        step = 2 if frame == 1 else 0
        shift += step
        images = jnp.roll(problem.clips[:, frame], -shift, axis=2)
        warp = jnp.broadcast_to(jnp.eye(2, 3).at[0, 2].set(step), (problem.batch, 2, 3))
        out, state = rednet.step(config, problem.variables, state, images, warp, feedback_steps=2)
        np.testing.assert_allclose(
            out.landmarks + jnp.array([shift, 0]), clip.landmarks[:, frame], atol=2e-3
        )
    np.testing.assert_allclose(state.feedback, after.feedback, atol=1e-3)


@pytest.mark.parametrize("remat", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_gradients_of_scans_and_python_loops_are_the_same(shallow: Narrow, remat: bool) -> None:
    problem = Problem(shallow("compact", **RECROPS), frames=1)
    variables = problem.variables["params"], problem.variables["batch_stats"]
    expected = problem.gradient(SCANS["python"])(*variables)
    actual = problem.gradient(remat=remat)(*variables)
    assert float(actual[0][0]) == pytest.approx(float(expected[0][0]), rel=1e-5)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(actual), strict=True):
        scale = 1e-3 * max(float(jnp.abs(a).max()), 1e-2)
        np.testing.assert_allclose(a, b, atol=scale)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"context": 1.5}, "recrop is none"),
        ({"recrop": "similarity", "context": 0.5}, "context 0.5 is not in"),
        ({"recrop": "similarity", "context": 1.01}, "not an even integer"),
        ({"recrop": "rotation"}, "model.recrop: 'rotation' is not one of"),
    ],
)
def test_invalid_recrop_fields_raise_errors(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RednetError, match=complaint):
        RedNetConfig.preset("compact", **changes)
