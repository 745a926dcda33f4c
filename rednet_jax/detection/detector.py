"""The interface of face detectors, and the boxes that crops are cut around.

A detector returns boxes and optionally five points. The points determine the roll of the face and
the box of its landmarks in its upright frame, so that the first crop is upright for any roll.
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
"""[5, 2] the mean five points of upright faces, with the centroid 0 and the sum of squares 1.
They are symmetric: the mean is over faces and their mirror images."""

BOX_FIT: NDArray[np.float64] = np.array(
    [
        # Coefficients of x, y and |x| of the nose's offset, and a constant.
        [-2.179, 0.0, 0.0, 0.0],
        [0.0, -1.008, -0.116, 0.120],
        [0.0, 1.384, 0.556, 0.473],
        [0.0, -0.812, 0.275, 0.468],
    ]
)
"""[4, 4] map from the nose's position to the landmarks' box: its centre (x, y), and logarithms of
its width and height, in the frame of `POINTS`. Yaw and pitch of the head move the nose relative to
the other points, and the landmarks' box. `python -m rednet_jax.detection.fit FOLDER_OF_300W` prints
this and `POINTS`."""


RIGHT_IOU = 0.4
"""A detection or tracked face is the labelled face if the intersection over union of their boxes is
larger."""


@dataclasses.dataclass(frozen=True, eq=False)
class Detection:
    """One face in an image.

    Attributes:
        box: [4] float32 (x0, y0, x1, y1), estimate of the bounding box of the face's 68 landmarks,
            image pixels, pixel centres at integers.
        score: 0 to 1 for the default detector; higher is more certain.
        points: [5, 2] float32 (x, y), image pixels: the eyes, the nose, the corners of the mouth.
            The eye and corner at the left of the upright image come first. None if the detector
            returns boxes only.
    """

    box: NDArray[np.float32]
    score: float
    points: NDArray[np.float32] | None = None

    @property
    def roll(self) -> float:
        """Angle of the face in radians, clockwise in the image; 0 without points."""
        return 0.0 if self.points is None else point_frame(self.points)[0]


class FaceDetector(Protocol):
    """An object that finds faces in images.

    The tracker searches whole frames, tiles of them and rotated frames, some of them while it
    tracks through the next frames. It gives a detector with the attribute `whole_frames = True`
    whole, upright frames only, and waits for the result.
    """

    def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Returns the faces in an RGB image uint8 [H, W, 3] by descending score, or []."""
        ...


def by_prominence(faces: Sequence[Detection]) -> list[Detection]:
    """Returns faces in descending order of the product of score and side.

    The score alone would prefer a small frontal face to a large one in front of it.
    """
    return sorted(faces, key=lambda face: -face.score * (face.box[2] - face.box[0]))


def point_frame(points: NDArray[np.floating]) -> tuple[float, complex, complex]:
    """Returns the similarity z -> a z + b, in complex numbers, that fits `POINTS` to points.

    Args:
        points: [5, 2] as in `Detection`.

    Returns:
        The angle of a, which is the roll of the face in radians, clockwise in the image; a; and b,
        the centroid of the points.
    """
    target = np.asarray(points, np.float64) @ [1, 1j]
    reference = POINTS @ [1, 1j]
    # The least-squares solution for a.
    factor = np.vdot(reference, target - target.mean()) / np.vdot(reference, reference)
    return float(np.angle(factor)), complex(factor), complex(target.mean())


def upright_box(face: Detection) -> tuple[NDArray[np.float32], float]:
    """Returns the box of the landmarks in the face's upright frame, and the roll of the face.

    `crop_transform(box, roll=roll, ...)` is then an upright crop. The box is equivariant to
    rotations of the image.

    Args:
        face: of any detector.

    Returns:
        The box [4] float32 (x0, y0, x1, y1) in image pixels before its rotation about its centre,
        and the angle of that rotation in radians, clockwise in the image. Without points they are
        the detector's box and 0.
    """
    if face.points is None:
        return face.box, 0.0
    centre, sides, roll = _fitted_box(face.points)
    return np.concatenate([centre - sides / 2, centre + sides / 2]).astype(np.float32), roll


def landmarks_box(points: NDArray[np.floating]) -> NDArray[np.float32]:
    """Returns the bounding box [4] float32 of the 68 landmarks of a face with five points [5, 2].

    It is the bounding box of the mean shape, stretched to the face's upright box and rotated by its
    roll. Its sides are parallel to the image's, unlike those of `upright_box`.
    """
    centre, sides, roll = _fitted_box(points)
    shape = np.asarray(IBUG68.shape, np.float64)
    low, high = shape.min(0), shape.max(0)
    upright = (shape - (low + high) / 2) / (high - low) * sides
    cosine, sine = np.cos(roll), np.sin(roll)
    landmarks = upright @ np.array([[cosine, sine], [-sine, cosine]]) + centre
    return np.concatenate([landmarks.min(0), landmarks.max(0)]).astype(np.float32)


def nose_terms(nose: complex) -> NDArray[np.float64]:
    """Returns the terms [4] of `BOX_FIT` for a nose's position in the frame of `POINTS`."""
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
