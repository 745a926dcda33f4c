"""dlib's HOG face detector, with its squares turned into boxes of landmarks.

The detector comes with the wheel of dlib-bin: nothing is downloaded. The network is trained on
boxes around the 68 landmarks; dlib's squares lie higher and most are larger, by how much depends on
which of the detector's five views answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import dlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

LONGEST_SIDE = 640
"""Larger pictures are shrunk to this: the time of a search grows with the number of pixels."""

UPSAMPLE_BELOW = 320
"""Pictures with a side shorter than this are doubled: the detector misses faces under 80 px."""

VIEW_CORRECTIONS: NDArray[np.float64] = np.array(
    [
        # Shift of the centre (x, y), width and height of the landmark box, in sides of the square.
        [-0.025, 0.057, 0.973, 0.938],  # frontal
        [0.086, 0.086, 0.884, 0.884],  # turned to the picture's left
        [-0.123, 0.100, 0.889, 0.888],  # turned to the picture's right
        [-0.028, 0.041, 1.020, 0.998],  # rolled counter-clockwise
        [0.039, 0.040, 1.053, 1.038],  # rolled clockwise
    ]
)
"""Medians by view over the 1,914 of 2,012 pictures of the 300-W training set on which the detector
is right, as printed by `python -m rednet_jax.detection.fit FOLDER_OF_300W`."""


class RawDetection(NamedTuple):
    """What dlib itself says of one face."""

    square: NDArray[np.float64]
    """[4] x0, y0, x1, y1 in pixels of the picture, pixel centres at integers."""
    score: float
    """dlib's score: above 0 is a face, 1 and more a clear one."""
    view: int
    """Which of the five views answered, 0 to 4."""


class Detection(NamedTuple):
    """One face in a picture."""

    box: NDArray[np.float32]
    """[4] x0, y0, x1, y1: where the box of the face's 68 landmarks is expected, picture pixels."""
    score: float
    """dlib's score: above 0 is a face, 1 and more a clear one."""


class FaceDetector:
    """dlib's frontal face detector on pictures of any size."""

    def __init__(self) -> None:
        """Builds the detector from the tables inside dlib's wheel."""
        self._detector = dlib.get_frontal_face_detector()

    def detect_raw(self, image: NDArray[np.uint8]) -> list[RawDetection]:
        """Returns dlib's own squares in an RGB picture uint8 [H, W, 3], best score first."""
        height, width = image.shape[:2]
        scale = min(1.0, LONGEST_SIDE / max(height, width))
        if scale < 1.0:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            shrunk = Image.fromarray(image).resize(
                size, Image.Resampling.BILINEAR, reducing_gap=2.0
            )
            image = np.asarray(shrunk)
        upsample = int(min(image.shape[:2]) < UPSAMPLE_BELOW)
        squares, scores, views = self._detector.run(np.ascontiguousarray(image), upsample, 0.0)
        stretch = np.array([width / image.shape[1], height / image.shape[0]] * 2)
        found = [
            # dlib's right and bottom are the last pixels inside the square: edges, then centres.
            RawDetection(
                np.array([s.left(), s.top(), s.right() + 1, s.bottom() + 1]) * stretch - 0.5,
                float(score),
                int(view),
            )
            for s, score, view in zip(squares, scores, views, strict=True)
        ]
        return sorted(found, key=lambda face: -face.score)

    def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Returns the faces in an RGB picture uint8 [H, W, 3], best score first; [] if none is."""
        return [
            Detection(corrected_box(face.square, face.view), face.score)
            for face in self.detect_raw(image)
        ]


def corrected_box(square: NDArray[np.float64], view: int) -> NDArray[np.float32]:
    """Returns the box [4] that the 68 landmarks fill on average in dlib's square [4] of a view."""
    shift_x, shift_y, width, height = VIEW_CORRECTIONS[view]
    side = square[2] - square[0]
    centre = (square[:2] + square[2:]) / 2 + side * np.array([shift_x, shift_y])
    half = side * np.array([width, height]) / 2
    return np.concatenate([centre - half, centre + half]).astype(np.float32)


def by_prominence(faces: Sequence[Detection]) -> list[Detection]:
    """Returns faces by the product of score and side, the largest first.

    The score alone prefers a small face seen from the front to the large one before it.
    """
    return sorted(faces, key=lambda face: -face.score * (face.box[2] - face.box[0]))
