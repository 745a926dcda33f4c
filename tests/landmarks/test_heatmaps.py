"""Heat maps encode and decode landmarks with sub-pixel precision."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rednet_jax.landmarks.heatmaps import (
    decode_peak,
    gaussian_heatmaps,
    soft_argmax,
    to_crop_pixels,
    to_map_pixels,
)

HEIGHT, WIDTH = 24, 31
draw = jax.jit(gaussian_heatmaps, static_argnums=1)
decode = jax.jit(decode_peak)
centre = jax.jit(soft_argmax)
to_map = jax.jit(to_map_pixels, static_argnums=(1, 2))
to_crop = jax.jit(to_crop_pixels, static_argnums=(1, 2))


@jax.jit
def logits_of(maps: jax.Array) -> jax.Array:
    """Returns the logits of the maps times 0.9, so that those of peaks are finite."""
    likely = 0.9 * jnp.maximum(maps, 1e-30)
    return jnp.log(likely) - jnp.log1p(-likely)


@given(x=st.floats(-0.5, WIDTH - 0.5), y=st.floats(-0.5, HEIGHT - 0.5), sigma=st.floats(0.6, 4))
@settings(deadline=None)
def test_the_decoded_peak_is_the_centre(x: float, y: float, sigma: float) -> None:
    maps = draw(jnp.asarray([[x, y]]), (HEIGHT, WIDTH), sigma)
    np.testing.assert_allclose(decode(logits_of(maps)), [[x, y]], atol=0.05)


@given(st.floats(8, WIDTH - 9), st.floats(8, HEIGHT - 9), st.floats(0.6, 2))
@settings(deadline=None)
def test_the_centre_of_mass_is_the_centre_if_the_whole_peak_is_inside(
    x: float, y: float, sigma: float
) -> None:
    maps = draw(jnp.asarray([[x, y]]), (HEIGHT, WIDTH), sigma)
    np.testing.assert_allclose(centre(maps), [[x, y]], atol=0.05)


@given(st.floats(-0.5, 127.5), st.floats(-0.5, 127.5))
@settings(deadline=None)
def test_crop_to_map_and_back(x: float, y: float) -> None:
    point = jnp.asarray([[x, y]])
    maps = draw(to_map(point, 128, 32), (32, 32), 1.0)
    back = to_crop(decode(logits_of(maps)), 128, 32)
    np.testing.assert_allclose(back, point, atol=0.05)


def test_a_map_pixel_is_at_the_centre_of_its_crop_pixels() -> None:
    """Pixel 0 of a map of 32 covers pixels 0 to 3 of a crop of 128, pixel 31 covers 124 to 127."""
    np.testing.assert_allclose(to_crop(jnp.asarray([0.0, 31]), 128, 32), [1.5, 125.5])
    np.testing.assert_allclose(to_map(jnp.asarray([1.5, 125.5]), 128, 32), [0, 31])


def test_gaussians_equal_their_formula() -> None:
    points = np.random.default_rng(0).uniform(-3, 30, (2, 5, 2))
    maps = draw(jnp.asarray(points, jnp.float32), (HEIGHT, WIDTH), 1.7)
    y, x = np.mgrid[:HEIGHT, :WIDTH][..., None]
    away = [(x - p[:, 0]) ** 2 + (y - p[:, 1]) ** 2 for p in points]
    np.testing.assert_allclose(maps, np.exp(-np.stack(away) / (2 * 1.7**2)), atol=1e-5)


def test_batches_decode_as_single_maps() -> None:
    maps = jax.random.uniform(jax.random.key(0), (2, 3, HEIGHT, WIDTH, 4))
    points, centres = decode(logits_of(maps)), centre(maps)
    for i, j in np.ndindex(2, 3):
        np.testing.assert_allclose(points[i, j], decode(logits_of(maps[i, j])), atol=1e-6)
        np.testing.assert_allclose(centres[i, j], centre(maps[i, j]), atol=1e-5)


def test_peak_of_noise_stays_near_its_pixel() -> None:
    maps = jax.random.uniform(jax.random.key(1), (HEIGHT, WIDTH, 200))
    points = decode(logits_of(maps))
    best = np.asarray(maps.reshape(-1, 200).argmax(0))
    pixel = np.stack([best % WIDTH, best // WIDTH], -1)
    distance = np.abs(points - pixel)
    inner = (pixel > 0) & (pixel < [WIDTH - 1, HEIGHT - 1])
    assert distance[inner].max() <= 0.5 + 1e-5
    assert distance.max() <= 3


def test_flat_map_decodes_to_its_first_pixel() -> None:
    np.testing.assert_array_equal(decode(jnp.full((HEIGHT, WIDTH, 1), -1.1)), [[0, 0]])


def test_centre_of_mass_by_hand() -> None:
    maps = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    maps[20, 3, 0] = 0.7
    maps[[2, 6], [10, 30], 1] = 0.1, 0.3
    expected = [[3, 20], [25, 5], [(WIDTH - 1) / 2, (HEIGHT - 1) / 2]]
    np.testing.assert_allclose(centre(jnp.asarray(maps)), expected, atol=1e-3)


@pytest.mark.parametrize("weight", [0.0, 1e-30, 1e-12, 1.0])
def test_gradient_of_a_vanishing_map_is_finite(weight: float) -> None:
    gradient = jax.jit(jax.grad(lambda maps: soft_argmax(maps).sum()))(jnp.full((8, 8, 2), weight))
    assert jnp.isfinite(gradient).all()


def test_coordinates_are_summed_in_full_precision() -> None:
    """By default, GPUs and TPUs round them to 11 or 8 bits."""
    program = jax.make_jaxpr(soft_argmax)(jnp.ones((2, 8, 8, 3)))
    products = str(program).split("dot_general")[1:]
    assert len(products) == 2
    assert all("precision=(Precision.HIGHEST, Precision.HIGHEST)" in after for after in products)


@pytest.mark.parametrize("height", [3.0, 12.0, 17.0, 30.0, 60.0])
def test_high_peaks_are_decoded_from_their_logits(height: float) -> None:
    """The float32 sigmoid of 17 or more is 1, also at the pixels around a peak."""
    y, x = np.mgrid[:32, :32]
    exact = height - 0.5 * ((x - 19.3) ** 2 + (y - 7.8) ** 2)
    low, mid, high = -np.logaddexp(0, -exact[8, 18:21])
    expected = 19 + 0.5 * (low - high) / (low - 2 * mid + high)
    (peak,) = decode(jnp.asarray(exact[..., None], jnp.float32))
    assert peak[0] == pytest.approx(expected, abs=1e-3)
    assert round(float(peak[1])) == 8
