"""Re-crops: the crop of each pass is computed from the landmarks of the pass before.

Not in the papers. A crop is an affine map [B, 2, 3] from its pixels to those of the network's input
image. The side of this image is `context` times that of the first crop.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from rednet_jax.landmarks.crops import apply_affine, compose_affine, invert_affine, warp
from rednet_jax.model.config import RedNetConfig

# Limits of a crop's scale relative to the first crop: beyond them the landmarks are not of a face.
_SMALLEST, _LARGEST = 0.25, 4.0


def first_crop(config: RedNetConfig, batch: int, dtype: Any = jnp.float32) -> jax.Array:
    """Returns the crop [B, 2, 3] in the middle of the image, at the image's resolution."""
    offset = (config.input_size - config.image_size) / 2
    crop = jnp.array([[1, 0, offset], [0, 1, offset]], jnp.promote_types(dtype, jnp.float32))
    return jnp.broadcast_to(crop, (batch, 2, 3))


def middle(config: RedNetConfig, images: jax.Array) -> jax.Array:
    """Returns the first crop of images, [B, image_size, image_size, 3]: a slice, not resampled."""
    offset = (config.input_size - config.image_size) // 2
    inside = slice(offset, offset + config.image_size)
    return images[:, inside, inside]


def next_crop(config: RedNetConfig, landmarks: jax.Array) -> jax.Array:
    """Returns the crop [B, 2, 3] in which the landmarks are aligned with the mean shape.

    In the crop, their centroid, their spread about it and, with 'similarity', their rotation (least
    squares) are those of the mean shape. Centroid and spread are those of all landmarks, so one
    wrong landmark moves the crop little, and the scale does not change for a turned head, which is
    narrower than the mean shape. With a single landmark, scale and rotation are those of the first
    crop. No gradient flows through a crop.

    Args:
        config: of the network; `recrop` and `recrop_margin`.
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
        # One landmark has no spread.
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
    # Not a matrix product, whose factors accelerators round.
    offset = centre - linear[..., 0] * shape_centre[0] - linear[..., 1] * shape_centre[1]
    return jnp.concatenate([linear, offset[..., None]], axis=-1)


def relative_transform(new: jax.Array, old: jax.Array) -> jax.Array:
    """Returns the maps [B, 2, 3] from pixels of new crops to pixels of old ones.

    It is exactly the identity if the crops are equal. With rounding errors, points would be sampled
    slightly off the pixel centres, and XLA, which recomputes `floor` in each fusion, can take the
    index of one pixel and the weight of its neighbour.
    """
    linear = invert_affine(old) * jnp.array([1, 1, 0], old.dtype)
    maps: jax.Array = jnp.eye(2, 3, dtype=new.dtype) + compose_affine(linear, new - old)
    return maps


def crop_images(config: RedNetConfig, images: jax.Array, crop: jax.Array) -> jax.Array:
    """Returns the crops [B, image_size, image_size, 3] of images, bilinear, black outside."""
    size = (config.image_size, config.image_size)
    return jax.vmap(lambda image, affine: warp(image, affine, size))(images, crop)


def on_image(crop: jax.Array, landmarks: jax.Array) -> jax.Array:
    """Transforms landmarks [B, L, 2] from crop pixels to image pixels."""
    placed: jax.Array = apply_affine(crop, landmarks)
    return placed
