"""Convolutions and their gradients, batch normalisation, max pooling with places."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from rednet_jax.model.convolutions import convolve, depthwise, pointwise
from rednet_jax.model.layers import (
    BatchNorm,
    Mode,
    depth_to_space,
    double,
    max_pool,
    space_to_depth,
    unpool,
)


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [1, 3, 5, 7])
def test_convolution_and_its_gradients_are_those_of_lax(side: int, stride: int, size: int) -> None:
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 3)
        images = jax.random.normal(keys[0], (2, size, size + 2, 3), jnp.float64)
        kernel = jax.random.normal(keys[1], (side, side, 3, 4), jnp.float64)

        def reference(images: jax.Array, kernel: jax.Array) -> jax.Array:
            return lax.conv_general_dilated(
                images,
                kernel,
                (stride, stride),
                [(side // 2, side // 2)] * 2,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )

        expected, expected_pull = jax.vjp(reference, images, kernel)
        actual, pull = jax.vjp(lambda x, w: convolve(x, w, stride), images, kernel)
        cotangent = jax.random.normal(keys[2], expected.shape, jnp.float64)
        np.testing.assert_allclose(actual, expected, atol=1e-12)
        for gradient, expected_gradient in zip(
            pull(cotangent), expected_pull(cotangent), strict=True
        ):
            np.testing.assert_allclose(gradient, expected_gradient, atol=1e-11)


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("side", [3, 5])
def test_depthwise_convolution_and_its_gradients_are_those_of_lax(side: int, size: int) -> None:
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 3)
        images = jax.random.normal(keys[0], (2, size, size + 2, 3), jnp.float64)
        kernel = jax.random.normal(keys[1], (side, side, 1, 3), jnp.float64)

        def reference(images: jax.Array, kernel: jax.Array) -> jax.Array:
            return lax.conv_general_dilated(
                images,
                kernel,
                (1, 1),
                [(side // 2, side // 2)] * 2,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=3,
            )

        expected, expected_pull = jax.vjp(reference, images, kernel)
        actual, pull = jax.vjp(depthwise, images, kernel)
        cotangent = jax.random.normal(keys[2], expected.shape, jnp.float64)
        np.testing.assert_allclose(actual, expected, atol=1e-12)
        for gradient, expected_gradient in zip(
            pull(cotangent), expected_pull(cotangent), strict=True
        ):
            np.testing.assert_allclose(gradient, expected_gradient, atol=1e-11)


@pytest.mark.parametrize("convolution", [convolve, depthwise, pointwise])
def test_gradients_have_loops_on_the_cpu_alone(convolution: Callable[..., jax.Array]) -> None:
    """There, parts of a batch fit the caches; elsewhere a loop would run them one by one."""
    images = jnp.ones((6, 64, 64, 3))
    kernel = {convolve: (3, 3, 3, 4), depthwise: (3, 3, 1, 3), pointwise: (3, 4)}[convolution]

    def gradients(images: jax.Array, kernel: jax.Array) -> Any:
        return jax.grad(lambda *args: jnp.sum(convolution(*args) ** 2), (0, 1))(images, kernel)

    traced = jax.jit(gradients).trace(images, jnp.ones(kernel))
    for platform, loops in (("cpu", 1), ("cuda", 0), ("tpu", 0)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.while") == loops, platform


@pytest.mark.parametrize("batch", [1, 6])
def test_the_gradient_of_a_pointwise_kernel_equals_that_of_a_matrix_product(batch: int) -> None:
    """The gradient of six images of 64 x 64 is computed in parts."""
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 3)
        images = jax.random.normal(keys[0], (batch, 64, 64, 3), jnp.float64)
        kernel = jax.random.normal(keys[1], (3, 4), jnp.float64)
        expected, expected_pull = jax.vjp(jnp.matmul, images, kernel)
        actual, pull = jax.vjp(pointwise, images, kernel)
        cotangent = jax.random.normal(keys[2], expected.shape, jnp.float64)
        np.testing.assert_allclose(actual, expected, atol=1e-12)
        for gradient, expected_gradient in zip(
            pull(cotangent), expected_pull(cotangent), strict=True
        ):
            np.testing.assert_allclose(gradient, expected_gradient, atol=1e-10)


def windows(features: np.ndarray) -> np.ndarray:
    """[B, H, W, C] -> [B, H / 2, W / 2, 4, C], the pixels of a window in row-major order."""
    batch, height, width, channels = features.shape
    blocks = features.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // 2, width // 2, 4, channels)


# Few distinct values, so that most windows have a tie.
@given(st.lists(st.integers(-1, 2), min_size=2 * 4 * 6 * 3, max_size=2 * 4 * 6 * 3))
@settings(max_examples=50, deadline=None)
def test_pooling_takes_the_first_maximum_and_unpooling_puts_it_back(values: list[int]) -> None:
    features = np.asarray(values, np.float32).reshape(2, 4, 6, 3)
    pooled, places = max_pool(jnp.asarray(features))
    np.testing.assert_array_equal(places, windows(features).argmax(3))
    np.testing.assert_array_equal(pooled, windows(features).max(3))
    back = np.asarray(unpool(pooled, places))
    np.testing.assert_array_equal(
        windows(back),
        np.where(np.arange(4)[:, None] == places[:, :, :, None], windows(features), 0),
    )


def test_the_gradient_of_pooling_is_at_the_first_maximum_alone() -> None:
    features = jnp.asarray([[[[1.0], [1.0]], [[1.0], [1.0]]]])
    gradient = jax.grad(lambda x: 5 * max_pool(x)[0].sum())(features)
    np.testing.assert_array_equal(gradient.ravel(), [5, 0, 0, 0])


def normalised(
    norm: BatchNorm, features: np.ndarray, passes: int, *, train: bool, visits: int = 1
) -> np.ndarray:
    mode = Mode(train, jnp.full(len(features), passes), visits)
    return np.asarray(norm(jnp.asarray(features), mode))


def test_batch_norm_in_training_equals_numpy() -> None:
    features = np.random.default_rng(0).normal(2, 3, (4, 5, 6, 3)).astype(np.float32)
    norm = BatchNorm(3, rows=2)
    norm.scale[...] = jnp.asarray([1.0, 2.0, 3.0])
    norm.offset[...] = jnp.asarray([0.5, 0.0, -1.0])
    mean, variance = features.mean((0, 1, 2)), features.var((0, 1, 2))
    expected = (features - mean) / np.sqrt(variance + 1e-5) * [1, 2, 3] + [0.5, 0, -1]
    np.testing.assert_allclose(normalised(norm, features, 1, train=True), expected, atol=1e-5)
    np.testing.assert_allclose(norm.mean[...][1], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(norm.variance[...][1], 0.9 + 0.1 * variance, rtol=1e-5)
    np.testing.assert_array_equal(norm.mean[...][0], 0)


def test_batch_norm_takes_the_row_of_each_samples_passes() -> None:
    features = np.ones((3, 2, 2, 1), np.float32)
    norm = BatchNorm(1, rows=2)
    norm.mean[...] = jnp.asarray([[1.0], [3.0]])
    actual = norm(jnp.asarray(features), Mode(False, jnp.asarray([0, 1, 7]), 1))
    np.testing.assert_allclose(actual[:, 0, 0, 0], [0, -2, -2], atol=1e-4)


def test_many_visits_update_running_averages_as_one_does() -> None:
    features = np.random.default_rng(0).normal(2, 3, (4, 5, 6, 3)).astype(np.float32)
    one_visit, six_visits = BatchNorm(3), BatchNorm(3)
    normalised(one_visit, features, 0, train=True)
    for _ in range(6):
        normalised(six_visits, features, 0, train=True, visits=6)
    np.testing.assert_allclose(six_visits.mean[...], one_visit.mean[...], rtol=1e-4)
    np.testing.assert_allclose(six_visits.variance[...], one_visit.variance[...], rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 2])
def test_the_parts_of_a_step_update_running_averages_as_a_whole_step_does(rows: int) -> None:
    features = np.random.default_rng(0).normal(2, 3, (4, 5, 6, 3)).astype(np.float32)
    averages = []
    for parts in (1, 4):
        norm = BatchNorm(3, rows)
        for _ in range(parts):
            for passes in range(3):
                mode = Mode(True, jnp.full(len(features), passes), 3, parts=parts)
                norm(jnp.asarray(features), mode)
        averages.append((norm.mean[...], norm.variance[...]))
    for whole, in_parts in zip(*averages, strict=True):
        np.testing.assert_allclose(in_parts, whole, rtol=1e-5)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("ratio", [0.0, 1.0, 10.0, 30.0])
def test_batch_norm_in_half_precision_rounds_once(ratio: float, train: bool) -> None:
    """Against float64 of the same features: the error is that of rounding the result."""
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(ratio, 1, (8, 16, 16, 4)), jnp.bfloat16)
    exact = np.asarray(features, np.float64)
    scale, offset = np.asarray([[0.3, 0.9, 1.1, 1.7], [0.0, 0.4, -0.7, 0.1]], np.float32)
    mean, variance = exact.mean((0, 1, 2)), exact.var((0, 1, 2))
    expected = (exact - mean) / np.sqrt(variance + 1e-5) * scale + offset
    norm = BatchNorm(4)
    for part, value in zip(
        (norm.scale, norm.offset, norm.mean, norm.variance),
        (scale, offset, mean[None], variance[None]),
        strict=True,
    ):
        part[...] = jnp.asarray(value, jnp.float32)
    actual = norm(features, Mode(train, jnp.zeros(8, jnp.int32), 1))
    assert actual.dtype == jnp.bfloat16
    rounded = np.asarray(jnp.asarray(expected, jnp.bfloat16), np.float64)
    rounding = np.sqrt(np.mean((rounded - expected) ** 2))
    error = np.sqrt(np.mean((np.asarray(actual, np.float64) - expected) ** 2))
    assert error < 1.1 * rounding


def test_tracing_time_is_linear_in_depth() -> None:
    """Measured as the number of function calls: twice the layers, twice the calls."""

    def calls(depth: int) -> int:
        count = 0

        def count_call(*_: object) -> None:
            nonlocal count
            count += 1

        def chain(features: jax.Array) -> jax.Array:
            for _ in range(depth):
                features = BatchNorm(3)(features, Mode(True, jnp.zeros(2, jnp.int32), 1))
            return features

        before = sys.getprofile()
        sys.setprofile(count_call)
        try:
            jax.make_jaxpr(chain)(jnp.ones((2, 4, 4, 3)))
        finally:
            sys.setprofile(before)
        return count

    calls(1)  # The first trace fills caches.
    assert calls(40) < 2.2 * calls(20)


def test_batch_moments_are_global_under_a_mapped_axis() -> None:
    """Two halves of a batch on one mapped axis give the moments of the whole batch."""
    features = jax.random.normal(jax.random.key(0), (4, 2, 2, 3))

    def whole(features: jax.Array, axis_name: str | None) -> tuple[jax.Array, jax.Array]:
        norm = BatchNorm(3)
        mode = Mode(True, jnp.zeros(len(features), jnp.int32), 1, axis_name)
        return norm(features, mode), norm.mean[...]

    expected, mean = whole(features, None)
    halves = features.reshape(2, 2, *features.shape[1:])
    actual, means = jax.vmap(lambda half: whole(half, "device"), axis_name="device")(halves)
    np.testing.assert_allclose(actual.reshape(expected.shape), expected, atol=1e-5)
    np.testing.assert_allclose(means[1], mean, atol=1e-6)


def test_space_to_depth_and_double() -> None:
    image = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(space_to_depth(image)[0, 0, 1], [2, 3, 6, 7])
    several = jnp.arange(96.0).reshape(2, 4, 4, 3)
    np.testing.assert_array_equal(depth_to_space(space_to_depth(several)), several)
    np.testing.assert_array_equal(double(image)[0, 2:4, 4:6, 0], [[6, 6], [6, 6]])
    assert isinstance(BatchNorm(1).scale, nnx.Param)
