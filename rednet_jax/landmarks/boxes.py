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
        labelled: [L], which of them count; all where it is None.

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
    """Returns the bounding box [4] float32 of a face, which its crop is cut around.

    It is that of the landmarks and of the scheme's outline. In training, evaluation, tracking and
    export crops are cut around it. Points that are not known are those of the mean shape, fitted to
    the known ones by a similarity (least squares): the box of the eyes alone, or of a face without
    its chin, is not where a face's box would be. Where all landmarks are known and the scheme has
    no outline it is `landmark_box`.

    Args:
        landmarks: [L, 2], pixels (x, y).
        scheme: of the landmarks.
        labelled: bool [L], which of them are known; all where it is None.
        expected: [4], gives the size of a face of which fewer than two places are known.

    Raises:
        ValueError: no landmark is known, or only one place and no box is expected.
    """
    known = np.ones(len(landmarks), bool) if labelled is None else labelled
    if known.all() and not scheme.outline and len(landmarks) > 1:
        return landmark_box(landmarks)
    whole, _ = _whole_face(landmarks, scheme, known, expected)
    return landmark_box(np.stack([whole.real, whole.imag], axis=-1))


def face_roll(landmarks: NDArray[np.floating], scheme: Scheme) -> float:
    """Returns the roll of a face in radians, clockwise in the image, -pi to pi.

    It is the rotation of the similarity that takes the mean shape to the landmarks by least
    squares. One landmark alone has the roll 0.

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
    """Returns the box [4] float32 of a whole face in a frame of axes that is turned by roll.

    `crop_transform(box, roll=roll, ...)` is then a crop around the face. At a roll of 0 it is
    `whole_face_box`.

    Args:
        landmarks: [L, 2], pixels (x, y).
        scheme: of the landmarks.
        roll: radians, clockwise in the image.
        expected: as in `whole_face_box`.

    Returns:
        (x0, y0, x1, y1) in image pixels before the box is turned about its centre.
    """
    if roll == 0:
        return whole_face_box(landmarks, scheme, expected=expected)
    turn = np.exp(1j * roll)
    turned = landmarks @ np.array([1, 1j]) / turn
    upright = np.stack([turned.real, turned.imag], axis=-1)
    box = whole_face_box(upright, scheme, expected=expected).astype(np.float64)
    half = (box[2:] - box[:2]) / 2
    centre = turn * complex(*(box[:2] + box[2:]) / 2)
    middle = np.array([centre.real, centre.imag])
    return np.concatenate([middle - half, middle + half]).astype(np.float32)


def _whole_face(
    landmarks: NDArray[np.floating],
    scheme: Scheme,
    known: NDArray[np.bool_],
    expected: NDArray[np.floating] | None,
) -> tuple[NDArray[np.complex128], complex]:
    """Returns landmarks and outline as complex numbers, and the factor of the mean shape's fit.

    Points that are not known are those of the mean shape, fitted to the others by least squares.
    """
    # As complex numbers a similarity is z -> a z + b, and its least squares are a division.
    places = np.flatnonzero(known)
    shape = np.concatenate([scheme.shape, scheme.outline_shape]) @ [1, 1j]
    found = landmarks[known] @ [1, 1j]
    if not len(places):
        raise ValueError("the box of a face needs at least one labelled landmark")
    middle, place = shape[places].mean(), found.mean()
    offsets = shape[places] - middle
    spread = np.vdot(offsets, offsets).real
    if spread > 0:
        factor = np.vdot(offsets, found - place) / spread
    elif expected is None:
        raise ValueError("the box of a face of one labelled landmark needs an expected box")
    else:
        factor = complex(max(expected[2] - expected[0], expected[3] - expected[1]))
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
