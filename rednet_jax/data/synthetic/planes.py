"""Helpers of the renderer for planes [S, S], the values of all pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

Surface = tuple[Array, Array, Array]
"""Planes x, y and z of points or directions."""

# A barrier, since XLA would fuse a plane into its users and recompute it for each of them.
computed_once: Callable[[Any], Any] = jax.lax.optimization_barrier


def step(value: Array, softness: Array | float) -> Array:
    """Returns a soft step at 0: 0 below, 1 above, linear within +-softness / 2."""
    return jnp.clip(value / softness + 0.5, 0, 1)


def over(image: Array, mask: Array, colour: Array) -> Array:
    """Blends a colour [..., 3] over an image [S, S, 3] by a mask [S, S]."""
    result: Array = image + computed_once(mask)[..., None] * (colour - image)
    return result


def curve(knots: Array, x: Array, rounding: float = 0.012) -> Array:
    """Returns the height at x of the rounded polyline through knots [N, 2] in order of x."""
    slope = (knots[1:, 1] - knots[:-1, 1]) / jnp.maximum(knots[1:, 0] - knots[:-1, 0], 1e-3)
    height = knots[0, 1] + slope[0] * (x - knots[0, 0])
    for i in range(1, len(knots) - 1):
        away = x - knots[i, 0]
        ramp = 0.5 * (away + jnp.sqrt(away**2 + rounding**2))
        height = height + (slope[i] - slope[i - 1]) * ramp
    result: Array = computed_once(height)
    return result


def clouds(grid: Array, size: int) -> Array:
    """Returns values [rows, columns] interpolated to [size, size]."""

    def weights(count: int) -> Array:
        place = jnp.linspace(0, count - 1, size)[:, None]
        return jnp.maximum(0, 1 - jnp.abs(place - jnp.arange(count)))

    return weights(grid.shape[0]) @ grid @ weights(grid.shape[1]).T
