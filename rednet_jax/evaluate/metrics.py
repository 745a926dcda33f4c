"""Errors of landmarks, in numpy, face by face; whoever calls takes the mean.

NME is the mean distance of the points from the truth, divided by a length of the true face, its
normaliser, and given in percent. Figures by different normalisers do not compare: each result names
its own.
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
        labelled: [..., L]; where it is False, or the face is not measurable, the error is nan. All
            are labelled where it is None.
        normaliser: the length; the scheme's own if None.
        boxes: as in `face_lengths`.

    Raises:
        ValueError: shapes that differ.
        RednetError: the scheme has no such length.
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

    Args and errors are those of `point_errors`. Points without label do not count; nan is a face
    that is not measurable, or one with no answer for a labelled point.
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

    Args and errors are those of `point_errors`. nan is a face that is not measurable, that has no
    label in this region, or no answer for a labelled point of it.
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
        landmarks: [T, L, 2]; frames that are nan, and their neighbours, do not count.
        scheme: of the landmarks.
        points: of the landmarks, those that count; all if None.

    Returns:
        nan where no three frames follow each other, and for one landmark alone without its length.
    """
    relative = _relative_jitter(landmarks, scheme)
    counted = relative if points is None else relative[:, points]
    finite = counted[np.isfinite(counted)]
    return float(100 * finite.mean()) if finite.size else float("nan")


def frame_jitter(landmarks: Floats, scheme: Scheme) -> Floats:
    """Returns the jitter of each frame [T] of a track [T, L, 2], percent; `jitter` has the unit.

    It is that of the frame and its two neighbours; nan where one of the three is nan or missing.
    """
    return 100 * _of_frames(_relative_jitter(landmarks, scheme), len(landmarks))


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
    own motion does not count. The truth's jitter does: labels that people or machines set in each
    frame jitter themselves, those of generated faces do not.

    Args are those of `point_errors`, with landmarks [T, L, 2]. A point counts where it is labelled
    in the frame and its two neighbours; nan is a frame without such a point.
    """
    labelled = np.ones(truth.shape[:-1], bool) if labelled is None else labelled
    errors = np.where(labelled[..., None], landmarks - truth, np.nan)
    lengths = face_lengths(truth, scheme, normaliser, labelled, boxes)[1:-1]
    return 100 * _of_frames(_second_differences(errors) / lengths[:, None], len(landmarks))


def _relative_jitter(landmarks: Floats, scheme: Scheme) -> Floats:
    """|Second differences| [T-2, L] of a track, in its own lengths."""
    known: NDArray[np.bool_] = np.all(np.isfinite(landmarks), axis=-1)
    # Points that all lie on one spot have no length: what is not finite does not count.
    with np.errstate(divide="ignore", invalid="ignore"):
        lengths = face_lengths(landmarks, scheme, None, known)[1:-1]
        relative: Floats = _second_differences(landmarks) / lengths[:, None]
    return relative


def _second_differences(points: Floats) -> Floats:
    """Returns `|p(t+1) - 2 p(t) + p(t-1)|`, [T-2, L], of points [T, L, 2]."""
    second = points[2:] - 2 * points[1:-1] + points[:-2]
    return np.asarray(np.linalg.norm(second, axis=-1))


def _of_frames(differences: Floats, frames: int) -> Floats:
    """The means [T] of second differences [T-2, L] over points; nan in the first and last frame."""
    means = np.full(frames, np.nan)
    means[1:-1] = _mean_of(differences, np.isfinite(differences))
    return means


def _mean_of(errors: Floats, labelled: NDArray[np.bool_]) -> Floats:
    """The mean of errors [..., P] over the labelled points; nan where there is none."""
    count = labelled.sum(-1)
    total = np.where(labelled, errors, 0).sum(-1)
    mean: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean
