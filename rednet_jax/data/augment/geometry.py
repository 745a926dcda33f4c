"""Geometry of a drawn crop: the plain crop rotated, scaled, shifted, mirrored and tilted."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rednet_jax.data.augment.config import Augmentation, Drift
from rednet_jax.landmarks.crops import crop_transform
from rednet_jax.landmarks.schemes import Scheme

_CUT = 2.5
"""Deviations at which normal draws are truncated. Larger draws would reach beyond the cached face,
which is black there. With a cover of 1.6 the defaults do so in 4 % of the crops, in at most 3 % of
a crop's pixels."""

_DRIFT_KEPT = 0.9
"""Share of one frame's drift that remains in the next frame."""


class Placement(NamedTuple):
    """A crop relative to the plain crop; float32 arrays of shape [...], except `shift`.

    Attributes:
        rotation: degrees.
        log_scale: logarithm of the ratio of their sides.
        shift: [..., 2], offset of its centre in sides of the landmarks' box.
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
    """Returns the placement of draws [..., 4] of deviation 1, scaled by `deviations`."""
    return Placement(
        deviations.rotation * normal[..., 0],
        deviations.log_scale * normal[..., 1],
        deviations.shift * normal[..., 2:],
    )


def plain_crop(*, cached: int, cover: float, margin: float, size: int) -> Array:
    """Returns the map [2, 3] from pixels of the plain crop to pixels of the face's cached image.

    The plain crop is cut around the same box as the cached image and has the same centre.
    """
    middle, half = (cached - 1) / 2, cached / (cover * margin) / 2
    box = jnp.array([middle - half, middle - half, middle + half, middle + half])
    crop: Array = crop_transform(box, margin=margin, size=size)
    return crop


def placed_crop(placement: Placement, mirrored: Array, *, margin: float, size: int) -> Array:
    """Returns maps [..., 2, 3] from pixels of the drawn crop to pixels of the plain one.

    Args:
        placement: of shape [...].
        mirrored: bool [], whether the crop is flipped from left to right.
        margin: side of the crop in sides of the landmarks' box.
        size: pixels S on each side of the crop.
    """
    angle, scale = jnp.deg2rad(placement.rotation), jnp.exp(placement.log_scale)
    cosine, sine = scale * jnp.cos(angle), scale * jnp.sin(angle)
    turned = jnp.stack([jnp.stack([cosine, -sine], -1), jnp.stack([sine, cosine], -1)], -2)
    linear = turned * jnp.where(mirrored, jnp.array([-1.0, 1.0]), 1)
    offset = (size - 1) / 2 * (1 - linear.sum(-1)) + placement.shift * (size / margin)
    return jnp.concatenate([linear, offset[..., None]], -1)


def pixel_grid(size: int) -> Array:
    """Returns the pixels (x, y) of a crop, float32 [S, S, 2]."""
    side = jnp.arange(size, dtype=jnp.float32)
    return jnp.stack(jnp.meshgrid(side, side), -1)


def tilt(points: Array, slope: Array, size: int) -> Array:
    """Maps pixels of a tilted crop to pixels of the crop without tilt.

    With u from -1 to 1 across the crop, v = u / (1 + slope . u): the scale in the middle is 1.

    Args:
        points: [..., 2], pixels (x, y).
        slope: [2], relative change of scale from the middle to the edge on each axis.
        size: pixels S on each side of the crop.
    """
    return _projected(points, slope, size)


def level(points: Array, slope: Array, size: int) -> Array:
    """Undoes `tilt`: u = v / (1 - slope . v)."""
    return _projected(points, -slope, size)


def _projected(points: Array, slope: Array, size: int) -> Array:
    middle = (size - 1) / 2
    across = points - middle
    slope = slope * 2 / size
    # Not a sum over the axis: under vmap, XLA's CPU backend (0.10.2) fuses it into wrong numbers.
    depth = 1 + across[..., :1] * slope[0] + across[..., 1:] * slope[1]
    return middle + across / depth


def in_mirror_order(
    mirrored: Array, points: Array, known: Array, scheme: Scheme
) -> tuple[Array, Array]:
    """Returns points [..., L, 2] and labels [..., L], with mirror pairs swapped if `mirrored`."""
    order = jnp.where(mirrored, jnp.array(scheme.mirror), jnp.arange(scheme.count))
    return points[..., order, :], known[..., order]
