"""Where a drawn crop lies: the plain crop turned, resized, shifted, mirrored and tilted."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rednet_jax.data.augment.config import Augmentation, Drift
from rednet_jax.landmarks.crops import crop_transform
from rednet_jax.landmarks.schemes import Scheme

_CUT = 2.5
"""Deviations. Far draws would show what lies beyond the cached face, black. With a cover of 1.6 the
defaults do so in 4 % of the crops, at worst in 3 % of a crop's pixels."""

_DRIFT_KEPT = 0.9
"""Of one frame's drift in the next."""


class Placement(NamedTuple):
    """A crop relative to the plain one, all float32 of one shape [...] but for `shift`.

    Attributes:
        rotation: degrees.
        log_scale: logarithm of its side, 0 for the plain one.
        shift: [..., 2], of its centre, sides of the landmarks' box.
    """

    rotation: Array
    log_scale: Array
    shift: Array


def draw_placement(config: Augmentation, key: Array) -> Placement:
    """Returns one placement, of shape []."""
    return _scaled(config, _normal(key, (4,)))


def draw_drift(drift: Drift, key: Array, frames: int) -> Placement:
    """Returns the drift of each of T frames, of shape [T], to be added to a clip's placement."""
    steps = _normal(key, (frames, 4)).at[0].set(0)
    age = jnp.arange(frames)[:, None] - jnp.arange(frames)
    kept = jnp.where(age >= 0, _DRIFT_KEPT ** jnp.maximum(age, 0), 0)
    return _scaled(drift, jnp.matmul(kept, steps, precision=jax.lax.Precision.HIGHEST))


def draw_slope(config: Augmentation, key: Array) -> Array:
    """Returns the slope [2] that `tilt` takes."""
    return config.perspective * _normal(key, (2,))


def _normal(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.truncated_normal(key, -_CUT, _CUT, shape)


def _scaled(deviations: Augmentation | Drift, normal: Array) -> Placement:
    """Gives draws [..., 4] of deviation 1 the deviations of a configuration."""
    return Placement(
        deviations.rotation * normal[..., 0],
        deviations.log_scale * normal[..., 1],
        deviations.shift * normal[..., 2:],
    )


def plain_crop(*, cached: int, cover: float, margin: float, size: int) -> Array:
    """Returns the map [2, 3] from pixels of the plain crop to pixels of the face's cached image.

    The crop rule around the box that the cached image was cut around: it has the same centre.
    """
    middle, half = (cached - 1) / 2, cached / (cover * margin) / 2
    box = jnp.array([middle - half, middle - half, middle + half, middle + half])
    crop: Array = crop_transform(box, margin=margin, size=size)
    return crop


def placed_crop(placement: Placement, mirrored: Array, *, margin: float, size: int) -> Array:
    """Returns maps [..., 2, 3] from pixels of the drawn crop to pixels of the plain one.

    Args:
        placement: of shape [...].
        mirrored: bool [], whether columns are counted from the other side.
        margin: side of the crop in sides of the landmarks' box.
        size: pixels S on each side of the crop.
    """
    angle, scale = jnp.deg2rad(placement.rotation), jnp.exp(placement.log_scale)
    cosine, sine = scale * jnp.cos(angle), scale * jnp.sin(angle)
    turned = jnp.stack([jnp.stack([cosine, -sine], -1), jnp.stack([sine, cosine], -1)], -2)
    # Turned about its centre, and there mirrored.
    linear = turned * jnp.where(mirrored, jnp.array([-1.0, 1.0]), 1)
    offset = (size - 1) / 2 * (1 - linear.sum(-1)) + placement.shift * (size / margin)
    return jnp.concatenate([linear, offset[..., None]], -1)


def pixel_grid(size: int) -> Array:
    """Returns the pixels (x, y) of a crop, float32 [S, S, 2]."""
    side = jnp.arange(size, dtype=jnp.float32)
    return jnp.stack(jnp.meshgrid(side, side), -1)


def tilt(points: Array, slope: Array, size: int) -> Array:
    """Maps pixels of a tilted crop to pixels of the crop that looks straight at the face.

    With u from -1 to 1 across the crop, v = u / (1 + slope . u): the middle keeps its scale.

    Args:
        points: [..., 2], pixels (x, y).
        slope: [2], relative change of scale from the middle to the edge on each axis.
        size: pixels S on each side of the crop.
    """
    return _seen_from(points, slope, size)


def level(points: Array, slope: Array, size: int) -> Array:
    """Undoes `tilt`: u = v / (1 - slope . v)."""
    return _seen_from(points, -slope, size)


def _seen_from(points: Array, slope: Array, size: int) -> Array:
    middle = (size - 1) / 2
    across = points - middle
    slope = slope * 2 / size
    # Not a sum over the axis: under vmap XLA's CPU backend (0.10.2) fuses that into wrong numbers.
    depth = 1 + across[..., :1] * slope[0] + across[..., 1:] * slope[1]
    return middle + across / depth


def in_mirror_order(
    mirrored: Array, points: Array, known: Array, scheme: Scheme
) -> tuple[Array, Array]:
    """Returns points [..., L, 2] and labels [..., L]; if mirrored, pairs in each other's place."""
    order = jnp.where(mirrored, jnp.array(scheme.mirror), jnp.arange(scheme.count))
    return points[..., order, :], known[..., order]
