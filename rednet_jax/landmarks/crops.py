"""The one crop rule, the maps between crop and picture, and resampling on host and device.

A crop is a square around the centre of a face's bounding box, its side `margin` times the larger
side of the box. Pixel centres lie at integers in both frames, so a crop of `size` pixels maps by

    picture = corner + (crop + 1/2) * side / size - 1/2.

Affine maps are [..., 2, 3] arrays (matrix and shift); they take numpy and JAX arrays alike.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from PIL import Image


def crop_transform(box: Any, *, margin: float, size: int) -> Any:
    """Returns the map [..., 2, 3] from crop pixels to picture pixels for boxes [..., 4].

    Args:
        box: (x0, y0, x1, y1) of the face, picture pixels.
        margin: side of the crop in units of the box's larger side.
        size: side of the crop in its own pixels.
    """
    xp = np if isinstance(box, np.ndarray | list | tuple) else jnp
    box = xp.asarray(box, np.float64) if xp is np else box
    side = margin * xp.maximum(box[..., 2] - box[..., 0], box[..., 3] - box[..., 1])
    scale = side / size
    shift = [(box[..., i] + box[..., i + 2]) / 2 - side / 2 + scale / 2 - 0.5 for i in (0, 1)]
    zero = xp.zeros_like(scale)
    return xp.stack(
        [xp.stack([scale, zero, shift[0]], -1), xp.stack([zero, scale, shift[1]], -1)], -2
    )


def apply_affine(affine: Any, points: Any) -> Any:
    """Returns points [..., N, 2] mapped by affine [..., 2, 3]."""
    transposed = affine[..., :2].swapaxes(-1, -2)
    return points @ transposed + affine[..., None, :, 2]


def compose_affine(outer: Any, inner: Any) -> Any:
    """Returns the map [..., 2, 3] that applies `inner` first and then `outer`."""
    xp = np if isinstance(outer, np.ndarray) and isinstance(inner, np.ndarray) else jnp
    linear = outer[..., :2] @ inner[..., :2]
    shift = outer[..., :2] @ inner[..., 2:] + outer[..., 2:]
    return xp.concatenate([linear, shift], axis=-1)


def invert_affine(affine: Any) -> Any:
    """Returns the inverse map [..., 2, 3] of an invertible one."""
    xp = np if isinstance(affine, np.ndarray) else jnp
    a, b, c, d = (affine[..., i, j] for i in (0, 1) for j in (0, 1))
    inverse = xp.stack([xp.stack([d, -b], -1), xp.stack([-c, a], -1)], -2)
    inverse = inverse / (a * d - b * c)[..., None, None]
    return xp.concatenate([inverse, -inverse @ affine[..., 2:]], axis=-1)


def cut_crop(image: NDArray[np.uint8], affine: NDArray[np.floating], size: int) -> NDArray[np.uint8]:
    """Cuts a crop out of a picture on the host, smoothed where it shrinks, black outside.

    Args:
        image: [H, W, 3] uint8.
        affine: [2, 3], crop pixels -> picture pixels.
        size: side of the crop.

    Returns:
        [size, size, 3] uint8.
    """
    affine = np.asarray(affine, np.float64)
    shrink = np.sqrt(abs(np.linalg.det(affine[:, :2])))
    factor = max(int(shrink + 0.5), 1)
    corners = apply_affine(affine, np.asarray([[0, 0], [size, 0], [0, size], [size, size]]) - 0.5)
    # Only the part that is seen; its border is padded black, so that nothing wraps or smears.
    reach = 2 * factor + 2
    x0, y0 = np.floor(corners.min(0)).astype(int) - reach
    x1, y1 = np.ceil(corners.max(0)).astype(int) + reach
    region = Image.fromarray(image).crop((x0, y0, x1, y1))
    inner = affine - np.asarray([[0, 0, x0], [0, 0, y0]])
    if factor > 1:
        # Box-filter by a whole factor first: bilinear sampling alone would alias.
        region = region.reduce(factor)
        inner = inner / factor
        inner[:, 2] += 0.5 / factor - 0.5
    # Pillow maps pixel edges; ours are centres.
    edges = inner.copy()
    edges[:, 2] += 0.5 - inner[:, :2].sum(-1) * 0.5
    crop = region.transform(
        (size, size),
        Image.Transform.AFFINE,
        tuple(edges.ravel()),
        resample=Image.Resampling.BILINEAR,
    )
    return np.asarray(crop)


def sample_bilinear(image: jax.Array, points: jax.Array) -> jax.Array:
    """Returns the image's values at points, by bilinear interpolation, fading to zero outside.

    Args:
        image: [H, W, C] floating.
        points: [..., 2] (x, y), pixels of the image.

    Returns:
        [..., C], of the image's dtype.
    """
    height, width, channels = image.shape
    flat = image.reshape(height * width, channels)
    corner = jnp.floor(points)
    fraction = (points - corner).astype(image.dtype)
    column, row = corner[..., 0].astype(jnp.int32), corner[..., 1].astype(jnp.int32)
    total = jnp.zeros((*points.shape[:-1], channels), image.dtype)
    for i in (0, 1):
        for j in (0, 1):
            x, y = column + j, row + i
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            weight_x = fraction[..., 0] if j else 1 - fraction[..., 0]
            weight_y = fraction[..., 1] if i else 1 - fraction[..., 1]
            index = jnp.clip(y, 0, height - 1) * width + jnp.clip(x, 0, width - 1)
            weight = jnp.where(inside, weight_x * weight_y, 0)
            total = total + weight[..., None] * flat.at[index].get(mode="promise_in_bounds")
    return total


def warp(image: jax.Array, affine: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Returns [height, width, C]: output pixel p is the image [H, W, C] at affine(p)."""
    height, width = size
    x, y = jnp.meshgrid(
        jnp.arange(width, dtype=affine.dtype), jnp.arange(height, dtype=affine.dtype)
    )
    return sample_bilinear(image, jnp.stack([x, y], -1) @ affine[:, :2].T + affine[:, 2])
