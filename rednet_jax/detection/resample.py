"""Scaled, tiled, brightened and rotated copies of an image, with the maps back to it.

A map [2, 3] takes pixels (x, y) of a copy to pixels of the image it was made of.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from rednet_jax.landmarks.crops import apply_affine, compose_affine, invert_affine

TILE = 640
"""Largest side of a tile, pixels."""

OVERLAP = 64
"""Pixels by which neighbouring tiles overlap, at least."""

_DARK = 96
"""An image is brightened if the 99th percentile of its brightness is lower."""


def scale_of(affine: NDArray[np.float64]) -> float:
    """Returns the scale of a similarity [2, 3]."""
    return float(math.sqrt(abs(np.linalg.det(affine[:, :2]))))


def map_to_whole(whole: tuple[int, ...], part: tuple[int, ...]) -> NDArray[np.float64]:
    """Returns the map [2, 3] from pixels of a resized image to pixels of the image.

    Args:
        whole: shape of the image.
        part: shape of the resized image.
    """
    x, y = whole[1] / part[1], whole[0] / part[0]
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2]])


def resized(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """Returns an image with its sides multiplied by a scale."""
    height, width = image.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size == (width, height):
        return image
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)


def tiles(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """Yields x, y, width and height of overlapping tiles of equal size that cover an image."""
    (columns, tile_width), (rows, tile_height) = _cuts(width), _cuts(height)
    for y in rows:
        for x in columns:
            yield x, y, tile_width, tile_height


def _cuts(length: int) -> tuple[list[int], int]:
    """Returns the starts of overlapping pieces that cover a length, and the pieces' length."""
    count = max(1, math.ceil((length - OVERLAP) / (TILE - OVERLAP)))
    # As short as the overlap allows, and a multiple of 32, to which YuNet pads.
    piece = min(length, 32 * math.ceil((length + (count - 1) * OVERLAP) / count / 32))
    return [round(start) for start in np.linspace(0, length - piece, count)], piece


def brightened(image: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Returns a dark image with its values stretched, or None for an image that is not dark."""
    bright = float(np.percentile(image[::4, ::4].max(-1), 99))
    if bright >= _DARK:
        return None
    values = np.arange(256) * (255 / max(bright, 8.0))
    return np.asarray(cv2.LUT(image, np.clip(values, 0, 255).astype(np.uint8)), np.uint8)


def rotated_copy(
    image: NDArray[np.uint8], degrees: float
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Returns a copy that shows the whole image rotated, and its map [2, 3] to the image."""
    height, width = image.shape[:2]
    angle = math.radians(degrees)
    cosine, sine = math.cos(angle), math.sin(angle)
    new = (
        math.ceil(abs(cosine) * width + abs(sine) * height - 1e-6),
        math.ceil(abs(sine) * width + abs(cosine) * height - 1e-6),
    )
    linear = np.array([[cosine, -sine], [sine, cosine]])
    middle, new_middle = (np.array([width, height]) - 1) / 2, (np.array(new) - 1) / 2
    affine = np.column_stack([linear, middle - linear @ new_middle])
    return warped(image, affine, new), affine


def warped(
    image: NDArray[np.uint8], affine: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Returns an image of size (width, height), pixel p sampled at affine(p); black outside."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(image, affine, size, flags=flags), np.uint8)


def resampled_crop(
    image: NDArray[np.uint8], affine: NDArray[np.float64], size: int
) -> NDArray[np.uint8]:
    """Returns a crop [size, size, 3] that `affine` maps to the image, averaged where it shrinks."""
    block = max(1, round(scale_of(affine)))
    corners = apply_affine(affine, np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]]) * (size - 1))
    limit = np.array(image.shape[1::-1])
    low = np.clip(np.floor(corners.min(0)).astype(int) - 2 * block, 0, limit - 1)
    high = np.clip(np.ceil(corners.max(0)).astype(int) + 2 * block, low + 1, limit)
    high = np.maximum(high - (high - low) % block, low + 1)
    region = image[low[1] : high[1], low[0] : high[0]]
    reduced = region
    if block > 1:
        shape = tuple(int(v) for v in np.maximum((high - low) // block, 1))
        reduced = np.asarray(cv2.resize(region, shape, interpolation=cv2.INTER_AREA), np.uint8)
    to_region = map_to_whole(region.shape, reduced.shape)
    local = affine - np.column_stack([np.zeros((2, 2)), low])
    return warped(reduced, compose_affine(invert_affine(to_region), local), (size, size))
