"""A face in an image or a frame: the result of `Aligner` and `Tracker`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rednet_jax.landmarks.schemes import Scheme

MIN_CONFIDENCE = 0.1
"""A detection in an image with a lower mean confidence of its landmarks is not returned as a face.
YuNet's false detections had 0.01 to 0.17 (eight crops, inspected by hand; one above 0.1). Of the
202 infants that it detects, 187 have more than 0.1, and 165 more than 0.3. The value was chosen on
these images, so results on others may be worse; `rednet bench detect` counts both kinds."""


MOST_FACES = 1000
"""Maximum number of faces of `Aligner` and `Tracker`. The tracker holds the network's
state of each, which for a million faces is more than the memory of any device."""


class Face(NamedTuple):
    """A face with its landmarks.

    Attributes:
        landmarks: float32 [L, 2], image pixels (x, y), pixel centres at integers.
        confidence: float32 [L], probability that the landmark's error is at most 5 % of the
            inter-ocular distance, or of the scheme's own normaliser.
        box: float32 [4] (x0, y0, x1, y1), image pixels: the bounding box of the landmarks as
            expected before the network ran, from the detector, the caller or the previous frame.
        scheme: of the landmarks.
        score: the detector's; None if the box is not from the detector.
        identity: number of the person in a video; None in images.
    """

    landmarks: NDArray[np.float32]
    confidence: NDArray[np.float32]
    box: NDArray[np.float32]
    scheme: Scheme
    score: float | None = None
    identity: int | None = None
