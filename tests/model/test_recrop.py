"""Re-crops between passes: where they are, and that the state is resampled with them."""

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
def test_a_mean_shape_anywhere_is_laid_onto_the_crops(
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
def test_maps_in_a_crop_that_stays_are_exactly_the_same(placed: np.ndarray) -> None:
    """Not only up to rounding: beside a pixel centre, index and weight may be of two pixels."""
    crop = jnp.asarray(placed[None], "float32")
    stays = relative_transform(crop, crop)
    np.testing.assert_array_equal(stays, [[[1, 0, 0], [0, 1, 0]]])
    maps = jax.random.normal(jax.random.key(0), (1, 4, 4, 2))
    np.testing.assert_array_equal(move(maps, stays, 128), maps)


@given(new=PLACED, old=PLACED)
def test_a_point_of_a_crop_in_pixels_of_another(new: np.ndarray, old: np.ndarray) -> None:
    crops = (jnp.asarray(each[None], "float32") for each in (new, old))
    found = relative_transform(*crops)[0]
    points = np.array([[0.0, 0], [127, 0], [0, 127], [50, 60]])
    expected = apply_affine(invert_affine(old), apply_affine(new, points))
    np.testing.assert_allclose(apply_affine(np.asarray(found), points), expected, atol=2e-3)


@given(
    bend=arrays.arrays(np.float64, (68, 2), elements=st.floats(-4, 4)),
    angle=st.floats(-1, 1),
    scale=st.floats(0.7, 1.4),
)
def test_a_crop_turns_grows_and_moves_with_its_points(
    bend: np.ndarray, angle: float, scale: float
) -> None:
    points = SHAPE + bend
    centre = points.mean(0)
    moved = similarity(angle, scale, (0, 0))
    moved[:, 2] = centre + np.array([3, -2]) - moved[:, :2] @ centre
    crops = next_crop(CONFIG, jnp.asarray([points, apply_affine(moved, points)], "float32"))
    np.testing.assert_allclose(crops[1], compose_affine(moved, np.asarray(crops[0])), atol=5e-3)


def test_shift_and_scale_leave_the_crop_upright() -> None:
    config = RedNetConfig.preset("compact", **{**RECROPS, "recrop": "shift_scale"})
    points = apply_affine(similarity(0.5, 1.2, (30, 10)), SHAPE)
    crop = next_crop(config, jnp.asarray(points[None], "float32"))[0]
    np.testing.assert_allclose(crop[:, :2], 1.2 * np.eye(2), atol=1e-4)
    centre = apply_affine(np.asarray(crop), SHAPE).mean(0)
    np.testing.assert_allclose(centre, points.mean(0), atol=1e-3)


def test_points_that_are_no_face_do_not_lose_the_image() -> None:
    on_one_spot, far_away = jnp.full((1, 68, 2), 50.0), 1e4 + 1e4 * jnp.asarray(SHAPE[None])
    for points in (on_one_spot, far_away):
        crop = np.asarray(next_crop(CONFIG, points))[0]
        assert 0.2 < np.sqrt(np.linalg.det(crop[:, :2])) < 4.1
        centre = apply_affine(crop, SHAPE).mean(0)
        assert (centre >= -0.1).all() and (centre <= CONFIG.input_size).all()


def test_no_gradient_passes_through_the_choice_of_a_crop() -> None:
    gradient = jax.grad(lambda points: next_crop(CONFIG, points).sum())(jnp.asarray(SHAPE[None]))
    assert not gradient.any()


def test_the_first_crop_is_the_middle_of_the_image() -> None:
    corners = np.array([[0, 0], [127, 127]])
    found = apply_affine(np.asarray(first_crop(CONFIG, 1)[0]), corners)
    np.testing.assert_array_equal(found, [[32, 32], [159, 159]])


@pytest.mark.parametrize("preset", SLOW_DEEP)
def test_one_recroped_pass_is_the_plain_pass_on_the_middle(shallow: Narrow, preset: str) -> None:
    registered, plain = shallow(preset, **RECROPS), shallow(preset)
    variables = rednet.init(plain, jax.random.key(0))
    side, size = registered.input_size, plain.image_size
    images = jax.random.uniform(jax.random.key(1), (2, side, side, 3))
    border = (side - size) // 2
    middle = images[:, border : border + size, border : border + size]
    expected, _ = rednet.align_image(plain, variables, middle, feedback_steps=1)
    found, _ = rednet.align_image(registered, variables, images, feedback_steps=1)
    np.testing.assert_allclose(found.landmarks, expected.landmarks + border, atol=1e-3)
    np.testing.assert_allclose(found.response_maps, expected.response_maps, atol=1e-4)


# The journal form's coarse pass counts as one, and looks at the first crop.
@pytest.mark.parametrize("preset", SLOW_DEEP[:3])
def test_a_second_pass_looks_where_the_first_has_found_the_face(
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
    # The same pass by hand, on images of which the middle is that crop.
    seen = crop_images(config, images, crop)
    border = (side - size) // 2
    around = jnp.pad(seen, ((0, 0), (border, border), (border, border), (0, 0)))
    state = rednet.initial_state(config, 2)._replace(passes=jnp.ones(2, jnp.int32))
    # f_tRNN's way back begins at zero, so that it changes nothing.
    alone, _ = rednet.step(config, variables, state, around, feedback_steps=1)
    onto_image = compose_affine(crop, invert_affine(first_crop(config, 2)))
    landmarks = apply_affine(onto_image, alone.landmarks)
    np.testing.assert_allclose(out.landmarks, landmarks, atol=1e-3)


# Not where points are read off peaks or maps are arg-maxima: untrained, they jump at a rounding.
@pytest.mark.parametrize("preset", SLOW_DEEP[:3])
def test_a_stream_equals_a_clip_and_its_image_may_move(shallow: Narrow, preset: str) -> None:
    """An image cut elsewhere, told so by its warp, gives the same face: all state is on it."""
    problem = Problem(shallow(preset, **RECROPS), frames=3)
    config = problem.config
    clip, after, _ = rednet.align_clip(
        config, problem.variables, problem.clips, problem.state, feedback_steps=2
    )
    state, shift = problem.state, 0
    for frame in range(3):
        # Rolled by whole pixels; what comes in at the border lies outside of every crop.
        move = 2 if frame == 1 else 0
        shift += move
        images = jnp.roll(problem.clips[:, frame], -shift, axis=2)
        warp = jnp.broadcast_to(jnp.eye(2, 3).at[0, 2].set(move), (problem.batch, 2, 3))
        out, state = rednet.step(config, problem.variables, state, images, warp, feedback_steps=2)
        np.testing.assert_allclose(
            out.landmarks + jnp.array([shift, 0]), clip.landmarks[:, frame], atol=2e-3
        )
    np.testing.assert_allclose(state.feedback, after.feedback, atol=1e-3)


@pytest.mark.parametrize("remat", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_gradients_of_scan_and_plain_loop_are_the_same(shallow: Narrow, remat: bool) -> None:
    problem = Problem(shallow("compact", **RECROPS), frames=1)
    variables = problem.variables["params"], problem.variables["batch_stats"]
    (expected, moved), gradient = problem.gradient(SCANS["python"])(*variables)
    (value, other_moved), other = problem.gradient(remat=remat)(*variables)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    for a, b in zip(
        jax.tree.leaves((gradient, moved)), jax.tree.leaves((other, other_moved)), strict=True
    ):
        scale = 1e-3 * max(float(jnp.abs(a).max()), 1e-2)
        np.testing.assert_allclose(a, b, atol=scale)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"context": 1.5}, "recrop is none"),
        ({"recrop": "similarity", "context": 0.5}, "context 0.5 is not in"),
        ({"recrop": "similarity", "context": 1.01}, "no whole, even number"),
        ({"recrop": "rotation"}, "model.recrop: 'rotation' is not one of"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RednetError, match=complaint):
        RedNetConfig.preset("compact", **changes)
