"""Errors of landmarks, in numpy, face by face; whoever calls takes the mean.

NME is the mean distance of the points from the truth, divided by a length of the true face, its
normaliser, and given in percent. Figures by different normalisers do not compare: each result names
its own.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rednet_jax.landmarks.schemes import LANDMARKS_68, inter_ocular, scheme

Floats = NDArray[np.floating]

ALL = slice(None)
"""Every point of a scheme."""

INNER = slice(17, None)
"""Of 68 points the 51 that do not lie on the jaw, where labellers agree best."""

Normaliser = Literal["inter-ocular", "inter-pupil", "box-diagonal"]

NORMALISERS: dict[Normaliser, str] = {
    "inter-ocular": "inter-ocular (outer eye corners)",
    "inter-pupil": "inter-pupil (means of each eye's six points)",
    "box-diagonal": "box-diagonal (of the true landmarks' box)",
}
"""What they are called in results. All but the first are of 68 points only: they would be another
length with fewer."""

NORMALISER = NORMALISERS["inter-ocular"]

NEEDED: dict[Normaliser, str] = {
    "inter-ocular": "both outer eye corners",
    "inter-pupil": "all points of both eyes",
    "box-diagonal": "all points",
}
"""What of a face must be labelled, that it can be measured."""

_PARTS = {
    "jaw": ("jaw",),
    "brows": ("right_brow", "left_brow"),
    "nose": ("nose_bridge", "nose_base", "nose"),
    "eyes": ("right_eye", "left_eye"),
    "mouth": ("outer_lips", "inner_lips", "mouth"),
}


def parts(count: int) -> dict[str, list[int]]:
    """Returns the points of jaw, brows, nose, eyes and mouth, those that the scheme has."""
    groups = dict(scheme(count).groups)
    found = {part: [i for n in names for i in groups.get(n, ())] for part, names in _PARTS.items()}
    return {part: points for part, points in found.items() if points}


def face_lengths(landmarks: Floats, normaliser: Normaliser) -> Floats:
    """Returns the length [...] of true faces [..., L, 2] that errors are divided by, in pixels.

    Raises:
        ValueError: a normaliser of 68 points, and fewer points.
    """
    if normaliser == "inter-ocular":
        return inter_ocular(landmarks)
    _need_68(landmarks.shape[-2], normaliser)
    if normaliser == "inter-pupil":
        right, left = (landmarks[..., list(eye), :].mean(-2) for eye in _eyes())
        between: Floats = np.linalg.norm(right - left, axis=-1)
        return between
    diagonal: Floats = np.linalg.norm(landmarks.max(-2) - landmarks.min(-2), axis=-1)
    return diagonal


def measurable(
    labelled: NDArray[np.bool_], normaliser: Normaliser = "inter-ocular"
) -> NDArray[np.bool_]:
    """Returns which faces [...] of labels [..., L] have all that their length is taken of.

    Raises:
        ValueError: a normaliser of 68 points, and fewer points.
    """
    points: list[int] | slice = list(scheme(labelled.shape[-1]).outer_eyes)
    if normaliser != "inter-ocular":
        _need_68(labelled.shape[-1], normaliser)
        points = [i for eye in _eyes() for i in eye] if normaliser == "inter-pupil" else ALL
    known: NDArray[np.bool_] = np.all(labelled[..., points], axis=-1)
    return known


def point_errors(
    landmarks: Floats,
    truth: Floats,
    labelled: NDArray[np.bool_] | None = None,
    normaliser: Normaliser = "inter-ocular",
) -> Floats:
    """Returns the error of every point, [..., L], in percent of the true face's length.

    Args:
        landmarks: [..., L, 2], any frame of pixels.
        truth: [..., L, 2], the same frame.
        labelled: [..., L]; where it is False, or the face is not measurable, the error is nan. All
            are labelled where it is None.
        normaliser: the length.

    Raises:
        ValueError: shapes that differ, or a normaliser of 68 points and fewer points.
    """
    if landmarks.shape != truth.shape:
        raise ValueError(f"landmarks of shape {landmarks.shape}, truth of {truth.shape}")
    labelled = np.ones(truth.shape[:-1], bool) if labelled is None else labelled
    length = np.where(measurable(labelled, normaliser), face_lengths(truth, normaliser), np.nan)
    distance = np.linalg.norm(landmarks - truth, axis=-1)
    errors: Floats = np.where(labelled, 100 * distance / length[..., None], np.nan)
    return errors


def face_errors(
    landmarks: Floats,
    truth: Floats,
    labelled: NDArray[np.bool_] | None = None,
    normaliser: Normaliser = "inter-ocular",
) -> Floats:
    """Returns the NME of every face, [...], percent.

    Args and errors are those of `point_errors`. Points without label do not count; nan is a face
    that is not measurable, or one with no answer for a labelled point.
    """
    labelled = np.ones(truth.shape[:-1], bool) if labelled is None else labelled
    return _mean_of(point_errors(landmarks, truth, labelled, normaliser), labelled)


def part_errors(
    landmarks: Floats,
    truth: Floats,
    labelled: NDArray[np.bool_] | None = None,
    normaliser: Normaliser = "inter-ocular",
) -> dict[str, Floats]:
    """Returns the NME [...] of every face for each of `parts`, percent.

    Args and errors are those of `point_errors`. nan is a face that is not measurable, that has no
    label in this part, or no answer for a labelled point of it.
    """
    labelled = np.ones(truth.shape[:-1], bool) if labelled is None else labelled
    errors = point_errors(landmarks, truth, labelled, normaliser)
    return {
        part: _mean_of(errors[..., points], labelled[..., points])
        for part, points in parts(truth.shape[-2]).items()
    }


def jitter(landmarks: Floats, points: slice = ALL) -> float:
    """Returns the mean |p(t+1) - 2 p(t) + p(t-1)| of a track, in percent of inter-ocular distance.

    Args:
        landmarks: [T, L, 2]; frames that are nan, and their neighbours, do not count.
        points: of the landmarks, those that count.

    Returns:
        nan where no three frames follow each other.
    """
    second = landmarks[2:] - 2 * landmarks[1:-1] + landmarks[:-2]
    # Points that all lie on one spot have no length: what is not finite does not count.
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.linalg.norm(second, axis=-1) / inter_ocular(landmarks)[1:-1, None]
    counted = relative[:, points]
    known = counted[np.isfinite(counted)]
    return float(100 * known.mean()) if known.size else float("nan")


def _mean_of(errors: Floats, labelled: NDArray[np.bool_]) -> Floats:
    """The mean of errors [..., P] over the labelled points; nan where there is none."""
    count = labelled.sum(-1)
    total = np.where(labelled, errors, 0).sum(-1)
    mean: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean


def _eyes() -> tuple[tuple[int, ...], tuple[int, ...]]:
    groups = dict(LANDMARKS_68.groups)
    return groups["right_eye"], groups["left_eye"]


def _need_68(count: int, normaliser: Normaliser) -> None:
    if count != LANDMARKS_68.count:
        raise ValueError(f"{normaliser} is a length of 68 points, not of {count}")
