"""Augmentation on the device: one similarity warp out of the cached faces, then the picture itself.

Everything is a function of an explicit key, one per face, so a draw depends on (seed, step, sample)
and never on the device or on the other faces of a batch.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from rednet_jax.landmarks.crops import apply_affine, compose_affine, invert_affine, warp
from rednet_jax.landmarks.schemes import Scheme, mirror_landmarks

_LUMA = (0.299, 0.587, 0.114)
_BLUR_RADIUS = 4
# Fused into what follows, the gather, the blur and the noise would be computed for each use.
_computed_once: Callable[[Array], Array] = jax.lax.optimization_barrier


@dataclass(frozen=True)
class Augmentation:
    """How far the draws go; 0 switches a draw off.

    Attributes:
        rotation: degrees, standard deviation.
        log_scale: logarithm of the crop's side, standard deviation.
        shift: sides of the landmarks' box, standard deviation on each axis.
        mirror: probability.
        brightness: additive, of the full range, uniform within +-.
        contrast: logarithm of the factor about the mean, uniform within +-.
        saturation: logarithm of the factor about grey, uniform within +-.
        tint: logarithm of each channel's gain, uniform within +-.
        gamma: logarithm of the exponent, uniform within +-.
        grey: probability of a picture without colour.
        blur: largest standard deviation, pixels (the kernel ends at 4); half of the pictures are
            blurred.
        noise: largest standard deviation, of the full range.
        occlusion: probability of each of two rectangles.
        occlusion_side: largest side of a rectangle, in sides of the picture.
    """

    rotation: float = 12.0
    log_scale: float = 0.10
    shift: float = 0.05
    mirror: float = 0.5
    brightness: float = 0.15
    contrast: float = 0.35
    saturation: float = 0.4
    tint: float = 0.1
    gamma: float = 0.3
    grey: float = 0.1
    blur: float = 1.5
    noise: float = 0.04
    occlusion: float = 0.35
    occlusion_side: float = 0.45


def augment(
    config: Augmentation,
    keys: Array,
    images: Array,
    landmarks: Array,
    labelled: Array,
    *,
    scheme: Scheme,
    cover: float,
    margin: float,
    size: int,
) -> tuple[Array, Array, Array]:
    """Draws one training picture from each cached face.

    Args:
        config: how far the draws go.
        keys: typed keys [B], one per face.
        images: uint8 [B, C, C, 3], cached faces.
        landmarks: float32 [B, L, 2], in pixels of `images`.
        labelled: bool [B, L].
        scheme: which points change places in the mirror.
        cover: side of a cached face in sides of the network's crop.
        margin: side of the network's crop in sides of the landmarks' box.
        size: pixels S on each side of the result.

    Returns:
        images float32 [B, S, S, 3] in [0, 1], landmarks float32 [B, L, 2] in their pixels (0 where
        not labelled; some may lie outside), labelled bool [B, L].
    """

    def one(key: Array, image: Array, points: Array, known: Array) -> tuple[Array, Array, Array]:
        place, smear, paint, cut, noise = jax.random.split(key, 5)
        affine, mirrored = _draw_affine(
            config, place, cached=image.shape[0], cover=cover, margin=margin, size=size
        )
        points = apply_affine(invert_affine(affine), points)
        flipped = mirror_landmarks(points, size, scheme)
        points = jnp.where(mirrored, flipped, points)
        known = jnp.where(mirrored, known[jnp.array(scheme.mirror)], known)
        flip = jnp.array([[-1.0, 0.0, size - 1.0], [0.0, 1.0, 0.0]])
        affine = jnp.where(mirrored, compose_affine(affine, flip), affine)
        image = warp(image.astype(jnp.float32), affine, (size, size)) / 255
        image = _computed_once(_blur(config.blur, smear, _computed_once(image)))
        grain = _computed_once(_grain(noise, image.shape))
        image = _occlude(config, cut, _paint(config, paint, image, grain), grain)
        return image, jnp.where(known[:, None], points, 0), known

    return jax.vmap(one)(keys, images, landmarks, labelled)


def _similarity(
    angle: Array, scale: Array, shift: Array, cached: int, cover: float, size: int
) -> Array:
    """Returns the map [2, 3] from crop to cached pixels, turned and scaled about the centre."""
    scale = scale * cached / (cover * size)
    cosine, sine = scale * jnp.cos(angle), scale * jnp.sin(angle)
    matrix = jnp.array([[cosine, -sine], [sine, cosine]])
    offset = (cached - 1) / 2 + shift - matrix.sum(axis=1) * (size - 1) / 2
    return jnp.concatenate([matrix, offset[:, None]], axis=1)


def _draw_affine(
    config: Augmentation, key: Array, *, cached: int, cover: float, margin: float, size: int
) -> tuple[Array, Array]:
    """Returns the map [2, 3] from crop to cached pixels, and whether the crop is mirrored."""
    keys = jax.random.split(key, 4)
    # Cut at 2.5 deviations: far draws would show what lies beyond the cached face, black.
    rotation, log_scale = jax.random.truncated_normal(keys[0], -2.5, 2.5, (2,))
    shift = jax.random.truncated_normal(keys[1], -2.5, 2.5, (2,))
    affine = _similarity(
        jnp.deg2rad(config.rotation) * rotation,
        jnp.exp(config.log_scale * log_scale),
        config.shift * shift * cached / (cover * margin),
        cached,
        cover,
        size,
    )
    return affine, jax.random.bernoulli(keys[2], config.mirror)


def _grain(key: Array, shape: tuple[int, ...]) -> Array:
    """Returns uniform noise of mean 0 and variance 1, of shape [H, W, 3].

    One random word gives all channels of a pixel: normal draws took longer than the network's stem.
    """
    words = jax.random.bits(key, shape[:2])
    fields = (words[..., None] >> jnp.array([0, 10, 20], words.dtype)) & 1023
    return (fields.astype(jnp.float32) - 511.5) * (12**0.5 / 1024)


def _paint(config: Augmentation, key: Array, image: Array, grain: Array) -> Array:
    """Returns an image [H, W, 3] in [0, 1] with colours, contrast, gamma and noise drawn."""
    keys = jax.random.split(key, 7)

    def factor(key: Array, spread: float, shape: tuple[int, ...] = ()) -> Array:
        return jnp.exp(jax.random.uniform(key, shape, minval=-spread, maxval=spread))

    grey = image @ jnp.array(_LUMA)
    image = grey[..., None] + factor(keys[1], config.saturation) * (image - grey[..., None])
    colourless = jax.random.bernoulli(keys[2], config.grey)
    image = jnp.where(colourless, grey[..., None], image * factor(keys[3], config.tint, (3,)))
    mean = jnp.mean(grey)
    image = mean + factor(keys[4], config.contrast) * (image - mean)
    image = image + config.brightness * jax.random.uniform(keys[5], minval=-1.0, maxval=1.0)
    # Gamma's slope is infinite at 0 for exponents below 1; no gradient is taken here.
    image = jnp.clip(image, 0, 1) ** factor(keys[6], config.gamma)
    return jnp.clip(image + config.noise * jax.random.uniform(keys[0]) * grain, 0, 1)


def _blur(largest: float, key: Array, image: Array) -> Array:
    """Returns the image [H, W, 3] blurred, or not."""
    on, width = jax.random.split(key)
    deviation = largest * jax.random.uniform(width) * jax.random.bernoulli(on)
    offsets = jnp.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1)
    weights = jnp.exp(-0.5 * (offsets / jnp.maximum(deviation, 1e-3)) ** 2)
    weights = weights / weights.sum()
    # Shifted sums, not a convolution: one kernel a picture would be a grouped convolution under
    # vmap, which the CPU backend runs slowly.
    for axis in (0, 1):
        border = [(_BLUR_RADIUS * (i == axis),) * 2 for i in range(3)]
        padded = jnp.pad(image, border, mode="edge")
        shifted = (
            weight * jax.lax.slice_in_dim(padded, i, i + image.shape[axis], axis=axis)
            for i, weight in enumerate(weights)
        )
        image = functools.reduce(jnp.add, shifted)
    return image


def _occlude(config: Augmentation, key: Array, image: Array, grain: Array) -> Array:
    """Returns the image [H, W, 3] with up to two noisy rectangles painted over it."""
    height, width = image.shape[:2]
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)
    for rectangle in jax.random.split(key, 2):
        on, place, extent, colour = jax.random.split(rectangle, 4)
        centre = jax.random.uniform(place, (2,)) * jnp.array([height, width])
        half = jax.random.uniform(extent, (2,), minval=0.1, maxval=1.0) * (
            config.occlusion_side / 2 * jnp.array([height, width])
        )
        inside = (jnp.abs(rows - centre[0]) < half[0]) & (jnp.abs(columns - centre[1]) < half[1])
        inside &= jax.random.bernoulli(on, config.occlusion)
        fill = jax.random.uniform(colour, (3,)) + 0.1 * grain
        image = jnp.where(inside[..., None], jnp.clip(fill, 0, 1), image)
    return image
