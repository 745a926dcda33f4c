"""Bounding boxes of faces, (x0, y0, x1, y1) in image pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rednet_jax.landmarks.schemes import Scheme


def landmark_box(
    landmarks: NDArray[np.floating], labelled: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Returns the bounding box [4] float32 of landmarks [L, 2].

    Args:
        landmarks: pixels (x, y).
        labelled: bool [L], mask of the landmarks to use; None for all.

    Raises:
        ValueError: no landmark is labelled.
    """
    points = landmarks if labelled is None else landmarks[labelled]
    if not len(points):
        raise ValueError("a box needs at least one labelled landmark")
    return np.concatenate([points.min(0), points.max(0)]).astype(np.float32)


def whole_face_box(
    landmarks: NDArray[np.floating],
    scheme: Scheme,
    labelled: NDArray[np.bool_] | None = None,
    *,
    expected: NDArray[np.floating] | None = None,
) -> NDArray[np.float32]:
    """Returns the bounding box [4] float32 of a whole face, around which crops are placed.

    It encloses the landmarks and the scheme's outline. Unknown points are taken from the mean
    shape, fitted to the known points by a similarity (least squares), since the box of only the
    eyes, or of a face without its chin, is not the face's box. If all landmarks are known and the
    scheme has no outline, it is `landmark_box`.

    Args:
        landmarks: [L, 2], pixels (x, y).
        scheme: of the landmarks.
        labelled: bool [L], mask of the known landmarks; None for all.
        expected: [4], the size of a face with fewer than two known positions.

    Raises:
        ValueError: no landmark is known, or only one position is and `expected` is None.
    """
    known = np.ones(len(landmarks), bool) if labelled is None else labelled
    if known.all() and not scheme.outline and len(landmarks) > 1:
        return landmark_box(landmarks)
    whole, _ = _whole_face(landmarks, scheme, known, expected)
    return landmark_box(np.stack([whole.real, whole.imag], axis=-1))


def face_roll(landmarks: NDArray[np.floating], scheme: Scheme) -> float:
    """Returns the roll of a face in radians, clockwise in the image, -pi to pi.

    It is the rotation of the similarity that fits the mean shape to the landmarks by least squares.
    The roll of a single landmark is 0.

    Args:
        landmarks: [L, 2], pixels (x, y).
        scheme: of the landmarks.
    """
    if len(landmarks) == 1:
        return 0.0
    _, factor = _whole_face(landmarks, scheme, np.ones(len(landmarks), bool), None)
    return float(np.angle(factor))


def turned_face_box(
    landmarks: NDArray[np.floating],
    scheme: Scheme,
    roll: float,
    *,
    expected: NDArray[np.floating] | None = None,
) -> NDArray[np.float32]:
    """Returns the box [4] float32 of a whole face along axes rotated by roll.

    `crop_transform(box, roll=roll, ...)` is a crop around the face. At a roll of 0 the box is
    `whole_face_box`.

    Args:
        landmarks: [L, 2], pixels (x, y).
        scheme: of the landmarks.
        roll: radians, clockwise in the image.
        expected: as in `whole_face_box`.

    Returns:
        (x0, y0, x1, y1) in image pixels, before the rotation of the box about its centre.
    """
    if roll == 0:
        return whole_face_box(landmarks, scheme, expected=expected)
    rotation = np.exp(1j * roll)
    rotated = landmarks @ np.array([1, 1j]) / rotation
    upright = np.stack([rotated.real, rotated.imag], axis=-1)
    box = whole_face_box(upright, scheme, expected=expected).astype(np.float64)
    half = (box[2:] - box[:2]) / 2
    centre = rotation * complex(*(box[:2] + box[2:]) / 2)
    middle = np.array([centre.real, centre.imag])
    return np.concatenate([middle - half, middle + half]).astype(np.float32)


def _whole_face(
    landmarks: NDArray[np.floating],
    scheme: Scheme,
    known: NDArray[np.bool_],
    expected: NDArray[np.floating] | None,
) -> tuple[NDArray[np.complex128], complex]:
    """Returns landmarks and outline as complex numbers, and the factor of the mean shape's fit.

    Unknown points are taken from the mean shape, fitted to the known points by least squares.
    """
    # With complex numbers a similarity is z -> a z + b, and the least-squares fit is a division.
    indices = np.flatnonzero(known)
    shape = np.concatenate([scheme.shape, scheme.outline_shape]) @ [1, 1j]
    points = landmarks[known] @ [1, 1j]
    if not len(indices):
        raise ValueError("the box of a face needs at least one labelled landmark")
    shape_centre, centre = shape[indices].mean(), points.mean()
    offsets = shape[indices] - shape_centre
    spread = np.vdot(offsets, offsets).real
    if spread > 0:
        factor = np.vdot(offsets, points - centre) / spread
    elif expected is None:
        raise ValueError("the box of a face of one labelled landmark needs an expected box")
    else:
        factor = complex(max(expected[2] - expected[0], expected[3] - expected[1]))
    whole = centre + factor * (shape - shape_centre)
    whole[indices] = points
    return whole, complex(factor)


def jitter_box(
    rng: np.random.Generator,
    box: NDArray[np.floating],
    centre: float = 0.06,
    log_size: float = 0.10,
) -> NDArray[np.float32]:
    """Returns a randomly displaced and resized copy of a box [4], like a detector's box.

    Args:
        rng: the random generator.
        box: [4].
        centre: standard deviation of the centre on each axis, in units of the box's larger side.
        log_size: standard deviation of the logarithm of the size.
    """
    low, high = np.asarray(box[:2], np.float64), np.asarray(box[2:], np.float64)
    middle = (low + high) / 2 + rng.normal(0, centre, 2) * (high - low).max()
    half = (high - low) / 2 * np.exp(rng.normal(0, log_size))
    return np.concatenate([middle - half, middle + half]).astype(np.float32)


def intersection_over_union(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Returns the intersection over union of two boxes [4], 0 to 1."""
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    common = float(np.prod(sides))
    return common / (float(np.prod(a[2:] - a[:2])) + float(np.prod(b[2:] - b[:2])) - common)
