"""The crop rule, affine maps and their inverses, and resampling on host and device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from rednet_jax.landmarks.crops import (
    apply_affine,
    compose_affine,
    crop_image,
    crop_transform,
    invert_affine,
    sample_bilinear,
    warp,
)

sample = jax.jit(sample_bilinear)
cut_on_device = jax.jit(warp, static_argnums=2)

place = st.floats(-2000, 4000)
side = st.floats(8, 3000)
margins = st.floats(0.5, 4)
sizes = st.sampled_from([32, 128, 255])


def similarity(angle: float, scale: float, x: float, y: float) -> NDArray[np.float64]:
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return np.asarray([[cosine, -sine, x], [sine, cosine, y]])


similarities = st.builds(
    similarity, st.floats(-3, 3), st.floats(0.05, 20), st.floats(-500, 500), st.floats(-500, 500)
)


def smooth(x: Any, y: Any) -> NDArray[np.float64]:
    """The values [..., 3], 0..255, of a smooth image at any position."""
    waves = [np.sin(x / 21 + y / 35), np.cos(x / 30 - y / 24), np.sin(y / 19) * np.cos(x / 27)]
    return np.asarray(127 + 100 * np.stack(waves, -1))


def smooth_image(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    return np.round(smooth(x, y)).astype(np.uint8)


def test_crop_rule_by_hand() -> None:
    """A box of 40 x 20 around (30, 30), margin 1.5: a square of 60 px, 2 px to each of 30."""
    box = np.asarray([10, 20, 50, 40], np.float32)
    expected = [[2, 0, 1], [0, 2, 1]]
    np.testing.assert_array_equal(crop_transform(box, margin=1.5, size=30), expected)
    on_device = crop_transform(jnp.asarray(box), margin=1.5, size=30)
    assert on_device.dtype == jnp.float32
    np.testing.assert_array_equal(on_device, expected)
    many = crop_transform(np.stack([box, box + 1]), margin=1.5, size=30)
    np.testing.assert_array_equal(many, [expected, [[2, 0, 2], [0, 2, 2]]])


@given(x=place, y=place, width=side, height=side, margin=margins, size=sizes)
def test_crop_is_a_square_around_the_box(
    x: float, y: float, width: float, height: float, margin: float, size: int
) -> None:
    box = np.asarray([x, y, x + width, y + height])
    affine = crop_transform(box, margin=margin, size=size)
    centre = np.asarray([x + width / 2, y + height / 2])
    half = margin * max(width, height) / 2
    ends = np.asarray([[-0.5, -0.5], [(size - 1) / 2] * 2, [size - 0.5] * 2])
    expected = [centre - half, centre, centre + half]
    np.testing.assert_allclose(apply_affine(affine, ends), expected, atol=1e-6)


@given(x=place, y=place, width=side, margin=margins, size=sizes, seed=st.integers(0, 99))
def test_crop_there_and_back(
    x: float, y: float, width: float, margin: float, size: int, seed: int
) -> None:
    affine = crop_transform(np.asarray([x, y, x + width, y + width]), margin=margin, size=size)
    points = np.random.default_rng(seed).uniform(-20, 4000, (68, 2)).astype(np.float32)
    back = apply_affine(affine, apply_affine(invert_affine(affine), points))
    np.testing.assert_allclose(back, points, atol=1e-3)


@given(similarities, similarities, st.integers(0, 99))
def test_compose_and_invert(
    outer: NDArray[np.float64], inner: NDArray[np.float64], seed: int
) -> None:
    points = np.random.default_rng(seed).uniform(-100, 100, (5, 2))
    both = compose_affine(outer, inner)
    np.testing.assert_allclose(
        apply_affine(both, points), apply_affine(outer, apply_affine(inner, points)), atol=1e-6
    )
    identity = np.broadcast_to(np.eye(2, 3), (2, 2, 3))
    inverse = invert_affine(both)
    round_trips = [compose_affine(both, inverse), compose_affine(inverse, both)]
    np.testing.assert_allclose(round_trips, identity, atol=1e-6)


def test_affine_maps_of_batches_and_on_the_device() -> None:
    rng = np.random.default_rng(0)
    outer, inner = (
        np.stack([similarity(*rng.uniform(0.5, 2, 4)) for _ in range(6)]).reshape(3, 2, 2, 3)
        for _ in range(2)
    )
    points = rng.uniform(-9, 9, (3, 2, 5, 2))
    for function, arguments in (
        (apply_affine, (outer, points)),
        (compose_affine, (outer, inner)),
        (invert_affine, (outer,)),
    ):
        together = function(*arguments)  # type: ignore[operator]
        for i, j in np.ndindex(3, 2):
            alone = function(*(argument[i, j] for argument in arguments))  # type: ignore[operator]
            np.testing.assert_allclose(together[i, j], alone, atol=1e-12)
        on_device = jax.jit(function)(*map(jnp.asarray, arguments))
        np.testing.assert_allclose(on_device, together, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "function",
    [
        lambda affine, points, image: apply_affine(affine, points),
        lambda affine, points, image: compose_affine(affine, affine),
        lambda affine, points, image: invert_affine(affine),
        lambda affine, points, image: warp(image, affine, (8, 8)),
    ],
    ids=["apply", "compose", "invert", "warp"],
)
def test_coordinates_are_not_in_a_matrix_product(function: Callable[..., jax.Array]) -> None:
    """GPUs and TPUs round factors: a landmark at 200 px would be off by up to half a pixel."""
    program = jax.make_jaxpr(function)(jnp.eye(2, 3), jnp.ones((4, 2)), jnp.ones((8, 8, 3)))
    assert "dot_general" not in str(program)


def test_sampling_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(9, 13, 2)).astype(np.float32)
    points = rng.uniform(-3, 16, (200, 2)).astype(np.float32)
    expected = [
        ndimage.map_coordinates(image[..., c], points.T[::-1], order=1, mode="grid-constant")
        for c in (0, 1)
    ]
    sampled = sample(jnp.asarray(image), jnp.asarray(points))
    np.testing.assert_allclose(sampled, np.stack(expected, -1), atol=2e-5)


def test_warp_by_whole_pixels_copies() -> None:
    image = jnp.arange(4 * 5 * 3, dtype=jnp.float32).reshape(4, 5, 3)
    moved = cut_on_device(image, jnp.asarray([[1.0, 0, 2], [0, 1, -1]]), (4, 6))
    expected = np.zeros((4, 6, 3))
    expected[1:, :3] = image[:3, 2:]
    np.testing.assert_array_equal(moved, expected)


@given(
    angle=st.floats(-3, 3),
    scale=st.floats(0.3, 1.3),
    x=st.floats(40, 80),
    y=st.floats(40, 80),
)
@settings(max_examples=30, deadline=None)
def test_host_and_device_cut_the_same_crop(angle: float, scale: float, x: float, y: float) -> None:
    """Up to 2 grey levels: the host rounds after each step."""
    image = smooth_image(120, 110)
    affine = similarity(angle, scale, x, y)
    affine[:, 2] -= affine[:, :2].sum(1) * 15.5
    host = crop_image(image, affine, 32).astype(np.float64)
    device = cut_on_device(
        jnp.asarray(image, jnp.float32), jnp.asarray(affine, jnp.float32), (32, 32)
    )
    grid = np.stack(np.meshgrid(np.arange(32), np.arange(32)), -1)
    where = apply_affine(affine, grid)
    inside = ((where > 1) & (where < [108, 118])).all(-1)
    assert np.abs(host - np.asarray(device))[inside].max() <= 2


@pytest.mark.parametrize("scale", [1.0, 1.6, 2.0, 2.7, 5.3])
def test_a_shrunk_crop_is_not_shifted(scale: float) -> None:
    """A shift of a quarter of a crop pixel would be a difference of 3 (scale 1) to 11 (scale 5)."""
    image = smooth_image(300, 260)
    size = int(200 / scale)
    affine = np.asarray([[scale, 0, 25.3], [0, scale, 40.9]])
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1)
    where = apply_affine(affine, grid)
    crop = crop_image(image, affine, size)
    assert np.abs(crop - smooth(where[..., 0], where[..., 1])).max() <= 1.6 + scale / 4


def test_whole_pixels_are_copied_and_outside_is_black() -> None:
    image = np.random.default_rng(0).integers(1, 256, (20, 30, 3), dtype=np.uint8)
    crop = crop_image(image, np.asarray([[1, 0, -4], [0, 1, 7]]), 24)
    expected = np.zeros((24, 24, 3), np.uint8)
    expected[:13, 4:] = image[7:, :20]
    np.testing.assert_array_equal(crop, expected)


def test_fine_detail_is_averaged() -> None:
    y, x = np.mgrid[:256, :256]
    board = np.repeat(((x + y) % 2 * 255).astype(np.uint8)[..., None], 3, -1)
    crop = crop_image(board, np.asarray([[8.0, 0, 3.5], [0, 8, 3.5]]), 32)
    assert np.abs(crop[2:-2, 2:-2].astype(int) - 127).max() <= 2


@pytest.mark.parametrize("scale", [1.2, 3.0, 23.4, 63.0])
@pytest.mark.parametrize("corner", [-900.0, -3.3, 40.2])
def test_a_black_border_does_not_change_crops(scale: float, corner: float) -> None:
    """`crop_image` skips regions outside the image, which changes no pixel except by rounding."""
    image = smooth_image(60, 50)
    border = 20 * int(scale + 0.5)
    padded = np.pad(image, ((border, border), (border, border), (0, 0)))
    affine = np.asarray([[scale, 0, corner], [0, scale, corner]])
    moved = affine + np.asarray([[0, 0, border], [0, 0, border]])
    crop, same = (crop_image(*cut, 32).astype(int) for cut in ((image, affine), (padded, moved)))
    np.testing.assert_allclose(crop, same, atol=1)


@pytest.mark.parametrize(
    "box",
    [(0, 0, 1e6, 1e6), (-1e30, -1e30, 1e30, 1e30), (1e9, 1e9, 2e9, 2e9), (-500, -500, -400, -400)],
)
def test_crops_of_boxes_of_any_size(box: tuple[float, ...]) -> None:
    image = np.full((100, 120, 3), 255, np.uint8)
    crop = crop_image(image, crop_transform(np.asarray(box), margin=1.25, size=64), 64)
    assert crop.shape == (64, 64, 3)
    assert (crop > 0).mean() < 0.01
