"""Layers: convolutions, batch normalisation per pass, max pooling with places, rearrangements."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from numpy.typing import NDArray

from rednet_jax.model.convolutions import convolve, depthwise, pointwise, wide

AxisName = str | tuple[str, ...]
"""Name, or names, of the mapped axes that a batch is split over."""

_MOMENTUM = 0.9
_EPSILON = 1e-5
SAVED = "convolved"
"""Name, for the policies of `jax.checkpoint`, of the values of a pass that its gradient keeps: the
results of the convolutions without bias. Normalisation and pooling are cheap to recompute from
them, and so are the convolutions with bias: the heads' many maps, and the gates of an LSTM on a
small grid."""


Draw = Callable[[tuple[int, ...], float], NDArray[np.float32]]
"""From a shape and a standard deviation to initial values, normal about 0."""


def normal(seed: int | NDArray[np.uint32]) -> Draw:
    """Returns a `Draw` that draws on the host from one generator, seeded by `seed`."""
    random = np.random.default_rng(seed)

    def draw(shape: tuple[int, ...], deviation: float) -> NDArray[np.float32]:
        values = random.standard_normal(shape, np.float32)
        values *= np.float32(deviation)
        return values

    return draw


class Mode(NamedTuple):
    """How batch normalisation runs in one call of the network.

    Attributes:
        train: normalise by the batch's moments and update the running averages.
        passes: [B] int32, passes since the sample's feedback map was blank: the row of statistics.
        visits: how often one call of the public function runs the layer. The decay of the running
            averages is such that all visits together count as one.
        axis_name: the mapped axes to average moments over (`jax.pmap`, `jax.shard_map`), or None.
        parts: how many calls of the public function make up one training step; they, too, count
            as one.
    """

    train: bool
    passes: jax.Array
    visits: int
    axis_name: AxisName | None = None
    parts: int = 1


class Depthwise(nnx.Module):
    """A convolution of each channel by `depthwise`, [B, H, W, channels] -> the same.

    The kernel's initial values are normal with standard deviation 1 / size, which preserves the
    variance.
    """

    def __init__(self, channels: int, size: int = 3, *, draw: Draw) -> None:
        self.kernel: nnx.Param[Any] = nnx.Param(draw((size, size, 1, channels), 1 / size))

    def __call__(self, images: jax.Array) -> jax.Array:
        kernel: jax.Array = self.kernel.get_value().astype(images.dtype)
        return depthwise(images, kernel)


class Conv(nnx.Module):
    """A convolution, [B, H, W, inputs] -> [B, H / stride, W / stride, outputs].

    The kernel's initial values are normal with standard deviation gain * sqrt(2 / fan-in) (He).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int = 3,
        *,
        stride: int = 1,
        bias: bool = False,
        gain: float = 1.0,
        draw: Draw,
    ) -> None:
        deviation = gain * math.sqrt(2 / (size * size * inputs))
        self.kernel: nnx.Param[Any] = nnx.Param(draw((size, size, inputs, outputs), deviation))
        self.bias = nnx.Param(np.zeros(outputs, np.float32)) if bias else None
        self.stride = stride

    def __call__(self, images: jax.Array) -> jax.Array:
        kernel: jax.Array = self.kernel.get_value().astype(images.dtype)
        if kernel.shape[0] == 1:
            strided = images[:, :: self.stride, :: self.stride]
            maps = pointwise(strided, kernel[0, 0])
        else:
            maps = convolve(images, kernel, self.stride)
        if self.bias is None:
            saved: jax.Array = checkpoint_name(maps, SAVED)
            return saved
        biased: jax.Array = maps + self.bias.get_value().astype(images.dtype)
        return biased


class BatchNorm(nnx.Module):
    """Batch normalisation with statistics [rows, channels] per pass, and a shared scale and offset.

    In training the moments are those of the whole batch, over the mapped axes of `Mode.axis_name`.
    Otherwise each sample takes the row of its own number of passes, so a batch can hold faces that
    joined at different times. `gain` is the initial scale.
    """

    def __init__(self, channels: int, rows: int = 1, gain: float = 1.0) -> None:
        self.scale: nnx.Param[Any] = nnx.Param(np.full(channels, gain, np.float32))
        self.offset: nnx.Param[Any] = nnx.Param(np.zeros(channels, np.float32))
        self.mean: nnx.BatchStat[Any] = nnx.BatchStat(np.zeros((rows, channels), np.float32))
        self.variance: nnx.BatchStat[Any] = nnx.BatchStat(np.ones((rows, channels), np.float32))

    def __call__(self, features: jax.Array, mode: Mode) -> jax.Array:
        """Returns the features [B, H, W, C] normalised, in their dtype.

        Half-precision features are normalised in float32 and rounded once: `features * gain` and
        `mean * gain` cancel, so a rounding error of either would remain in the result.
        """
        if mode.train:
            mean, variance = self._batch_moments(features, mode)
        else:
            rows = jnp.minimum(mode.passes, self.mean.shape[0] - 1)
            mean = self.mean.get_value()[rows][:, None, None]
            variance = self.variance.get_value()[rows][:, None, None]
        gain = self.scale.get_value() * lax.rsqrt(variance + _EPSILON)
        shift = self.offset.get_value() - mean * gain
        normalised: jax.Array = wide(features) * gain + shift
        return normalised.astype(features.dtype)

    def _batch_moments(self, features: jax.Array, mode: Mode) -> tuple[jax.Array, jax.Array]:
        full = wide(features)
        mean = full.mean((0, 1, 2))
        # One pass over the features instead of two; rounding may leave a tiny negative variance.
        square = (full * full).mean((0, 1, 2))
        rows = self.mean.shape[0]
        row = jnp.minimum(mode.passes, rows - 1)
        share = jnp.mean(row[:, None] == jnp.arange(rows), axis=0, dtype=mean.dtype)
        if mode.axis_name is not None:
            mean, square, share = lax.pmean((mean, square, share), mode.axis_name)
        variance = jnp.maximum(square - mean * mean, 0)
        last_visits = max(mode.visits - rows + 1, 1)
        visits = jnp.asarray([1] * (rows - 1) + [last_visits], mean.dtype)
        rate = 1 - _MOMENTUM ** (1 / (visits * mode.parts))
        weight = (rate * share)[:, None]
        for average, moment in ((self.mean, mean), (self.variance, variance)):
            old = average.get_value()
            # Not `average[...] = `: Flax then reads the sharding of a tracer, and JAX traverses
            # the whole trace to format the error, which takes quadratic time.
            average.set_value(old + weight * (lax.stop_gradient(moment) - old))
        return mean, variance


class ConvNorm(nnx.Module):
    """Convolution without bias, batch normalisation, and ReLU unless `activate` is False.

    `gain` is the initial scale of the normalisation.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int = 3,
        *,
        stride: int = 1,
        rows: int = 1,
        activate: bool = True,
        gain: float = 1.0,
        draw: Draw,
    ) -> None:
        self.conv = Conv(inputs, outputs, size, stride=stride, draw=draw)
        self.norm = BatchNorm(outputs, rows, gain)
        self.activate = activate

    def __call__(self, features: jax.Array, mode: Mode) -> jax.Array:
        normalised = self.norm(self.conv(features), mode)
        return jax.nn.relu(normalised) if self.activate else normalised


class Dense(nnx.Module):
    """An affine map of the last axis, [..., inputs] -> [..., outputs].

    The kernel's initial values are normal with standard deviation gain * sqrt(1 / fan-in) (LeCun).
    """

    def __init__(self, inputs: int, outputs: int, *, gain: float = 1.0, draw: Draw) -> None:
        self.kernel: nnx.Param[Any] = nnx.Param(draw((inputs, outputs), gain / math.sqrt(inputs)))
        self.bias = nnx.Param(np.zeros(outputs, np.float32))

    def __call__(self, features: jax.Array) -> jax.Array:
        kernel, bias = (
            part.get_value().astype(features.dtype) for part in (self.kernel, self.bias)
        )
        return features @ kernel + bias


def max_pool(features: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Max pooling over 2 x 2 windows that also returns the place of each maximum.

    If values tie, the first in row-major order is the maximum: it gets the whole gradient.

    Args:
        features: [B, H, W, C] with even H and W.

    Returns:
        The maxima [B, H / 2, W / 2, C], and their places: uint8, row * 2 + column in the window.
    """
    batch, height, width, channels = features.shape
    windows = features.reshape(batch, height // 2, 2, width // 2, 2, channels)
    rows = []
    for i in range(2):
        left, right = windows[:, :, i, :, 0], windows[:, :, i, :, 1]
        rows.append((jnp.where(right > left, right, left), (right > left).astype(jnp.uint8)))
    (upper, upper_place), (lower, lower_place) = rows
    below = lower > upper
    places = jnp.where(below, lower_place + jnp.uint8(2), upper_place)
    return jnp.where(below, lower, upper), places


def unpool(features: jax.Array, places: jax.Array) -> jax.Array:
    """Puts each value at the place that `max_pool` returned, with zeros elsewhere.

    Args:
        features: [B, h, w, C].
        places: [B, h, w, C] uint8, of `max_pool`.

    Returns:
        [B, 2 h, 2 w, C].
    """
    batch, height, width, channels = features.shape
    nothing = jnp.zeros((), features.dtype)
    spread = [jnp.where(places == place, features, nothing) for place in range(4)]
    windows = jnp.stack([jnp.stack(spread[:2], axis=3), jnp.stack(spread[2:], axis=3)], axis=2)
    return windows.reshape(batch, 2 * height, 2 * width, channels)


def double(features: jax.Array) -> jax.Array:
    """Nearest-neighbour up-sampling by two, [B, h, w, C] -> [B, 2 h, 2 w, C]."""
    batch, height, width, channels = features.shape
    shape = (batch, height, 2, width, 2, channels)
    spread = jnp.broadcast_to(features[:, :, None, :, None], shape)
    return spread.reshape(batch, 2 * height, 2 * width, channels)


def space_to_depth(images: jax.Array) -> jax.Array:
    """Moves blocks of 2 x 2 pixels to channels, [B, H, W, C] -> [B, H / 2, W / 2, 4 C]."""
    batch, height, width, channels = images.shape
    blocks = images.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // 2, width // 2, 4 * channels)


def depth_to_space(features: jax.Array) -> jax.Array:
    """The inverse of `space_to_depth`, [B, h, w, 4 C] -> [B, 2 h, 2 w, C]."""
    batch, height, width, channels = features.shape
    blocks = features.reshape(batch, height, width, 2, 2, channels // 4)
    spread = blocks.transpose(0, 1, 3, 2, 4, 5)
    return spread.reshape(batch, 2 * height, 2 * width, channels // 4)
