"""What a camera and a compressor do to an image: blur, colours, noise, occluders, blocks."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from rednet_jax.data.augment.config import Augmentation
from rednet_jax.data.augment.jpeg import BLOCK, compress

_LUMA = (0.299, 0.587, 0.114)


def degrade(config: Augmentation, key: Array, images: Array) -> Array:
    """Returns images as one draw leaves them, in [0, 1]; only the noise is fresh in each.

    Args:
        config: how far the draws go.
        key: typed key.
        images: float32 [..., H, W, 3] in [0, 1], one image or the frames of one clip.
    """
    smear, paint, cut, noise, code = jax.random.split(key, 5)
    images = _blur(config.blur, smear, images)
    grain = _grain(noise, images.shape)
    images = _occlude(config, cut, _paint(config, paint, images, grain), grain)
    return _blocks(config, code, images)


def _grain(key: Array, shape: tuple[int, ...]) -> Array:
    """Returns uniform noise of mean 0 and variance 1, of shape [..., 3].

    One random word gives all channels of a pixel: normal draws took longer than the network's stem.
    """
    words = jax.random.bits(key, shape[:-1])
    fields = (words[..., None] >> jnp.array([0, 10, 20], words.dtype)) & 1023
    return (fields.astype(jnp.float32) - 511.5) * (12**0.5 / 1024)


def _paint(config: Augmentation, key: Array, images: Array, grain: Array) -> Array:
    """Returns images [..., 3] in [0, 1] with colours, contrast, gamma and noise drawn."""
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
    # Gamma's slope is infinite at 0 for exponents below 1; no gradient is taken here.
    images = jnp.clip(images, 0, 1) ** factor(keys[6], config.gamma)
    return jnp.clip(images + config.noise * jax.random.uniform(keys[0]) * grain, 0, 1)


def _blur(largest: float, key: Array, images: Array) -> Array:
    """Returns the images [..., H, W, 3] blurred, or not."""
    on, width = jax.random.split(key)
    deviation = largest * jax.random.uniform(width) * jax.random.bernoulli(on)
    # Products of matrices: a kernel an image would be a grouped convolution under vmap, and sums
    # of shifted images would resample the cached face once for each shift, both slow on the CPU.
    rows, columns = (_gaussians(side, deviation) for side in images.shape[-3:-1])
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    return product("xj,...yjc->...yxc", columns, product("yi,...ixc->...yxc", rows, images))


def _gaussians(side: int, deviation: Array) -> Array:
    """Returns weights [side, side]: each row sums to 1, about the pixel of its own number."""
    place = jnp.arange(side)
    weights = jnp.exp(-0.5 * ((place[:, None] - place) / jnp.maximum(deviation, 1e-3)) ** 2)
    return weights / weights.sum(-1, keepdims=True)


def _occlude(config: Augmentation, key: Array, images: Array, grain: Array) -> Array:
    """Returns the images [..., H, W, 3] with up to two noisy rectangles painted over them."""
    height, width = images.shape[-3:-1]
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
        images = jnp.where(inside[..., None], jnp.clip(fill, 0, 1), images)
    return images


def _blocks(config: Augmentation, key: Array, images: Array) -> Array:
    """Returns the images [..., H, W, 3] as JPEG keeps them, or as they are."""
    on, grade, place = jax.random.split(key, 3)
    quality = jax.random.uniform(grade, minval=config.worst_quality, maxval=config.best_quality)
    # The crop's own pixels are no image's first ones.
    corner = jax.random.randint(place, (2,), 0, BLOCK)
    blocky = compress(images, quality, corner)
    return jnp.where(jax.random.bernoulli(on, config.blocks), blocky, images)
