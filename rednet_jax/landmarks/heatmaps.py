"""Heat maps of landmarks at sub-pixel positions, and their decoding."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

_SMALLEST = 1e-30
"""Lower limit of a map's values, so that their logarithms are finite, and least curvature of a
peak. Some processors flush smaller numbers to 0."""


def to_map_pixels(landmarks: jax.Array, crop_size: int, map_size: int) -> jax.Array:
    """Converts landmarks [..., 2] from crop pixels to the pixels of a map of the same square."""
    return (landmarks + 0.5) * (map_size / crop_size) - 0.5


def to_crop_pixels(landmarks: jax.Array, crop_size: int, map_size: int) -> jax.Array:
    """Converts landmarks [..., 2] from map pixels to the pixels of a crop of the same square."""
    return (landmarks + 0.5) * (crop_size / map_size) - 0.5


def gaussian_heatmaps(landmarks: jax.Array, size: tuple[int, int], sigma: float) -> jax.Array:
    """Returns heat maps [..., H, W, L] with a Gaussian of peak 1 at each landmark, not rounded.

    Args:
        landmarks: [..., L, 2], map pixels.
        size: (H, W).
        sigma: standard deviation in map pixels.
    """
    height, width = size

    def profile(centres: jax.Array, length: int) -> jax.Array:
        pixels = jnp.arange(length, dtype=landmarks.dtype)[:, None]
        return jnp.exp(-0.5 * ((pixels - centres[..., None, :]) / sigma) ** 2)

    # The product of the profiles on both axes needs H + W exponentials instead of H * W.
    rows = profile(landmarks[..., 1], height)
    columns = profile(landmarks[..., 0], width)
    return rows[..., :, None, :] * columns[..., None, :, :]


def soft_argmax(weights: jax.Array) -> jax.Array:
    """Returns the centres of mass [..., L, 2] (x, y) in map pixels of weights [..., H, W, L] >= 0.

    If the weights of a map sum to far less than 1e-6, its centre of mass is the middle of the map.
    """
    height, width = weights.shape[-3:-1]
    x = jnp.arange(width, dtype=weights.dtype) - (width - 1) / 2
    y = jnp.arange(height, dtype=weights.dtype) - (height - 1) / 2
    # The gradient divides by the square of the total, and would be nan for tiny totals.
    total = weights.sum((-3, -2)) + 1e-6
    # By default, accelerators round the coordinates in a matrix product to 8 or 11 bits.
    exact = jax.lax.Precision.HIGHEST
    across = jnp.einsum("...wl,w->...l", weights.sum(-3), x, precision=exact) / total
    down = jnp.einsum("...hl,h->...l", weights.sum(-2), y, precision=exact) / total
    return jnp.stack([across + (width - 1) / 2, down + (height - 1) / 2], axis=-1)


def decode_peak(logits: jax.Array) -> jax.Array:
    """Returns the peak of each map sigmoid(logits) with sub-pixel precision.

    The logarithm of a Gaussian is a parabola, so that the logarithms of three neighbouring pixels
    on each axis give its centre exactly. At the border the three pixels nearest to it are used,
    which is also exact. The logarithms are computed from the logits, because a float32 sigmoid near
    1 loses precision and many pixels become equal.

    Args:
        logits: [..., H, W, L], float32 or float64; H and W at least 3.

    Returns:
        Points [..., L, 2] (x, y) in map pixels.
    """
    logs = jnp.maximum(jax.nn.log_sigmoid(logits), math.log(_SMALLEST))
    *lead, height, width, count = logits.shape
    index = logits.reshape(*lead, height * width, count).argmax(-2)
    logs = logs.reshape(*lead, height * width, count)

    def vertex(position: jax.Array, length: int, stride: int) -> jax.Array:
        middle = jnp.clip(position, 1, length - 2)
        centre = index + (middle - position) * stride
        low, mid, high = (
            jnp.take_along_axis(logs, (centre + offset)[..., None, :], axis=-2)[..., 0, :]
            for offset in (-stride, 0, stride)
        )
        curvature = low - 2 * mid + high
        # A smaller curvature is rounding error. The logarithms of high peaks are close to 0.
        peaked = curvature < -(1e-6 * jnp.abs(mid) + _SMALLEST)
        offset = 0.5 * (low - high) / jnp.where(peaked, curvature, -1)
        # The vertex of a plateau or of noise at the border may be far away.
        peak = jnp.where(peaked, middle + jnp.clip(offset, -2, 2), position)
        return peak.astype(logits.dtype)

    row, column = index // width, index % width
    return jnp.stack([vertex(column, width, 1), vertex(row, height, width)], axis=-1)
