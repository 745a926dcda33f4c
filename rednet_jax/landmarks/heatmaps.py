"""Heat maps and back: float centres in, sub-pixel points out, no rounding on the way."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

_SMALLEST = 1e-30
"""What a map's value counts as at least, so that its logarithm is finite, and how far below 1 a
high peak still has a shape: processors differ in whether less is 0."""


def to_map_pixels(landmarks: jax.Array, crop_size: int, map_size: int) -> jax.Array:
    """Returns landmarks [..., 2] of a crop in pixels of a map over the same square."""
    return (landmarks + 0.5) * (map_size / crop_size) - 0.5


def to_crop_pixels(landmarks: jax.Array, crop_size: int, map_size: int) -> jax.Array:
    """Returns landmarks [..., 2] of a map in pixels of the crop over the same square."""
    return (landmarks + 0.5) * (crop_size / map_size) - 0.5


def gaussian_heatmaps(landmarks: jax.Array, size: tuple[int, int], sigma: float) -> jax.Array:
    """Returns heat maps [..., H, W, L] with a Gaussian of peak 1 at each landmark's float centre.

    Args:
        landmarks: [..., L, 2], map pixels.
        size: (H, W).
        sigma: deviation in map pixels.
    """
    height, width = size

    def profile(centres: jax.Array, length: int) -> jax.Array:
        places = jnp.arange(length, dtype=landmarks.dtype)[:, None]
        return jnp.exp(-0.5 * ((places - centres[..., None, :]) / sigma) ** 2)

    # A Gaussian is the product of its profiles: H + W exponentials instead of H * W.
    rows = profile(landmarks[..., 1], height)
    columns = profile(landmarks[..., 0], width)
    return rows[..., :, None, :] * columns[..., None, :, :]


def soft_argmax(weights: jax.Array) -> jax.Array:
    """Returns the centres of mass [..., L, 2] (x, y) in map pixels of weights [..., H, W, L] >= 0.

    A map whose weights sum to far less than 1e-6 has its centre in the middle.
    """
    height, width = weights.shape[-3:-1]
    x = jnp.arange(width, dtype=weights.dtype) - (width - 1) / 2
    y = jnp.arange(height, dtype=weights.dtype) - (height - 1) / 2
    # A map that all but vanishes would have a gradient of nan: that divides by the square.
    total = weights.sum((-3, -2)) + 1e-6
    # By default, accelerators round the coordinates in a matrix product to 8 or 11 bits.
    exact = jax.lax.Precision.HIGHEST
    across = jnp.einsum("...wl,w->...l", weights.sum(-3), x, precision=exact) / total
    down = jnp.einsum("...hl,h->...l", weights.sum(-2), y, precision=exact) / total
    return jnp.stack([across + (width - 1) / 2, down + (height - 1) / 2], axis=-1)


def decode_peak(logits: jax.Array) -> jax.Array:
    """Finds the peak of each map sigmoid(logits) to a fraction of a pixel.

    The logarithm of a Gaussian is a parabola, so three neighbouring logarithms on each axis give
    its centre exactly; at the border the three inmost pixels are taken, which is exact too. They
    are taken from the logits: near 1 a sigmoid in float32 has few digits left and then none, so
    that many pixels tie.

    Args:
        logits: [..., H, W, L], float32 or float64; H and W at least 3.

    Returns:
        Points [..., L, 2] (x, y) in map pixels.
    """
    logs = jnp.maximum(jax.nn.log_sigmoid(logits), math.log(_SMALLEST))
    *lead, height, width, count = logits.shape
    index = logits.reshape(*lead, height * width, count).argmax(-2)
    logs = logs.reshape(*lead, height * width, count)

    def vertex(place: jax.Array, length: int, stride: int) -> jax.Array:
        middle = jnp.clip(place, 1, length - 2)
        centre = index + (middle - place) * stride
        low, mid, high = (
            jnp.take_along_axis(logs, (centre + offset)[..., None, :], axis=-2)[..., 0, :]
            for offset in (-stride, 0, stride)
        )
        curvature = low - 2 * mid + high
        # What is less is rounding. High peaks have logarithms of all but 0.
        peaked = curvature < -(1e-6 * jnp.abs(mid) + _SMALLEST)
        offset = 0.5 * (low - high) / jnp.where(peaked, curvature, -1)
        # A plateau or noise at the border has its vertex far away; a true peak is within a pixel.
        found = jnp.where(peaked, middle + jnp.clip(offset, -2, 2), place)
        return found.astype(logits.dtype)

    row, column = index // width, index % width
    return jnp.stack([vertex(column, width, 1), vertex(row, height, width)], axis=-1)
