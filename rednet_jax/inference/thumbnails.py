"""Likeness of small images, independent of brightness and contrast."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCKS = 4
"""Blocks along each side of a thumbnail."""

Thumbnail = NDArray[np.float32]
"""float32 [h, w, C] with mean 0 and mean square 1; h and w are multiples of 4."""


def standardised(pixels: NDArray[np.number]) -> Thumbnail:
    """Returns values [h, w, C], 0 to 255, with mean 0 and mean square 1."""
    values = np.asarray(pixels, np.float32)
    centred = values - values.mean()
    # The floor of one grey value avoids amplified noise in an image of one colour.
    scaled: Thumbnail = centred / np.float32(max(np.sqrt(np.mean(centred**2)), 1.0))
    return scaled


def likeness(one: Thumbnail, other: Thumbnail) -> float:
    """Returns the correlation, -1 to 1, of two thumbnails."""
    return float(np.mean(one * other))


def half_likeness(one: Thumbnail, other: Thumbnail) -> float:
    """Returns the correlation, -1 to 1, of the half of two thumbnails that differs least.

    The half is 8 of 16 blocks. They are chosen by their squared difference after a fit of gain and
    offset, first to the median and its deviation, then twice to the half itself.
    """
    first, second = _in_blocks(one), _in_blocks(other)
    gain, offset = _fit(_robust_scale(first), _robust_scale(second))
    for _ in range(3):
        differences = np.square(gain * first + offset - second).mean(1)
        half = np.argsort(differences, kind="stable")[: len(differences) // 2]
        a, b = first[half], second[half]
        gain, offset = _fit((float(a.mean()), float(a.std())), (float(b.mean()), float(b.std())))
    covariance = float(((a - a.mean()) * (b - b.mean())).mean())
    return covariance / max(float(a.std() * b.std()), 1e-6)


def _in_blocks(thumbnail: Thumbnail) -> NDArray[np.float32]:
    """Returns the pixels of each block, [_BLOCKS ** 2, N]."""
    height, width, channels = thumbnail.shape
    grid = thumbnail.reshape(_BLOCKS, height // _BLOCKS, _BLOCKS, width // _BLOCKS, channels)
    return grid.swapaxes(1, 2).reshape(_BLOCKS**2, -1)


def _robust_scale(values: NDArray[np.float32]) -> tuple[float, float]:
    """Returns the median, and the median deviation from it."""
    median = float(np.median(values))
    return median, float(np.median(np.abs(values - median)))


def _fit(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """Returns gain and offset that map values of one mean and scale to those of another."""
    gain = other[1] / max(one[1], 1e-3)
    return gain, other[0] - gain * one[0]
