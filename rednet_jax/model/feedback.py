"""f_sRNN: from the response maps of one pass to the feedback map z of the next."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rednet_jax.landmarks.crops import apply_affine, warp
from rednet_jax.model.config import RedNetConfig

# Sides of the squares in a label map, in map pixels, by pass: coarse to fine.
_SQUARE_SIDES = (7, 5, 3)


def feedback_map(config: RedNetConfig, response_maps: jax.Array, passes: jax.Array) -> jax.Array:
    """Returns z for the next pass.

    Args:
        config: of the network; `feedback` is the kind of z, which has no channels for 'none'.
        response_maps: [B, h, w, L + 1] softmax with background first, or [B, h, w, L] of sigmoids.
        passes: [B] int32, passes run before the one that made these maps.

    Returns:
        [B, feedback_size, feedback_size, feedback_channels].
    """
    if config.feedback == "none":
        size = config.feedback_size
        return response_maps[:, :size, :size, :0]
    if config.architecture == "separable":
        response_maps = halve(response_maps)
    if config.feedback == "label_map":
        return label_map(response_maps, passes)
    if config.architecture == "ijcv_resnet":
        return halve(response_maps[..., jnp.asarray(config.coarse_landmarks)])
    return response_maps


def label_map(response_maps: jax.Array, passes: jax.Array) -> jax.Array:
    """Draws a square of value l at the centre of the pixels of each landmark l (ECCV f_sRNN).

    A pixel belongs to the class with the largest response there. A landmark without pixels has no
    square; where squares overlap, the larger value is drawn. The sides of the squares are 7, 5 and
    3 pixels after the first, second and later passes.

    Args:
        response_maps: [B, h, w, L + 1], background first.
        passes: [B] int32, passes run before the one that made these maps.

    Returns:
        [B, h, w, 1] with values 0..L.
    """
    _, height, width, classes = response_maps.shape
    # Half precision cannot count pixels.
    dtype = jnp.promote_types(response_maps.dtype, jnp.float32)
    labels = jnp.arange(1, classes)
    owned = (response_maps.argmax(-1)[..., None] == labels).astype(dtype)
    x, y = jnp.arange(width, dtype=dtype), jnp.arange(height, dtype=dtype)
    count = owned.sum((1, 2))
    divisor = jnp.maximum(count, 1)
    centre_x = jnp.einsum("bhwl,w->bl", owned, x) / divisor
    centre_y = jnp.einsum("bhwl,h->bl", owned, y) / divisor
    sides = jnp.asarray(_SQUARE_SIDES, dtype)[jnp.minimum(passes, len(_SQUARE_SIDES) - 1)]
    # Half-open intervals: a square covers `side` pixels wherever its centre is within a pixel.
    low_x, low_y = (centre - sides[:, None] / 2 for centre in (centre_x, centre_y))
    in_x = (x > low_x[..., None]) & (x <= (low_x + sides[:, None])[..., None])
    in_y = (y > low_y[..., None]) & (y <= (low_y + sides[:, None])[..., None])
    drawn = in_y[:, :, :, None] & in_x[:, :, None, :] & (count > 0)[:, :, None, None]
    labelled = (drawn * labels.astype(dtype)[:, None, None]).max(1)[..., None]
    return labelled.astype(response_maps.dtype)


def move(maps: jax.Array, warps: jax.Array, image_size: int, *, nearest: bool = False) -> jax.Array:
    """Resamples maps of one crop into another crop.

    Args:
        maps: [B, h, w, C] over the old crop.
        warps: [B, 2, 3], pixels of the new crop -> pixels of the old one.
        image_size: side of both crops in pixels.
        nearest: nearest-neighbour instead of bilinear (labels cannot be averaged).

    Returns:
        [B, h, w, C] over the new crop, zero outside the old one.
    """
    height, width = maps.shape[1:3]
    ratio = height / image_size
    # `warps` in map pixels, which are related to crop pixels by p_map = (p + 1/2) * ratio - 1/2.
    linear = warps[..., :2]
    centre = (1 / ratio - 1) / 2
    shift = warps[..., 2] + linear.sum(-1) * centre - centre
    scaled = jnp.concatenate([linear, (shift * ratio)[..., None]], axis=-1)
    if not nearest:
        return jax.vmap(lambda each, affine: warp(each, affine, (height, width)))(maps, scaled)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(width), jnp.arange(height)), axis=-1)
    points = apply_affine(scaled[:, None], grid.astype(scaled.dtype))
    column, row = jnp.round(points[..., 0]).astype(int), jnp.round(points[..., 1]).astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    sample = jnp.arange(maps.shape[0])[:, None, None]
    values = maps[sample, jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
    return jnp.where(inside[..., None], values, 0)


def halve(maps: jax.Array) -> jax.Array:
    """Means of 2 x 2 pixels, [B, h, w, C] -> [B, h / 2, w / 2, C]."""
    batch, height, width, channels = maps.shape
    return maps.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))
