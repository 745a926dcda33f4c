"""Images with bright dots at known positions, and the detection of a dot."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def draw_dot(place: NDArray[np.floating], side: int, width: float = 2.0) -> NDArray[np.uint8]:
    """Returns grey images [..., side, side, 3] with one dot each, at places [..., 2]."""
    y, x = np.mgrid[:side, :side]
    away = (x - place[..., 0, None, None]) ** 2 + (y - place[..., 1, None, None]) ** 2
    grey = np.round(60 + 190 * np.exp(-away / (2 * width**2))).astype(np.uint8)
    return np.repeat(grey[..., None], 3, -1)


def find_dot(image: NDArray[np.floating]) -> NDArray[np.floating]:
    """Returns the centre (x, y) of mass around the peak of the smoothed image."""
    grey = ndimage.gaussian_filter(image.mean(-1), 1.5)
    row, column = np.unravel_index(grey.argmax(), grey.shape)
    y, x = np.mgrid[: grey.shape[0], : grey.shape[1]]
    near = (abs(x - column) <= 4) & (abs(y - row) <= 4)
    weight = np.where(near, grey - grey[near].min(), 0)
    return np.asarray([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
