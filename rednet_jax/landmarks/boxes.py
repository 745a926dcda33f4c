"""Bounding boxes of faces, (x0, y0, x1, y1) in image pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rednet_jax.landmarks.schemes import LANDMARKS_68, mean_shape, scheme


def landmark_box(
    landmarks: NDArray[np.floating], labelled: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Returns the bounding box [4] float32 of landmarks [L, 2].

    Args:
        landmarks: pixels (x, y).
        labelled: [L], which of them count; all where it is None.

    Raises:
        ValueError: no landmark is labelled.
    """
    points = landmarks if labelled is None else landmarks[labelled]
    if not len(points):
        raise ValueError("a box needs at least one labelled landmark")
    return np.concatenate([points.min(0), points.max(0)]).astype(np.float32)


def whole_face_box(
    landmarks: NDArray[np.floating], labelled: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Returns the box [4] float32 that a face's crop is cut around: that of its 68 landmarks.

    Crops are cut around it in training, evaluation, tracking and export, whatever is known of the
    face. Landmarks that are not known are taken from the mean shape, turned, scaled and moved onto
    the known ones by least squares: the box of the eyes alone, or of a face without its chin, is
    not where a face's box would be. Where all 68 are known it is `landmark_box`.

    Args:
        landmarks: [L, 2], pixels (x, y), of a scheme of L landmarks.
        labelled: [L], which of them are known; all where it is None.

    Raises:
        ValueError: fewer than two landmarks are known, or there is no scheme of so many.
    """
    known = np.ones(len(landmarks), bool) if labelled is None else labelled
    if len(landmarks) == LANDMARKS_68.count and known.all():
        return landmark_box(landmarks)
    if known.sum() < 2:
        raise ValueError("the box of a whole face needs at least two labelled landmarks")
    whole, _ = _whole_face(landmarks, known)
    return landmark_box(np.stack([whole.real, whole.imag], axis=-1))


def face_roll(landmarks: NDArray[np.floating]) -> float:
    """Returns the roll of a face in radians, clockwise in the image, -pi to pi.

    It is the rotation of the similarity that takes the mean shape to the landmarks by least
    squares.

    Args:
        landmarks: [L, 2], pixels (x, y), of a scheme of L landmarks.
    """
    _, factor = _whole_face(landmarks, np.ones(len(landmarks), bool))
    return float(np.angle(factor))


def turned_face_box(landmarks: NDArray[np.floating], roll: float) -> NDArray[np.float32]:
    """Returns the box [4] float32 of a whole face in a frame of axes that is turned by roll.

    `crop_transform(box, roll=roll, ...)` is then a crop around the face. At a roll of 0 it is
    `whole_face_box`.

    Args:
        landmarks: [L, 2], pixels (x, y), of a scheme of L landmarks.
        roll: radians, clockwise in the image.

    Returns:
        (x0, y0, x1, y1) in image pixels before the box is turned about its centre.
    """
    if roll == 0:
        return whole_face_box(landmarks)
    turn = np.exp(1j * roll)
    upright = landmarks @ np.array([1, 1j]) / turn
    box = whole_face_box(np.stack([upright.real, upright.imag], axis=-1)).astype(np.float64)
    half = (box[2:] - box[:2]) / 2
    centre = turn * complex(*(box[:2] + box[2:]) / 2)
    middle = np.array([centre.real, centre.imag])
    return np.concatenate([middle - half, middle + half]).astype(np.float32)


def _whole_face(
    landmarks: NDArray[np.floating], known: NDArray[np.bool_]
) -> tuple[NDArray[np.complex128], complex]:
    """Returns 68 landmarks as complex numbers, and the factor that turns and scales the mean shape.

    Those that are not known are those of the mean shape, fitted to the others by least squares.
    """
    # As complex numbers a similarity is z -> a z + b, and its least squares are a division.
    places = np.asarray(scheme(len(landmarks)).from_68)[known]
    shape, found = mean_shape(LANDMARKS_68) @ [1, 1j], landmarks[known] @ [1, 1j]
    middle, place = shape[places].mean(), found.mean()
    offsets = shape[places] - middle
    factor = np.vdot(offsets, found - place) / np.vdot(offsets, offsets)
    whole = place + factor * (shape - middle)
    whole[places] = found
    return whole, complex(factor)


def jitter_box(
    rng: np.random.Generator,
    box: NDArray[np.floating],
    centre: float = 0.06,
    log_size: float = 0.10,
) -> NDArray[np.float32]:
    """Returns the box [4] displaced and resized at random, as a detector might have found it.

    Args:
        rng: the source of the draw.
        box: [4].
        centre: deviation of the centre on each axis, in units of the box's larger side.
        log_size: deviation of the logarithm of its size.
    """
    low, high = np.asarray(box[:2], np.float64), np.asarray(box[2:], np.float64)
    middle = (low + high) / 2 + rng.normal(0, centre, 2) * (high - low).max()
    half = (high - low) / 2 * np.exp(rng.normal(0, log_size))
    return np.concatenate([middle - half, middle + half]).astype(np.float32)


def intersection_over_union(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Returns the overlap of two boxes [4], 0 to 1."""
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    common = float(np.prod(sides))
    return common / (float(np.prod(a[2:] - a[:2])) + float(np.prod(b[2:] - b[:2])) - common)
