"""Crops: the affine map between crop and image, and resampling on host and device.

A crop is a square around the centre of a face's bounding box. Its side is `margin` times the larger
side of the box. Pixel centres are at integers in both frames, so that a crop of `size` pixels maps
to the image by

    image = centre + (crop - (size - 1) / 2) * side / size.

Affine maps are [..., 2, 3] arrays (matrix and shift). The functions of affine maps accept NumPy and
JAX arrays.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Largest block that is averaged before sampling. It suffices for faces of thousands of pixels.
_LARGEST_BLOCK = 64


def crop_transform(box: Any, *, margin: float, size: int, roll: Any = None) -> Any:
    """Returns the map [..., 2, 3] from crop pixels to image pixels for boxes [..., 4].

    Args:
        box: (x0, y0, x1, y1) of the face, image pixels.
        margin: side of the crop in units of the box's larger side.
        size: side of the crop in its own pixels.
        roll: [...] rotation of box and crop about the centre of the box, radians, clockwise in the
            image; None for 0.

    Returns:
        float64 for a NumPy box, else of the box's dtype.
    """
    xp = box.__array_namespace__()
    if xp is np:
        box = box.astype(np.float64)
    low, high = box[..., :2], box[..., 2:]
    scale = (high - low).max(-1, keepdims=True) * (margin / size)
    if roll is None:
        shift = (low + high) / 2 - scale * (size - 1) / 2
        linear = scale[..., None] * xp.eye(2, dtype=box.dtype)
    else:
        roll = xp.asarray(roll, dtype=box.dtype)
        cosine, sine = xp.cos(roll), xp.sin(roll)
        rotation = xp.stack([xp.stack([cosine, -sine], -1), xp.stack([sine, cosine], -1)], -2)
        linear = scale[..., None] * rotation
        shift = (low + high) / 2 - linear.sum(-1) * ((size - 1) / 2)
    return xp.concatenate([linear, shift[..., None]], axis=-1)


def apply_affine(affine: Any, points: Any) -> Any:
    """Returns points [..., N, 2] mapped by affine [..., 2, 3]."""
    return _product(points, affine[..., :2].swapaxes(-1, -2)) + affine[..., None, :, 2]


def compose_affine(outer: Any, inner: Any) -> Any:
    """Returns the map [..., 2, 3] that applies `inner` first and then `outer`."""
    product = _product(outer[..., :2], inner)
    xp = product.__array_namespace__()
    return xp.concatenate([product[..., :2], product[..., 2:] + outer[..., 2:]], axis=-1)


def invert_affine(affine: Any) -> Any:
    """Returns the inverse [..., 2, 3] of an invertible map."""
    xp = affine.__array_namespace__()
    a, b, c, d = (affine[..., i, j] for i in (0, 1) for j in (0, 1))
    inverse = xp.stack([xp.stack([d, -b], -1), xp.stack([-c, a], -1)], -2)
    inverse = inverse / (a * d - b * c)[..., None, None]
    return xp.concatenate([inverse, -_product(inverse, affine[..., 2:])], axis=-1)


def _product(a: Any, b: Any) -> Any:
    """Returns a [..., M, 2] @ b [..., 2, N] in full precision.

    Accelerators round the factors of a matrix product to 8 bits (bfloat16) or 11 (TF32).
    """
    return a[..., :1] * b[..., :1, :] + a[..., 1:] * b[..., 1:, :]


def crop_image(
    image: NDArray[np.uint8], affine: NDArray[np.floating], size: int
) -> NDArray[np.uint8]:
    """Resamples a crop of an image on the host, antialiased, black outside the image.

    Args:
        image: [H, W, 3] uint8.
        affine: [2, 3], crop pixels -> image pixels.
        size: side of the crop.

    Returns:
        [size, size, 3] uint8.
    """
    affine = np.asarray(affine, np.float64)
    shrink = np.sqrt(abs(np.linalg.det(affine[:, :2])))
    block = int(np.clip(shrink + 0.5, 1, _LARGEST_BLOCK))
    corners = apply_affine(affine, np.asarray([[0, 0], [size, 0], [0, size], [size, size]]) - 0.5)
    # Resample only the region under the crop, with a black border for the interpolation.
    reach = 2 * block + 2
    low, high = np.floor(corners.min(0)) - reach, np.ceil(corners.max(0)) + reach
    # Limit the region to the image and the border, so that large boxes do not need much memory. Its
    # start moves by whole blocks, so that the averaged blocks stay the same.
    limit = np.asarray(image.shape[1::-1]) + reach
    low = np.minimum(low + block * np.maximum((-reach - low) // block, 0), limit)
    high = np.clip(high, low + 1, limit + 1)
    region = Image.fromarray(_padded(image, low.astype(int), high.astype(int)))
    affine = affine - np.column_stack([np.zeros((2, 2)), low])
    if block > 1:
        # Bilinear sampling alone would alias.
        region = region.reduce(block)
        affine = affine / block
        affine[:, 2] += 0.5 / block - 0.5
    # In Pillow's maps integers are pixel edges, not centres.
    affine[:, 2] += 0.5 - affine[:, :2].sum(-1) * 0.5
    crop = region.transform(
        (size, size),
        Image.Transform.AFFINE,
        tuple(affine.ravel()),
        resample=Image.Resampling.BILINEAR,
    )
    return np.asarray(crop)


def _padded(
    image: NDArray[np.uint8], low: NDArray[np.int_], high: NDArray[np.int_]
) -> NDArray[np.uint8]:
    """Returns the rectangle of an image from (x, y) `low` up to `high`, black outside the image."""
    part = image[max(low[1], 0) : max(high[1], 0), max(low[0], 0) : max(high[0], 0)]
    width, height = high - low
    if part.shape[:2] == (height, width):
        return np.ascontiguousarray(part)
    x, y = np.maximum(-low, 0)
    padded = np.zeros((height, width, 3), np.uint8)
    padded[y : y + part.shape[0], x : x + part.shape[1]] = part
    return padded


def sample_bilinear(image: jax.Array, points: jax.Array) -> jax.Array:
    """Returns the image's values at points by bilinear interpolation, with zeros outside the image.

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
    """Returns [height, width, C], whose pixel p is the image [H, W, C] at affine(p)."""
    height, width = size
    x, y = jnp.meshgrid(
        jnp.arange(width, dtype=affine.dtype), jnp.arange(height, dtype=affine.dtype)
    )
    return sample_bilinear(image, apply_affine(affine, jnp.stack([x, y], axis=-1)))
