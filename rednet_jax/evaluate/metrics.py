"""Errors of landmarks, in numpy, face by face; whoever calls takes the mean.

NME is the mean distance of the points from the truth, divided by a length of the face; here that is
always the inter-ocular distance (outer eye corners), and the result is in percent.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rednet_jax.landmarks.schemes import scheme

Floats = NDArray[np.floating]

NORMALISER = "inter-ocular (outer eye corners)"


def inter_ocular(landmarks: Floats) -> Floats:
    """Returns the distance [...] between the outer eye corners of landmarks [..., L, 2]."""
    right, left = scheme(landmarks.shape[-2]).outer_eyes
    distance: Floats = np.linalg.norm(landmarks[..., right, :] - landmarks[..., left, :], axis=-1)
    return distance


def point_errors(
    landmarks: Floats, truth: Floats, labelled: NDArray[np.bool_] | None = None
) -> Floats:
    """Returns the error of every point, [..., L], in percent of the true inter-ocular distance.

    Args:
        landmarks: [..., L, 2], any frame of pixels.
        truth: [..., L, 2], the same frame.
        labelled: [..., L]; where it is False, or the face's eye corners are not labelled, the error
            is nan. All are labelled where it is None.

    Raises:
        ValueError: shapes that differ.
    """
    if landmarks.shape != truth.shape:
        raise ValueError(f"landmarks of shape {landmarks.shape}, truth of {truth.shape}")
    known = np.ones(truth.shape[:-1], bool) if labelled is None else labelled
    right, left = scheme(truth.shape[-2]).outer_eyes
    known = known & (known[..., right] & known[..., left])[..., None]
    unit = np.where(known[..., right], inter_ocular(truth), np.nan)[..., None]
    distance = np.linalg.norm(landmarks - truth, axis=-1)
    errors: Floats = np.where(known, 100 * distance / unit, np.nan)
    return errors


def face_errors(
    landmarks: Floats, truth: Floats, labelled: NDArray[np.bool_] | None = None
) -> Floats:
    """Returns the NME of every face, [...], percent; nan where nothing can be said.

    Args and errors are those of `point_errors`; points without label do not count.
    """
    errors = point_errors(landmarks, truth, labelled)
    known = ~np.isnan(errors)
    total = np.where(known, errors, 0).sum(-1)
    count = known.sum(-1)
    nme: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return nme


def failure_rate(errors: Floats, cut: float) -> float:
    """Returns the percentage of faces [N] whose error lies above `cut`."""
    return float(100 * np.mean(errors > cut))


def cumulative_auc(errors: Floats, cut: float) -> float:
    """Returns the area under the cumulative error distribution of faces [N] up to `cut`.

    In percent of the whole, 100 where every error is 0; exact, not from a histogram.
    """
    return float(100 * np.mean(np.maximum(cut - errors, 0)) / cut)


def jitter(landmarks: Floats) -> float:
    """Returns the mean |p(t+1) - 2 p(t) + p(t-1)| of a track, in percent of inter-ocular distance.

    Args:
        landmarks: [T, L, 2]; frames that are nan, and their neighbours, do not count.

    Returns:
        nan where no three frames follow each other.
    """
    second = landmarks[2:] - 2 * landmarks[1:-1] + landmarks[:-2]
    relative = np.linalg.norm(second, axis=-1) / inter_ocular(landmarks)[1:-1, None]
    known = relative[np.isfinite(relative)]
    return float(100 * known.mean()) if known.size else float("nan")
