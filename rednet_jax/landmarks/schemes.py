"""Landmark schemes: which points there are, their mirror pairs, their parts, their mean shape."""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class Scheme:
    """A set of landmarks. Right and left are the person's own; indices count from 0.

    Attributes:
        count: L.
        mirror: for each landmark the one that takes its place in the mirrored image.
        outer_eyes: the outer corners of right and left eye; their distance is inter-ocular.
        groups: (part of the face, its landmarks in drawing order).
        from_68: for each landmark its index in the 68-point scheme.
    """

    count: int
    mirror: tuple[int, ...]
    outer_eyes: tuple[int, int]
    groups: tuple[tuple[str, tuple[int, ...]], ...]
    from_68: tuple[int, ...]


# Of iBUG, as 300-W has it.
LANDMARKS_68 = Scheme(
    count=68,
    mirror=(
        *range(16, -1, -1),  # jaw
        *range(26, 16, -1),  # brows
        *range(27, 31),  # bridge of the nose
        *range(35, 30, -1),  # base of the nose
        *(45, 44, 43, 42, 47, 46),  # eyes
        *(39, 38, 37, 36, 41, 40),
        *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),  # outer lips
        *(64, 63, 62, 61, 60, 67, 66, 65),  # inner lips
    ),
    outer_eyes=(36, 45),
    groups=(
        ("jaw", tuple(range(17))),
        ("right_brow", tuple(range(17, 22))),
        ("left_brow", tuple(range(22, 27))),
        ("nose_bridge", tuple(range(27, 31))),
        ("nose_base", tuple(range(31, 36))),
        ("right_eye", tuple(range(36, 42))),
        ("left_eye", tuple(range(42, 48))),
        ("outer_lips", tuple(range(48, 60))),
        ("inner_lips", tuple(range(60, 68))),
    ),
    from_68=tuple(range(68)),
)

# Eye corners, tip of the nose and mouth corners, as in the ECCV paper.
LANDMARKS_7 = Scheme(
    count=7,
    mirror=(3, 2, 1, 0, 4, 6, 5),
    outer_eyes=(0, 3),
    groups=(
        ("right_eye", (0, 1)),
        ("left_eye", (2, 3)),
        ("nose", (4,)),
        ("mouth", (5, 6)),
    ),
    from_68=(36, 39, 42, 45, 30, 48, 54),
)


def scheme(count: int) -> Scheme:
    """Returns the scheme of `count` landmarks.

    Raises:
        ValueError: there is none of that many.
    """
    for known in (LANDMARKS_68, LANDMARKS_7):
        if known.count == count:
            return known
    raise ValueError(f"no scheme of {count} landmarks; there are 68 and 7")


def mirror_landmarks(landmarks: Any, width: int, scheme: Scheme) -> Any:
    """Returns the landmarks of the mirrored image.

    Args:
        landmarks: [..., L, 2], numpy or JAX, pixels.
        width: of the image, pixels; column x becomes width - 1 - x.
        scheme: whose pairs change places.

    Returns:
        [..., L, 2], of the kind that was given.
    """
    flip, shift = np.asarray([[-1, 1], [width - 1, 0]], np.float32)
    return landmarks[..., np.asarray(scheme.mirror), :] * flip + shift


def inter_ocular(landmarks: NDArray[np.floating]) -> NDArray[np.floating]:
    """Returns the distance [...] between the outer eye corners of landmarks [..., L, 2]."""
    right, left = scheme(landmarks.shape[-2]).outer_eyes
    distance: NDArray[np.floating] = np.linalg.norm(
        landmarks[..., right, :] - landmarks[..., left, :], axis=-1
    )
    return distance


@functools.cache
def _mean_shape_68() -> NDArray[np.float32]:
    text = importlib.resources.files(__package__).joinpath("mean_shape_68.json").read_text()
    return np.asarray(json.loads(text)["landmarks"], np.float32)


def mean_shape(scheme: Scheme) -> NDArray[np.float32]:
    """Returns the mean face [L, 2], float32, made by `python -m rednet_jax.landmarks.mean_shape`.

    Its origin is the centre of the box around a face's 68 landmarks, its unit that box's larger
    side.
    """
    return _mean_shape_68()[list(scheme.from_68)]
