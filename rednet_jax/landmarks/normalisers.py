"""Lengths of a face that its errors are divided by, by name and scheme."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.boxes import whole_face_box
from rednet_jax.landmarks.schemes import Part, Scheme

Floats = NDArray[np.floating]

Normaliser = Literal["inter-ocular", "inter-pupil", "box", "box-diagonal"]
"""A length of the true face. `inter-ocular` is the distance between the two groups of landmarks
that the scheme names, in the built-in schemes the outer eye corners."""

NORMALISERS: tuple[Normaliser, ...] = ("inter-ocular", "inter-pupil", "box", "box-diagonal")


def default_normaliser(scheme: Scheme) -> Normaliser:
    """Returns the normaliser that a scheme's errors are published with."""
    return "box" if scheme.normaliser == "box" else "inter-ocular"


def normaliser_text(scheme: Scheme, normaliser: Normaliser | None = None) -> str:
    """Returns what a normaliser is called in results.

    Raises:
        RednetError: as `check_normaliser` does.
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
    one, other = _pair(scheme, normaliser)
    if len(one) == len(other) == 1 and {*one, *other} <= {*scheme.regions.get("eyes", ())}:
        return "inter-ocular (outer eye corners)"
    groups = " and ".join(",".join(map(str, group)) for group in (one, other))
    return f"inter-ocular (landmarks {groups})"


_NUMBERS = {4: "four", 6: "six", 8: "eight"}


def check_normaliser(normaliser: Normaliser, scheme: Scheme) -> None:
    """Raises RednetError if landmarks of the scheme have no such length, or none has."""
    if normaliser not in NORMALISERS:
        raise RednetError(f"no normaliser '{normaliser}'; known: {', '.join(NORMALISERS)}")
    if normaliser == "inter-ocular" and scheme.normaliser == "box":
        raise RednetError(f"scheme {scheme.name} names no points for 'inter-ocular', only its box")
    if normaliser == "inter-pupil":
        _eyes(scheme)
    if normaliser == "box-diagonal" and scheme.outline:
        raise RednetError(f"the landmarks of scheme {scheme.name} do not span the face's box")


def needed(normaliser: Normaliser, scheme: Scheme) -> str:
    """Returns what of a face must be labelled, that it can be measured."""
    if normaliser == "inter-ocular":
        eyes = "outer eye corners" in normaliser_text(scheme, normaliser)
        return "both outer eye corners" if eyes else "all landmarks of its normaliser"
    return {
        "inter-pupil": "all points of both eyes",
        "box": "two landmarks, or one and a box,",
        "box-diagonal": "all points",
    }[normaliser]


def inner_landmarks(scheme: Scheme) -> list[int]:
    """Returns the landmarks that do not lie on the jaw, where labellers agree best."""
    jaw = scheme.regions.get("jaw", ())
    return [index for index in range(scheme.count) if index not in jaw]


def face_lengths(
    landmarks: Floats,
    scheme: Scheme,
    normaliser: Normaliser | None = None,
    labelled: NDArray[np.bool_] | None = None,
    boxes: Floats | None = None,
) -> Floats:
    """Returns the length [...] of true faces [..., L, 2] that errors are divided by, in pixels.

    Args:
        landmarks: [..., L, 2], any frame of pixels.
        scheme: of the landmarks.
        normaliser: the length; the scheme's own if None.
        labelled: [..., L]; all are labelled where it is None.
        boxes: [..., 4] of the faces, in the same frame, for 'box'; those of the landmarks if None.

    Returns:
        nan where the face is not measurable.

    Raises:
        RednetError: the scheme has no such length.
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
        one, other = (
            landmarks[..., list(group), :].mean(-2) for group in _pair(scheme, normaliser)
        )
        length = np.linalg.norm(one - other, axis=-1)
    lengths: Floats = np.where(known, length, np.nan)
    return lengths


def measurable(
    labelled: NDArray[np.bool_],
    scheme: Scheme,
    normaliser: Normaliser | None = None,
    *,
    boxed: bool = False,
) -> NDArray[np.bool_]:
    """Returns which faces [...] of labels [..., L] have all landmarks that their length needs.

    Args:
        labelled: bool [..., L].
        scheme: of the landmarks.
        normaliser: the length; the scheme's own if None.
        boxed: whether the faces' boxes are known.

    Raises:
        RednetError: the scheme has no such length.
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
    """The groups of landmarks whose centres' distance a normaliser is."""
    if normaliser == "inter-pupil":
        right, left = _eyes(scheme)
        return right.points, left.points
    assert scheme.groups is not None
    return scheme.groups


def _eyes(scheme: Scheme) -> tuple[Part, Part]:
    """The outlines of both eyes: the mean of two corners is no pupil."""
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
    """The boxes [..., 4] of faces, around the landmarks that are labelled; nan without."""
    boxes = np.full((*known.shape, 4), np.nan)
    for place in np.ndindex(known.shape):
        if known[place]:
            boxes[place] = whole_face_box(landmarks[place], scheme, labelled[place])
    return boxes
