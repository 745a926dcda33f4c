"""What a face detector answers, and the boxes that crops are cut around.

A detector finds boxes and, where it can, five points. Of the points follow the roll of the face
and the box of its landmarks in its own upright frame, so that the first crop is upright however
the face lies in the image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rednet_jax.landmarks.builtin import IBUG68

POINTS: NDArray[np.float64] = np.array(
    [[-0.359, -0.382], [0.359, -0.382], [0.0, 0.037], [-0.305, 0.363], [0.305, 0.363]]
)
"""[5, 2] the mean five points of upright faces, their centroid at 0, their sum of squares 1.
Symmetrical: the mean over faces and their mirror images."""

BOX_FIT: NDArray[np.float64] = np.array(
    [
        # Of x, y and |x| of the nose's offset, and a constant.
        [-2.179, 0.0, 0.0, 0.0],
        [0.0, -1.008, -0.116, 0.120],
        [0.0, 1.384, 0.556, 0.473],
        [0.0, -0.812, 0.275, 0.468],
    ]
)
"""[4, 4] from where the nose lies to the landmarks' box: its centre (x, y), and logarithms of its
width and height, in the frame of `POINTS`. A head that turns or nods moves its nose among the other
points, and its landmarks' box with it. This and `POINTS` are what
`python -m rednet_jax.detection.fit FOLDER_OF_300W` prints."""


@dataclasses.dataclass(frozen=True, eq=False)
class Detection:
    """One face in an image.

    Attributes:
        box: [4] float32 (x0, y0, x1, y1), where the bounding box of the face's 68 landmarks is
            expected, image pixels, pixel centres at integers.
        score: 0 to 1 for the default detector; higher is more certain.
        points: [5, 2] float32 (x, y), image pixels: the eyes, the nose, the corners of the mouth.
            Of eyes and mouth, the one at the left of the upright image comes first. None where the
            detector finds boxes only.
    """

    box: NDArray[np.float32]
    score: float
    points: NDArray[np.float32] | None = None

    @property
    def roll(self) -> float:
        """Angle of the face in radians, clockwise in the image, 0 where there are no points."""
        return 0.0 if self.points is None else point_frame(self.points)[0]


class FaceDetector(Protocol):
    """Anything that finds faces in images."""

    def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Returns the faces in an RGB image uint8 [H, W, 3], best score first; [] if none is."""
        ...


def by_prominence(faces: Sequence[Detection]) -> list[Detection]:
    """Returns faces by the product of score and side, the largest first.

    The score alone prefers a small face seen from the front to the large one before it.
    """
    return sorted(faces, key=lambda face: -face.score * (face.box[2] - face.box[0]))


def point_frame(points: NDArray[np.floating]) -> tuple[float, complex, complex]:
    """Returns the similarity z -> a z + b, in complex numbers, that takes `POINTS` to points.

    Args:
        points: [5, 2] as in `Detection`.

    Returns:
        The angle of a, which is the roll of the face in radians, clockwise in the image; a; and b,
        the centroid of the points.
    """
    found = np.asarray(points, np.float64) @ [1, 1j]
    reference = POINTS @ [1, 1j]
    # Least squares are a division.
    factor = np.vdot(reference, found - found.mean()) / np.vdot(reference, reference)
    return float(np.angle(factor)), complex(factor), complex(found.mean())


def upright_box(face: Detection) -> tuple[NDArray[np.float32], float]:
    """Returns the box of the landmarks in the face's own upright frame, and the roll of the face.

    `crop_transform(box, roll=roll, ...)` is then an upright crop. If the image is turned, the box
    turns with the face.

    Args:
        face: of any detector.

    Returns:
        The box [4] float32 (x0, y0, x1, y1) in image pixels before it is turned about its centre,
        and the angle in radians, clockwise in the image, by which it is turned. Without points they
        are the detector's box and 0.
    """
    if face.points is None:
        return face.box, 0.0
    centre, sides, roll = _fitted_box(face.points)
    return np.concatenate([centre - sides / 2, centre + sides / 2]).astype(np.float32), roll


def landmarks_box(points: NDArray[np.floating]) -> NDArray[np.float32]:
    """Returns the box [4] float32 that the 68 landmarks of a face of five points [5, 2] fill.

    It is the bounding box of the mean shape, stretched to the face's upright box and turned by its
    roll: along the axes of the image, unlike that of `upright_box`.
    """
    centre, sides, roll = _fitted_box(points)
    shape = np.asarray(IBUG68.shape, np.float64)
    low, high = shape.min(0), shape.max(0)
    upright = (shape - (low + high) / 2) / (high - low) * sides
    cosine, sine = np.cos(roll), np.sin(roll)
    landmarks = upright @ np.array([[cosine, sine], [-sine, cosine]]) + centre
    return np.concatenate([landmarks.min(0), landmarks.max(0)]).astype(np.float32)


def nose_terms(nose: complex) -> NDArray[np.float64]:
    """Returns the terms [4] of `BOX_FIT` of a nose's place in the frame of `POINTS`."""
    x, y = nose.real, nose.imag - POINTS[2, 1]
    return np.array([x, y, abs(x), 1.0])


def _fitted_box(
    points: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Returns centre [2], sides [2] and roll of the upright box, image pixels and radians."""
    roll, factor, centroid = point_frame(points)
    nose = (complex(*np.asarray(points[2], np.float64)) - centroid) / factor
    x, y, log_width, log_height = BOX_FIT @ nose_terms(nose)
    centre = factor * complex(x, y) + centroid
    sides = abs(factor) * np.exp([log_width, log_height])
    return np.array([centre.real, centre.imag]), sides, roll
