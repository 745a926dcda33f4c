"""Errors of landmarks per face, in numpy.

NME is the mean distance of the points from the truth, divided by a length of the true face (the
normaliser), in percent. NMEs of different normalisers are not comparable, so each result states its
own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rednet_jax.landmarks.normalisers import Normaliser, face_lengths
from rednet_jax.landmarks.schemes import Scheme

Floats = NDArray[np.floating]


def point_errors(
    landmarks: Floats,
    truth: Floats,
    scheme: Scheme,
    labelled: NDArray[np.bool_] | None = None,
    normaliser: Normaliser | None = None,
    boxes: Floats | None = None,
) -> Floats:
    """Returns the error of every point, [..., L], in percent of the true face's length.

    Args:
        landmarks: [..., L, 2], any frame of pixels.
        truth: [..., L, 2], the same frame.
        scheme: of the landmarks.
        labelled: [..., L]; the error is nan where it is False, or if the face is not measurable.
            None means that all points are labelled.
        normaliser: the length; the scheme's own if None.
        boxes: as in `face_lengths`.

    Raises:
        ValueError: shapes that differ.
        RednetError: the scheme does not have the normaliser.
    """
    if landmarks.shape != truth.shape:
        raise ValueError(f"landmarks of shape {landmarks.shape}, truth of {truth.shape}")
    labelled = np.ones(truth.shape[:-1], bool) if labelled is None else labelled
    length = face_lengths(truth, scheme, normaliser, labelled, boxes)
    distance = np.linalg.norm(landmarks - truth, axis=-1)
    errors: Floats = np.where(labelled, 100 * distance / length[..., None], np.nan)
    return errors


def face_errors(
    landmarks: Floats,
    truth: Floats,
    scheme: Scheme,
    labelled: NDArray[np.bool_] | None = None,
    normaliser: Normaliser | None = None,
    boxes: Floats | None = None,
) -> Floats:
    """Returns the NME of every face, [...], percent.

    Args and errors are those of `point_errors`. Unlabelled points are excluded; the NME is nan if
    the face is not measurable, or if a labelled point has no prediction.
    """
    labelled = np.ones(truth.shape[:-1], bool) if labelled is None else labelled
    return _mean_of(point_errors(landmarks, truth, scheme, labelled, normaliser, boxes), labelled)


def part_errors(
    landmarks: Floats,
    truth: Floats,
    scheme: Scheme,
    labelled: NDArray[np.bool_] | None = None,
    normaliser: Normaliser | None = None,
    boxes: Floats | None = None,
) -> dict[str, Floats]:
    """Returns the NME [...] of every face for each of the scheme's regions, percent.

    Args and errors are those of `point_errors`. The NME is nan if the face is not measurable, if it
    has no label in the region, or if a labelled point of it has no prediction.
    """
    labelled = np.ones(truth.shape[:-1], bool) if labelled is None else labelled
    errors = point_errors(landmarks, truth, scheme, labelled, normaliser, boxes)
    return {
        region: _mean_of(errors[..., list(points)], labelled[..., list(points)])
        for region, points in scheme.regions.items()
    }


def jitter(landmarks: Floats, scheme: Scheme, points: list[int] | None = None) -> float:
    """Returns the mean `|p(t+1) - 2 p(t) + p(t-1)|` of a track, in percent of the scheme's length.

    Args:
        landmarks: [T, L, 2]; frames that are nan, and their neighbours, are excluded.
        scheme: of the landmarks.
        points: indices of the landmarks to include; all if None.

    Returns:
        The jitter; nan without three consecutive frames, or if the landmarks have no length.
    """
    relative = _relative_jitter(landmarks, scheme)
    counted = relative if points is None else relative[:, points]
    finite = counted[np.isfinite(counted)]
    return float(100 * finite.mean()) if finite.size else float("nan")


def frame_jitter(landmarks: Floats, scheme: Scheme) -> Floats:
    """Returns the jitter of each frame [T] of a track [T, L, 2], percent of the scheme's length.

    It is computed from the frame and its two neighbours; nan if one of them is nan or missing.
    """
    return 100 * _frame_means(_relative_jitter(landmarks, scheme), len(landmarks))


def error_jitter(
    landmarks: Floats,
    truth: Floats,
    scheme: Scheme,
    labelled: NDArray[np.bool_] | None = None,
    normaliser: Normaliser | None = None,
    boxes: Floats | None = None,
) -> Floats:
    """Returns the jitter of each frame [T] against the truth, in percent of the true face's length.

    It is the mean `|e(t+1) - 2 e(t) + e(t-1)|` of the errors e = landmarks - truth, so the head's
    own motion cancels. The truth's jitter does not: manual and machine labels of single frames
    jitter, those of generated faces do not.

    Args are those of `point_errors`, with landmarks [T, L, 2]. A point is included if it is
    labelled in the frame and its two neighbours; the jitter of a frame without such points is nan.
    """
    labelled = np.ones(truth.shape[:-1], bool) if labelled is None else labelled
    errors = np.where(labelled[..., None], landmarks - truth, np.nan)
    lengths = face_lengths(truth, scheme, normaliser, labelled, boxes)[1:-1]
    return 100 * _frame_means(_second_differences(errors) / lengths[:, None], len(landmarks))


def _relative_jitter(landmarks: Floats, scheme: Scheme) -> Floats:
    """Returns the norms of second differences [T-2, L], divided by the lengths of the track."""
    known: NDArray[np.bool_] = np.all(np.isfinite(landmarks), axis=-1)
    # Coinciding points have the length 0; the result is then not finite and is excluded.
    with np.errstate(divide="ignore", invalid="ignore"):
        lengths = face_lengths(landmarks, scheme, None, known)[1:-1]
        relative: Floats = _second_differences(landmarks) / lengths[:, None]
    return relative


def _second_differences(points: Floats) -> Floats:
    """Returns `|p(t+1) - 2 p(t) + p(t-1)|`, [T-2, L], of points [T, L, 2]."""
    second = points[2:] - 2 * points[1:-1] + points[:-2]
    return np.asarray(np.linalg.norm(second, axis=-1))


def _frame_means(differences: Floats, frames: int) -> Floats:
    """Returns the means [T] of [T-2, L] over points; nan for the first and last frame."""
    means = np.full(frames, np.nan)
    means[1:-1] = _mean_of(differences, np.isfinite(differences))
    return means


def _mean_of(errors: Floats, labelled: NDArray[np.bool_]) -> Floats:
    """Returns the mean of errors [..., P] over the labelled points; nan if there are none."""
    count = labelled.sum(-1)
    total = np.where(labelled, errors, 0).sum(-1)
    mean: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean
