"""Degradations of an image: blur, colour changes, noise, occluders and JPEG blocks."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from rednet_jax.data.augment.config import Augmentation
from rednet_jax.data.augment.jpeg import BLOCK, compress

_LUMA = (0.299, 0.587, 0.114)


def degrade(config: Augmentation, key: Array, images: Array) -> Array:
    """Returns degraded images in [0, 1]; they share all draws except the noise.

    Args:
        config: ranges of the draws.
        key: typed key.
        images: float32 [..., H, W, 3] in [0, 1], one image or the frames of one clip.
    """
    blur_key, colour_key, occlusion_key, noise_key, jpeg_key = jax.random.split(key, 5)
    images = _blur(config.blur, blur_key, images)
    noise = _noise(noise_key, images.shape)
    images = _recolour(config, colour_key, images, noise)
    images = _occlude(config, occlusion_key, images, noise)
    return _blocks(config, jpeg_key, images)


def _noise(key: Array, shape: tuple[int, ...]) -> Array:
    """Returns uniform noise of mean 0 and variance 1, of shape [..., 3].

    One random word gives the three channels of a pixel: normal draws took longer than the
    network's stem.
    """
    words = jax.random.bits(key, shape[:-1])
    fields = (words[..., None] >> jnp.array([0, 10, 20], words.dtype)) & 1023
    return (fields.astype(jnp.float32) - 511.5) * (12**0.5 / 1024)


def _recolour(config: Augmentation, key: Array, images: Array, noise: Array) -> Array:
    """Returns images [..., 3] in [0, 1] with random colours, contrast, gamma and noise."""
    keys = jax.random.split(key, 7)

    def factor(key: Array, spread: float, shape: tuple[int, ...] = ()) -> Array:
        return jnp.exp(jax.random.uniform(key, shape, minval=-spread, maxval=spread))

    grey = images @ jnp.array(_LUMA)
    images = grey[..., None] + factor(keys[1], config.saturation) * (images - grey[..., None])
    colourless = jax.random.bernoulli(keys[2], config.grey)
    images = jnp.where(colourless, grey[..., None], images * factor(keys[3], config.tint, (3,)))
    mean = jnp.mean(grey)
    images = mean + factor(keys[4], config.contrast) * (images - mean)
    images = images + config.brightness * jax.random.uniform(keys[5], minval=-1.0, maxval=1.0)
    # The slope at 0 is infinite for exponents below 1, but no gradient is taken here.
    images = jnp.clip(images, 0, 1) ** factor(keys[6], config.gamma)
    return jnp.clip(images + config.noise * jax.random.uniform(keys[0]) * noise, 0, 1)


def _blur(largest: float, key: Array, images: Array) -> Array:
    """Returns the images [..., H, W, 3], blurred with probability 1/2."""
    applied, width = jax.random.split(key)
    deviation = largest * jax.random.uniform(width) * jax.random.bernoulli(applied)
    # Matrix products, since the alternatives are slow on the CPU: a kernel per image would be a
    # grouped convolution under vmap, and a sum of shifted images would resample the cached face
    # once per shift.
    rows, columns = (_gaussians(side, deviation) for side in images.shape[-3:-1])
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    return product("xj,...yjc->...yxc", columns, product("yi,...ixc->...yxc", rows, images))


def _gaussians(side: int, deviation: Array) -> Array:
    """Returns weights [side, side]: row i is a Gaussian about pixel i that sums to 1."""
    place = jnp.arange(side)
    weights = jnp.exp(-0.5 * ((place[:, None] - place) / jnp.maximum(deviation, 1e-3)) ** 2)
    return weights / weights.sum(-1, keepdims=True)


def _occlude(config: Augmentation, key: Array, images: Array, noise: Array) -> Array:
    """Returns the images [..., H, W, 3] with up to two noisy rectangles painted over them."""
    height, width = images.shape[-3:-1]
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)
    for rectangle in jax.random.split(key, 2):
        applied, place, extent, colour = jax.random.split(rectangle, 4)
        centre = jax.random.uniform(place, (2,)) * jnp.array([height, width])
        half = jax.random.uniform(extent, (2,), minval=0.1, maxval=1.0) * (
            config.occlusion_side / 2 * jnp.array([height, width])
        )
        inside = (jnp.abs(rows - centre[0]) < half[0]) & (jnp.abs(columns - centre[1]) < half[1])
        inside &= jax.random.bernoulli(applied, config.occlusion)
        fill = jax.random.uniform(colour, (3,)) + 0.1 * noise
        images = jnp.where(inside[..., None], jnp.clip(fill, 0, 1), images)
    return images


def _blocks(config: Augmentation, key: Array, images: Array) -> Array:
    """Returns the images [..., H, W, 3], compressed as JPEG with probability `config.blocks`."""
    applied, grade, place = jax.random.split(key, 3)
    quality = jax.random.uniform(grade, minval=config.worst_quality, maxval=config.best_quality)
    # A crop starts anywhere in the block grid of its image.
    corner = jax.random.randint(place, (2,), 0, BLOCK)
    blocky = compress(images, quality, corner)
    return jnp.where(jax.random.bernoulli(applied, config.blocks), blocky, images)
