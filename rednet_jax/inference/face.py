"""One face in an image or a frame: what `Aligner` and `Tracker` answer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rednet_jax.landmarks.schemes import Scheme

MIN_CONFIDENCE = 0.1
"""A face in an image whose landmarks have a lower mean confidence is not answered. What YuNet took
for a face in images without one had 0.01 to 0.17 (eight crops seen by hand, one above 0.1). Of 202
infants that it finds, 187 have more than 0.1, and 165 more than 0.3. It was chosen on these images,
so it may do worse on others; `rednet bench detect` counts both."""


class Face(NamedTuple):
    """A face with its landmarks.

    Attributes:
        landmarks: float32 [L, 2], image pixels (x, y), pixel centres at integers.
        confidence: float32 [L], probability that the landmark lies within 5 % of the inter-ocular
            distance, or of what else the scheme is normalised by.
        box: float32 [4] (x0, y0, x1, y1), image pixels: where the detector, or who gave it, expects
            the bounding box of the landmarks.
        score: of the detector; None for a box that was given.
        scheme: of the landmarks.
        identity: number of the person in a video; None in images.
    """

    landmarks: NDArray[np.float32]
    confidence: NDArray[np.float32]
    box: NDArray[np.float32]
    scheme: Scheme
    score: float | None = None
    identity: int | None = None
