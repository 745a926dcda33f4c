"""Errors of landmarks, in numpy, face by face; whoever calls takes the mean.

NME is the mean distance of the points from the truth, divided by a length of the face; here that is
always the inter-ocular distance (outer eye corners), and the result is in percent.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rednet_jax.landmarks.schemes import scheme

Floats = NDArray[np.floating]

ALL = slice(None)
"""Every point of a scheme."""

INNER = slice(17, None)
"""Of 68 points the 51 that do not lie on the jaw, where labellers agree best."""

NORMALISER = "inter-ocular (outer eye corners)"


def inter_ocular(landmarks: Floats) -> Floats:
    """Returns the distance [...] between the outer eye corners of landmarks [..., L, 2]."""
    right, left = scheme(landmarks.shape[-2]).outer_eyes
    distance: Floats = np.linalg.norm(landmarks[..., right, :] - landmarks[..., left, :], axis=-1)
    return distance


def measurable(labelled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns which faces [...] of labels [..., L] have an inter-ocular distance."""
    right, left = scheme(labelled.shape[-1]).outer_eyes
    known: NDArray[np.bool_] = labelled[..., right] & labelled[..., left]
    return known


def point_errors(
    landmarks: Floats, truth: Floats, labelled: NDArray[np.bool_] | None = None
) -> Floats:
    """Returns the error of every point, [..., L], in percent of the true inter-ocular distance.

    Args:
        landmarks: [..., L, 2], any frame of pixels.
        truth: [..., L, 2], the same frame.
        labelled: [..., L]; where it is False, or the face is not measurable, the error is nan. All
            are labelled where it is None.

    Raises:
        ValueError: shapes that differ.
    """
    if landmarks.shape != truth.shape:
        raise ValueError(f"landmarks of shape {landmarks.shape}, truth of {truth.shape}")
    labelled = np.ones(truth.shape[:-1], bool) if labelled is None else labelled
    unit = np.where(measurable(labelled), inter_ocular(truth), np.nan)[..., None]
    distance = np.linalg.norm(landmarks - truth, axis=-1)
    errors: Floats = np.where(labelled, 100 * distance / unit, np.nan)
    return errors


def face_errors(
    landmarks: Floats, truth: Floats, labelled: NDArray[np.bool_] | None = None
) -> Floats:
    """Returns the NME of every face, [...], percent.

    Args and errors are those of `point_errors`. Points without label do not count; nan is a face
    that is not measurable, or one with no answer for a labelled point.
    """
    labelled = np.ones(truth.shape[:-1], bool) if labelled is None else labelled
    total = np.where(labelled, point_errors(landmarks, truth, labelled), 0).sum(-1)
    count = np.maximum(labelled.sum(-1), 1)
    nme: Floats = np.where(measurable(labelled), total / count, np.nan)
    return nme


def failure_rate(errors: Floats, cut: float) -> float:
    """Returns the percentage of faces [N] whose error is above `cut`, or nan: no answer."""
    return float(100 * np.mean(~(errors <= cut)))


def cumulative_auc(errors: Floats, cut: float) -> float:
    """Returns the area under the cumulative error distribution of faces [N] up to `cut`.

    In percent of the whole, 100 where every error is 0; exact, not from a histogram. A face with
    no answer, nan, adds nothing.
    """
    return float(100 * np.mean(np.fmax(cut - errors, 0)) / cut)


def jitter(landmarks: Floats, points: slice = ALL) -> float:
    """Returns the mean |p(t+1) - 2 p(t) + p(t-1)| of a track, in percent of inter-ocular distance.

    Args:
        landmarks: [T, L, 2]; frames that are nan, and their neighbours, do not count.
        points: of the landmarks, those that count.

    Returns:
        nan where no three frames follow each other.
    """
    second = landmarks[2:] - 2 * landmarks[1:-1] + landmarks[:-2]
    relative = np.linalg.norm(second, axis=-1) / inter_ocular(landmarks)[1:-1, None]
    counted = relative[:, points]
    known = counted[np.isfinite(counted)]
    return float(100 * known.mean()) if known.size else float("nan")
