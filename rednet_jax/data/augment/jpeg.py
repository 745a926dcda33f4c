"""JPEG's loss without encoding: the cosine transform of 8 x 8 blocks, quantised."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

BLOCK = 8
"""Pixels on each side of a block."""

# The standard's example tables (ITU-T T.81, K.1 and K.2), which libjpeg scales by the quality.
_LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    *(17, 18, 24, 47, 99, 99, 99, 99),
    *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)
_TABLES = np.array([_LUMINANCE, _CHROMINANCE, _CHROMINANCE], np.float32)

# JFIF's Y, Cb and Cr, without the offset of 128 in Cb and Cr.
_RED, _BLUE = 0.299, 0.114
_FROM_RGB = np.array(
    [
        [_RED, 1 - _RED - _BLUE, _BLUE],
        [-_RED / (2 - 2 * _BLUE), -(1 - _RED - _BLUE) / (2 - 2 * _BLUE), 0.5],
        [0.5, -(1 - _RED - _BLUE) / (2 - 2 * _RED), -_BLUE / (2 - 2 * _RED)],
    ]
)
_TO_RGB = np.linalg.inv(_FROM_RGB)


def _cosines() -> NDArray[np.float64]:
    """Returns the orthonormal cosine transform [64, 64] of a flattened block."""
    frequency, place = np.mgrid[:BLOCK, :BLOCK]
    rows = np.cos((2 * place + 1) * frequency * np.pi / (2 * BLOCK)) * (2 / BLOCK) ** 0.5
    rows[0] /= 2**0.5
    return np.kron(rows, rows)


def compress(images: Array, quality: Array, corner: Array) -> Array:
    """Returns images after JPEG compression without chroma subsampling.

    Args:
        images: float32 [..., H, W, 3] in [0, 1]; incomplete blocks are edge-padded.
        quality: float32 [], on libjpeg's scale of 1 to 100.
        corner: int32 [2], row and column of the first pixel in its block, 0 to 7.

    Returns:
        float32 [..., H, W, 3] in [0, 1], multiples of 1 / 255.
    """
    *leading, height, width, _ = images.shape
    images = images.reshape(-1, height, width, 3)
    padded = _padded(jnp.round(255 * images), corner)
    # Only Y has an offset of 128 here.
    colours = jnp.round(_mixed(padded, _FROM_RGB)) - jnp.array([128.0, 0, 0])
    count, down, across = (padded.shape[0], *(side // BLOCK for side in padded.shape[1:3]))
    blocks = colours.reshape(count, down, BLOCK, across, BLOCK, 3).transpose(0, 1, 3, 5, 2, 4)
    blocks = _quantised(blocks.reshape(-1, 3, BLOCK * BLOCK), _quantisation(quality))
    blocks = blocks.reshape(count, down, across, 3, BLOCK, BLOCK).transpose(0, 1, 4, 2, 5, 3)
    colours = jnp.clip(jnp.round(blocks.reshape(padded.shape)), -128, 127)
    colours = jax.lax.dynamic_slice(colours, (0, corner[0], corner[1], 0), images.shape)
    kept = _mixed(colours + jnp.array([128.0, 0, 0]), _TO_RGB)
    return jnp.clip(jnp.round(kept), 0, 255).reshape(*leading, height, width, 3) / 255


def _padded(images: Array, corner: Array) -> Array:
    """Returns images [N, H, W, 3] edge-padded to whole blocks, with their first pixel at `corner`.

    Shapes are static: the padding suffices for any corner and is then cropped for this one.
    """
    count, *sides, _ = images.shape
    whole = [-(-(side + BLOCK - 1) // BLOCK) * BLOCK for side in sides]
    border = [(BLOCK - 1, after - side) for side, after in zip(sides, whole, strict=True)]
    images = jnp.pad(images, ((0, 0), *border, (0, 0)), mode="edge")
    row, column = BLOCK - 1 - corner
    return jax.lax.dynamic_slice(images, (0, row, column, 0), (count, *whole, 3))


def _mixed(colours: Array, matrix: NDArray[np.float64]) -> Array:
    """Returns the matrix [3, 3] times each colour [..., 3].

    Products and sums: so small a matrix product is slow on the CPU and inexact on accelerators.
    """
    first, second, third = matrix.T.astype(np.float32)
    mixed: Array = colours[..., :1] * first + colours[..., 1:2] * second + colours[..., 2:] * third
    return mixed


def _quantised(blocks: Array, steps: Array) -> Array:
    """Returns blocks [N, 3, 64] with their coefficients rounded to multiples of `steps` [3, 64]."""
    transform = jnp.asarray(_cosines(), blocks.dtype)
    # One product over all blocks is faster than two along their axes. Its precision is set because
    # accelerators would round it.
    product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    counts = product(blocks, transform.T) / steps
    # Halves, common in flat blocks, round away from 0 as in libjpeg.
    return product(jnp.trunc(counts + jnp.copysign(0.5, counts)) * steps, transform)


def _quantisation(quality: Array) -> Array:
    """Returns the quantisation steps [3, 64] of Y, Cb and Cr, by libjpeg's formula."""
    quality = jnp.clip(quality, 1, 100)
    percent = jnp.floor(jnp.where(quality < 50, 5000 / quality, 200 - 2 * quality))
    return jnp.clip(jnp.floor((_TABLES * percent + 50) / 100), 1, 255)
