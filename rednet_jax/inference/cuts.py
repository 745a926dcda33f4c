"""Detects shot cuts in a video."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CUT_BELOW = 0.7
"""Correlation of the thumbnails of successive frames below which there is a cut. Within 29 real
clips, some of them hand-held, the correlation was 0.77 or more; between frames of different clips
it was below 0.7 for 98 % of the pairs."""

THUMBNAIL = (32, 24)
"""Width and height in pixels: so coarse that grain and moving faces change little."""


class CutFinder:
    """Detects for each frame of a video whether it is the first of a new shot."""

    def __init__(self) -> None:
        """Starts before the first frame, which is no cut."""
        self._last: NDArray[np.float32] | None = None

    def update(self, image: NDArray[np.uint8]) -> bool:
        """Returns whether a frame, RGB uint8 [H, W, 3], starts a new shot."""
        last, self._last = self._last, _thumbnail(image)
        return last is not None and float(np.mean(last * self._last)) < CUT_BELOW


def _thumbnail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns grey values with mean 0 and mean square 1, independent of brightness and contrast."""
    # Subsampling is precise enough for the average, and faster for large frames.
    step = max(1, min(image.shape[:2]) // 96)
    grey = Image.fromarray(np.ascontiguousarray(image[::step, ::step])).convert("L")
    small = np.asarray(grey.resize(THUMBNAIL, Image.Resampling.BOX), np.float32)
    centred: NDArray[np.float32] = small - small.mean()
    # The floor of one grey value avoids amplified noise in a blank image.
    return centred / np.float32(max(np.sqrt(np.mean(centred**2)), 1.0))
