"""Detects shot cuts in a video."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from rednet_jax.inference.thumbnails import Thumbnail, half_likeness, likeness, standardised

CUT_BELOW, HALF_BELOW = 0.7, 0.98
"""Correlations of the thumbnails of successive frames below which there is a cut: of the whole, and
of the half that differs least. An object that moves through the image changes the whole, but not
that half. experiments/results/identities.json counts the cuts that were found, and wrong ones."""

SIZE = (32, 24)
"""Width and height of a thumbnail: so coarse that grain and moving faces change little."""


class CutFinder:
    """Detects for each frame of a video whether it is the first of a new shot."""

    def __init__(self) -> None:
        """Starts before the first frame, which is not a cut."""
        self._last: Thumbnail | None = None

    def update(self, image: NDArray[np.uint8]) -> bool:
        """Returns whether a frame, RGB uint8 [H, W, 3], starts a new shot."""
        last, self._last = self._last, _thumbnail(image)
        return (
            last is not None
            and likeness(last, self._last) < CUT_BELOW
            and half_likeness(last, self._last) < HALF_BELOW
        )


def _thumbnail(image: NDArray[np.uint8]) -> Thumbnail:
    """Returns the grey values [24, 32, 1]: means over areas, because dark frames are noisy."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return standardised(cv2.resize(grey, SIZE, interpolation=cv2.INTER_AREA)[..., None])
