"""Normalisers: the lengths of a face by which errors are divided."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.boxes import whole_face_box
from rednet_jax.landmarks.schemes import Part, Scheme

Floats = NDArray[np.floating]

Normaliser = Literal["inter-ocular", "inter-pupil", "box", "box-diagonal"]
"""A length of the labelled face. `inter-ocular` is the distance between the scheme's two groups of
landmarks, which are the outer eye corners in the built-in schemes."""

NORMALISERS: tuple[Normaliser, ...] = ("inter-ocular", "inter-pupil", "box", "box-diagonal")


def default_normaliser(scheme: Scheme) -> Normaliser:
    """Returns the scheme's normaliser, which published errors of the built-in schemes use."""
    return "box" if scheme.normaliser == "box" else "inter-ocular"


def normaliser_text(scheme: Scheme, normaliser: Normaliser | None = None) -> str:
    """Returns the name of a normaliser in results.

    Raises:
        RednetError: as `check_normaliser` raises it.
    """
    normaliser = normaliser or default_normaliser(scheme)
    check_normaliser(normaliser, scheme)
    if normaliser == "inter-pupil":
        count = len(_eyes(scheme)[0].points)
        return f"inter-pupil (means of each eye's {_NUMBERS.get(count, count)} points)"
    if normaliser == "box":
        return "box (geometric mean of its sides)"
    if normaliser == "box-diagonal":
        return "box-diagonal (of the true landmarks' box)"
    first, second = _pair(scheme, normaliser)
    if len(first) == len(second) == 1 and {*first, *second} <= {*scheme.regions.get("eyes", ())}:
        return "inter-ocular (outer eye corners)"
    groups = " and ".join(",".join(map(str, group)) for group in (first, second))
    return f"inter-ocular (landmarks {groups})"


_NUMBERS = {4: "four", 6: "six", 8: "eight"}


def check_normaliser(normaliser: Normaliser, scheme: Scheme) -> None:
    """Raises RednetError if the normaliser is unknown, or the scheme does not define it."""
    if normaliser not in NORMALISERS:
        raise RednetError(f"no normaliser '{normaliser}'; known: {', '.join(NORMALISERS)}")
    if normaliser == "inter-ocular" and scheme.normaliser == "box":
        raise RednetError(f"scheme {scheme.name} has no landmarks for 'inter-ocular', only its box")
    if normaliser == "inter-pupil":
        _eyes(scheme)
    if normaliser == "box-diagonal" and scheme.outline:
        raise RednetError(f"the landmarks of scheme {scheme.name} do not span the face's box")


def needed(normaliser: Normaliser, scheme: Scheme) -> str:
    """Returns which labels a face needs for a normaliser, for messages."""
    if normaliser == "inter-ocular":
        eyes = "outer eye corners" in normaliser_text(scheme, normaliser)
        return "both outer eye corners" if eyes else "all landmarks of its normaliser"
    return {
        "inter-pupil": "all points of both eyes",
        "box": "two landmarks, or one and a box,",
        "box-diagonal": "all points",
    }[normaliser]


def inner_landmarks(scheme: Scheme) -> list[int]:
    """Returns the landmarks that are not on the jaw; annotators agree best on these."""
    jaw = scheme.regions.get("jaw", ())
    return [index for index in range(scheme.count) if index not in jaw]


def face_lengths(
    landmarks: Floats,
    scheme: Scheme,
    normaliser: Normaliser | None = None,
    labelled: NDArray[np.bool_] | None = None,
    boxes: Floats | None = None,
) -> Floats:
    """Returns the lengths [...] of labelled faces [..., L, 2] by which errors are divided, pixels.

    Args:
        landmarks: [..., L, 2], any frame of pixels.
        scheme: of the landmarks.
        normaliser: the length; the scheme's own if None.
        labelled: bool [..., L], mask of the labelled landmarks; None for all.
        boxes: [..., 4] of the faces, in the same frame, for 'box'; those of the landmarks if None.

    Returns:
        The lengths, nan where the face is not measurable.

    Raises:
        RednetError: the scheme does not define the normaliser.
    """
    normaliser = normaliser or default_normaliser(scheme)
    check_normaliser(normaliser, scheme)
    labelled = np.ones(landmarks.shape[:-1], bool) if labelled is None else labelled
    known = measurable(labelled, scheme, normaliser, boxed=boxes is not None)
    if normaliser == "box":
        if boxes is None:
            boxes = _boxes(landmarks, scheme, labelled, known)
        length = np.sqrt(np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1))
    elif normaliser == "box-diagonal":
        length = np.linalg.norm(landmarks.max(-2) - landmarks.min(-2), axis=-1)
    else:
        first, second = (
            landmarks[..., list(group), :].mean(-2) for group in _pair(scheme, normaliser)
        )
        length = np.linalg.norm(first - second, axis=-1)
    lengths: Floats = np.where(known, length, np.nan)
    return lengths


def measurable(
    labelled: NDArray[np.bool_],
    scheme: Scheme,
    normaliser: Normaliser | None = None,
    *,
    boxed: bool = False,
) -> NDArray[np.bool_]:
    """Returns which faces have all landmarks that their normaliser needs, bool [...].

    Args:
        labelled: bool [..., L], mask of the labelled landmarks.
        scheme: of the landmarks.
        normaliser: the length; the scheme's own if None.
        boxed: whether the faces' boxes are known.

    Raises:
        RednetError: the scheme does not define the normaliser.
    """
    normaliser = normaliser or default_normaliser(scheme)
    check_normaliser(normaliser, scheme)
    if normaliser == "box":
        enough: NDArray[np.bool_] = labelled.sum(-1) >= (1 if boxed else 2)
        return enough
    points: list[int] | slice = slice(None)
    if normaliser != "box-diagonal":
        points = [index for group in _pair(scheme, normaliser) for index in group]
    known: NDArray[np.bool_] = np.all(labelled[..., points], axis=-1)
    return known


def _pair(scheme: Scheme, normaliser: Normaliser) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The two groups of landmarks; the normaliser is the distance of their centres."""
    if normaliser == "inter-pupil":
        right, left = _eyes(scheme)
        return right.points, left.points
    assert scheme.groups is not None
    return scheme.groups


def _eyes(scheme: Scheme) -> tuple[Part, Part]:
    """The closed outlines of both eyes. Only their means are close to the pupils."""
    right, left = scheme.part("right_eye"), scheme.part("left_eye")
    if right is None or left is None or not (right.closed and left.closed):
        raise RednetError(
            f"scheme {scheme.name} has no closed parts 'right_eye' and 'left_eye', which "
            "inter-pupil needs"
        )
    return right, left


def _boxes(
    landmarks: Floats, scheme: Scheme, labelled: NDArray[np.bool_], known: NDArray[np.bool_]
) -> Floats:
    """The boxes [..., 4] of the known faces around their labelled landmarks, else nan."""
    boxes = np.full((*known.shape, 4), np.nan)
    for index in np.ndindex(known.shape):
        if known[index]:
            boxes[index] = whole_face_box(landmarks[index], scheme, labelled[index])
    return boxes
