"""Re-crops between passes: each pass sees the face where the last one found it.

Not in the papers. A crop is an affine map [B, 2, 3] from its pixels to those of the image that
the network was given, which shows `context` times its side.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from rednet_jax.landmarks.crops import apply_affine, compose_affine, invert_affine, warp
from rednet_jax.model.config import RedNetConfig

# Sides of a crop in those of the first one: beyond them points do not say where the face is.
_SMALLEST, _LARGEST = 0.25, 4.0


def first_crop(config: RedNetConfig, batch: int, dtype: Any = jnp.float32) -> jax.Array:
    """Returns the crop [B, 2, 3] in the middle of the image, at the image's resolution."""
    offset = (config.input_size - config.image_size) / 2
    crop = jnp.array([[1, 0, offset], [0, 1, offset]], jnp.promote_types(dtype, jnp.float32))
    return jnp.broadcast_to(crop, (batch, 2, 3))


def middle(config: RedNetConfig, images: jax.Array) -> jax.Array:
    """Returns the first crop [B, image_size, image_size, 3] of images: their middle, copied."""
    offset = (config.input_size - config.image_size) // 2
    inside = slice(offset, offset + config.image_size)
    return images[:, inside, inside]


def next_crop(config: RedNetConfig, landmarks: jax.Array) -> jax.Array:
    """Returns the crop [B, 2, 3] in which the points lie as those of the mean shape do.

    Their centroid, their spread about it and, with 'similarity', their rotation (least squares)
    become those of the mean shape. Spread and centroid are those of all points, so that one wrong
    point moves the crop little, and a turned head, narrower than the mean shape, does not enlarge
    it. One landmark alone keeps scale and rotation of the first crop. No gradient passes: a crop is
    a choice of what to look at.

    Args:
        config: what a re-crop follows, and its margin.
        landmarks: [B, L, 2], image pixels.
    """
    landmarks = jax.lax.stop_gradient(landmarks)
    size, dtype = config.image_size, landmarks.dtype
    shape = jnp.asarray(config.scheme.shape, dtype)
    shape = shape * (size / config.recrop_margin) + (size - 1) / 2
    shape_centre = shape.mean(0)
    centre = jnp.clip(landmarks.mean(-2), 0, config.input_size - 1)
    apart, shape_apart = landmarks - landmarks.mean(-2, keepdims=True), shape - shape_centre
    if config.scheme.count == 1:
        # One point has no spread: the crop follows its place alone.
        scale = jnp.ones_like(centre[:, 0])
    else:
        spread = jnp.sqrt(jnp.sum(apart**2, (-2, -1)) / jnp.sum(shape_apart**2))
        scale = jnp.clip(spread, _SMALLEST, _LARGEST)
    if config.recrop == "similarity" and config.scheme.count > 1:
        along = jnp.sum(apart * shape_apart, (-2, -1))
        across = jnp.sum(apart[..., 1] * shape_apart[:, 0] - apart[..., 0] * shape_apart[:, 1], -1)
        angle = jnp.arctan2(across, along)
    else:
        angle = jnp.zeros_like(scale)
    cosine, sine = scale * jnp.cos(angle), scale * jnp.sin(angle)
    linear = jnp.stack([jnp.stack([cosine, -sine], -1), jnp.stack([sine, cosine], -1)], -2)
    # By sums: accelerators round the factors of a matrix product.
    offset = centre - linear[..., 0] * shape_centre[0] - linear[..., 1] * shape_centre[1]
    return jnp.concatenate([linear, offset[..., None]], axis=-1)


def relative_transform(new: jax.Array, old: jax.Array) -> jax.Array:
    """Returns the maps [B, 2, 3] from pixels of new crops to pixels of old ones.

    It is exactly the identity where the crops are equal: rounded, it would sample right beside
    pixel centres, and XLA, which computes `floor` in each fusion that uses it, can round a point
    down to one pixel for the index and to another for the weight.
    """
    linear = invert_affine(old) * jnp.array([1, 1, 0], old.dtype)
    maps: jax.Array = jnp.eye(2, 3, dtype=new.dtype) + compose_affine(linear, new - old)
    return maps


def crop_images(config: RedNetConfig, images: jax.Array, crop: jax.Array) -> jax.Array:
    """Returns the crops [B, image_size, image_size, 3] of images, bilinear, black outside."""
    size = (config.image_size, config.image_size)
    return jax.vmap(lambda image, affine: warp(image, affine, size))(images, crop)


def on_image(crop: jax.Array, landmarks: jax.Array) -> jax.Array:
    """Returns landmarks [B, L, 2] of crops in pixels of their images."""
    placed: jax.Array = apply_affine(crop, landmarks)
    return placed
