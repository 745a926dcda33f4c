"""The landmark schemes of published data sets and of the generated faces, and scheme files."""

from __future__ import annotations

import importlib.resources
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.schemes import Conversion, Part, Scheme, scheme_of_text

_LARGEST_FILE = 4_000_000

Row = dict[int, float]
"""A landmark as a weighted sum of others: weights by index."""

_RIGHT_PUPIL, _LEFT_PUPIL = 68, 69

_BROW = 0.28
"""Thickness of a brow, relative to the distance from its upper edge, which 300-W marks, to the
eye."""


def _plain(indices: Sequence[int]) -> list[Row]:
    return [{index: 1.0} for index in indices]


def _between(before: int, left: int, right: int, after: int) -> Row:
    """The point halfway between `left` and `right` on the cubic through four points of a curve."""
    return {before: -1 / 16, left: 9 / 16, right: 9 / 16, after: -1 / 16}


def _below(brow: int, *lid: int) -> Row:
    """The lower edge of a brow below a point of its upper edge, above points of the upper lid."""
    return {brow: 1 - _BROW, **{point: _BROW / len(lid) for point in lid}}


def _conversion(source: str, rows: Sequence[Row]) -> Conversion:
    return Conversion(source, tuple(tuple(row.items()) for row in rows))


def _mean_of(
    rows: Sequence[Row], points: Sequence[Sequence[float]]
) -> tuple[tuple[float, ...], ...]:
    """The mean shape of a scheme with landmarks that are sums of another scheme's points."""
    return tuple(
        tuple(
            round(sum(weight * points[index][axis] for index, weight in row.items()), 5)
            for axis in (0, 1)
        )
        for row in rows
    )


def _mean_68() -> tuple[tuple[float, ...], ...]:
    """The mean of 300-W's training faces, from `python -m rednet_jax.landmarks.mean_shape`."""
    text = importlib.resources.files(__package__).joinpath("mean_shape_68.json").read_text()
    return tuple(tuple(point) for point in json.loads(text)["landmarks"])


_SHAPE_68 = _mean_68()

# A pupil is the mean of its eye's lids, so that the mean face looks straight ahead.
_PUPILS = [
    {37: 0.25, 38: 0.25, 40: 0.25, 41: 0.25},
    {43: 0.25, 44: 0.25, 46: 0.25, 47: 0.25},
]

_MIRROR_68 = (
    *range(16, -1, -1),  # jaw
    *range(26, 16, -1),  # brows
    *range(27, 31),  # bridge of the nose
    *range(35, 30, -1),  # base of the nose
    *(45, 44, 43, 42, 47, 46),  # eyes
    *(39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),  # outer lips
    *(64, 63, 62, 61, 60, 67, 66, 65),  # inner lips
)

_PARTS_68 = (
    Part("jaw", tuple(range(17))),
    Part("right_brow", tuple(range(17, 22)), region="brows"),
    Part("left_brow", tuple(range(22, 27)), region="brows"),
    Part("nose_bridge", tuple(range(27, 31)), region="nose"),
    Part("nose_base", tuple(range(31, 36)), region="nose"),
    Part("right_eye", tuple(range(36, 42)), closed=True, region="eyes"),
    Part("left_eye", tuple(range(42, 48)), closed=True, region="eyes"),
    Part("outer_lips", tuple(range(48, 60)), closed=True, region="mouth"),
    Part("inner_lips", tuple(range(60, 68)), closed=True, region="mouth"),
)

_WFLW_IN_68 = (
    *range(0, 33, 2),
    *range(33, 38),
    *range(42, 47),
    *range(51, 60),
    *(60, 61, 63, 64, 65, 67),
    *(68, 69, 71, 72, 73, 75),
    *range(76, 96),
)

IBUG68 = Scheme(
    name="ibug68",
    mirror=_MIRROR_68,
    mean_shape=_SHAPE_68,
    parts=_PARTS_68,
    normaliser=((36,), (45,)),
    conversions=(
        _conversion("head70", _plain(range(68))),
        _conversion("wflw98", _plain(_WFLW_IN_68)),
    ),
)
"""The scheme of 300-W, 300-VW, Helen, LFPW, AFW and IBUG."""

HEAD70 = Scheme(
    name="head70",
    mirror=(*_MIRROR_68, _LEFT_PUPIL, _RIGHT_PUPIL),
    mean_shape=(*_SHAPE_68, *_mean_of(_PUPILS, _SHAPE_68)),
    parts=(
        *_PARTS_68,
        Part("right_pupil", (_RIGHT_PUPIL,), region="eyes"),
        Part("left_pupil", (_LEFT_PUPIL,), region="eyes"),
    ),
    normaliser=((36,), (45,)),
)
"""The scheme of generated faces: `ibug68` and the centres of both irises."""


def _of_head(rows: Sequence[Row], without_pupils: bool) -> list[Row]:
    """Rows of indices in `head70`; without pupils in `ibug68`, with the eyes' means as pupils."""
    if not without_pupils:
        return list(rows)
    pupils = {_RIGHT_PUPIL: _PUPILS[0], _LEFT_PUPIL: _PUPILS[1]}
    return [pupils.get(next(iter(row)), row) for row in rows]


def _from_head(rows: Sequence[Row]) -> tuple[Conversion, ...]:
    return (
        _conversion("head70", _of_head(rows, without_pupils=False)),
        _conversion("ibug68", _of_head(rows, without_pupils=True)),
    )


# Eye corners, tip of the nose and mouth corners, as in the ECCV paper.
_SEVEN = (36, 39, 42, 45, 30, 48, 54)

REDNET7 = Scheme(
    name="rednet7",
    mirror=(3, 2, 1, 0, 4, 6, 5),
    mean_shape=tuple(_SHAPE_68[index] for index in _SEVEN),
    parts=(
        Part("right_eye", (0, 1), region="eyes"),
        Part("left_eye", (2, 3), region="eyes"),
        Part("nose", (4,)),
        Part("mouth", (5, 6)),
    ),
    normaliser=((0,), (3,)),
    outline=tuple(point for index, point in enumerate(_SHAPE_68) if index not in _SEVEN),
    conversions=(
        _conversion("ibug68", _plain(_SEVEN)),
        _conversion("head70", _plain(_SEVEN)),
        _conversion("wflw98", _plain((60, 64, 68, 72, 54, 76, 82))),
        _conversion("cofw29", _plain((8, 10, 11, 9, 20, 22, 23))),
        _conversion("aflw19", _plain((6, 8, 9, 11, 13, 15, 17))),
    ),
)
"""The scheme of the ECCV paper's tables and of the journal version's coarse pass."""

_CHEEK = (
    {0: 3 / 8, 1: 6 / 8, 2: -1 / 8},
    *(_between(i - 1, i, i + 1, i + 2) for i in range(1, 15)),
    {16: 3 / 8, 15: 6 / 8, 14: -1 / 8},
)

_WFLW_OF_HEAD = [
    *(row for i in range(16) for row in ({i: 1.0}, _CHEEK[i])),
    {16: 1.0},
    *_plain(range(17, 22)),
    *(_below(21, 39), _below(20, 38), _below(19, 37, 38), _below(18, 36)),
    *_plain(range(22, 27)),
    *(_below(25, 45), _below(24, 43, 44), _below(23, 43), _below(22, 42)),
    *_plain(range(27, 36)),
    *({36: 1.0}, {37: 1.0}, _between(36, 37, 38, 39), {38: 1.0}),
    *({39: 1.0}, {40: 1.0}, _between(39, 40, 41, 36), {41: 1.0}),
    *({42: 1.0}, {43: 1.0}, _between(42, 43, 44, 45), {44: 1.0}),
    *({45: 1.0}, {46: 1.0}, _between(45, 46, 47, 42), {47: 1.0}),
    *_plain(range(48, 70)),
]

WFLW98 = Scheme(
    name="wflw98",
    mirror=(
        *range(32, -1, -1),  # jaw
        *range(46, 41, -1),  # upper and lower edge of the right brow
        *range(50, 46, -1),
        *range(37, 32, -1),  # and of the left one
        *range(41, 37, -1),
        *range(51, 55),  # nose
        *range(59, 54, -1),
        *(72, 71, 70, 69, 68, 75, 74, 73),  # eyes
        *(64, 63, 62, 61, 60, 67, 66, 65),
        *(82, 81, 80, 79, 78, 77, 76, 87, 86, 85, 84, 83),  # outer lips
        *(92, 91, 90, 89, 88, 95, 94, 93),  # inner lips
        *(97, 96),  # pupils
    ),
    mean_shape=_mean_of(_of_head(_WFLW_OF_HEAD, without_pupils=True), _SHAPE_68),
    parts=(
        Part("jaw", tuple(range(33))),
        Part("right_brow", tuple(range(33, 42)), closed=True, region="brows"),
        Part("left_brow", tuple(range(42, 51)), closed=True, region="brows"),
        Part("nose_bridge", tuple(range(51, 55)), region="nose"),
        Part("nose_base", tuple(range(55, 60)), region="nose"),
        Part("right_eye", tuple(range(60, 68)), closed=True, region="eyes"),
        Part("left_eye", tuple(range(68, 76)), closed=True, region="eyes"),
        Part("outer_lips", tuple(range(76, 88)), closed=True, region="mouth"),
        Part("inner_lips", tuple(range(88, 96)), closed=True, region="mouth"),
        Part("right_pupil", (96,), region="eyes"),
        Part("left_pupil", (97,), region="eyes"),
    ),
    normaliser=((60,), (72,)),
    conversions=_from_head(_WFLW_OF_HEAD),
)
"""The scheme of WFLW (Wu et al., CVPR 2018)."""

_COFW_OF_HEAD = [
    *_plain((17, 26, 21, 22)),
    *({19: 1.0}, _below(19, 37, 38), {24: 1.0}, _below(24, 43, 44)),
    *_plain((36, 45, 39, 42)),
    *(_between(36, 37, 38, 39), _between(39, 40, 41, 36)),
    *(_between(42, 43, 44, 45), _between(45, 46, 47, 42)),
    *_plain((68, 69, 31, 35, 30, 33, 48, 54, 51, 62, 66, 57, 8)),
]

COFW29 = Scheme(
    name="cofw29",
    mirror=(
        *(1, 0, 3, 2, 6, 7, 4, 5),  # brows
        *(9, 8, 11, 10, 14, 15, 12, 13, 17, 16),  # eyes
        *(19, 18, 20, 21),  # nose
        *(23, 22, 24, 25, 26, 27, 28),  # mouth, chin
    ),
    mean_shape=_mean_of(_of_head(_COFW_OF_HEAD, without_pupils=True), _SHAPE_68),
    parts=(
        Part("right_brow", (0, 4, 2, 5), closed=True, region="brows"),
        Part("left_brow", (3, 6, 1, 7), closed=True, region="brows"),
        Part("right_eye", (8, 12, 10, 13), closed=True, region="eyes"),
        Part("left_eye", (11, 14, 9, 15), closed=True, region="eyes"),
        Part("right_pupil", (16,), region="eyes"),
        Part("left_pupil", (17,), region="eyes"),
        Part("nose", (18, 21, 19, 20), closed=True),
        Part("upper_lip", (22, 24, 23, 25), closed=True, region="mouth"),
        Part("lower_lip", (22, 26, 23, 27), closed=True, region="mouth"),
        Part("chin", (28,), region="jaw"),
    ),
    normaliser=((8,), (9,)),
    outline=_SHAPE_68[:17],
    conversions=(
        *_from_head(_COFW_OF_HEAD),
        _conversion(
            "wflw98",
            [
                *_plain((33, 46, 37, 42)),
                *_plain((35, 40, 44, 48)),
                *_plain((60, 72, 64, 68, 62, 66, 70, 74, 96, 97)),
                *_plain((55, 59, 54, 57, 76, 82, 79, 90, 94, 85, 16)),
            ],
        ),
    ),
)
"""The scheme of COFW (Burgos-Artizzu et al., ICCV 2013)."""

# The wings of the nose are beside and above the base of the nostrils, which 300-W and WFLW mark.
_AFLW_OF_HEAD = [
    *_plain((17, 19, 21, 22, 24, 26)),
    *_plain((36, 68, 39, 42, 69, 45)),
    {31: 1.3, 33: -0.5, 30: 0.2},
    {30: 1.0},
    {35: 1.3, 33: -0.5, 30: 0.2},
    *({48: 1.0}, {62: 0.5, 66: 0.5}, {54: 1.0}, {8: 1.0}),
]

AFLW19 = Scheme(
    name="aflw19",
    mirror=(5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 14, 13, 12, 17, 16, 15, 18),
    mean_shape=_mean_of(_of_head(_AFLW_OF_HEAD, without_pupils=True), _SHAPE_68),
    parts=(
        Part("right_brow", (0, 1, 2), region="brows"),
        Part("left_brow", (3, 4, 5), region="brows"),
        Part("right_eye", (6, 7, 8), region="eyes"),
        Part("left_eye", (9, 10, 11), region="eyes"),
        Part("nose", (12, 13, 14)),
        Part("mouth", (15, 16, 17)),
        Part("chin", (18,), region="jaw"),
    ),
    normaliser="box",
    outline=_SHAPE_68[:17],
    conversions=(
        *_from_head(_AFLW_OF_HEAD),
        _conversion(
            "wflw98",
            [
                *_plain((33, 35, 37, 42, 44, 46)),
                *_plain((60, 96, 64, 68, 97, 72)),
                {55: 1.3, 57: -0.5, 54: 0.2},
                {54: 1.0},
                {59: 1.3, 57: -0.5, 54: 0.2},
                *({76: 1.0}, {90: 0.5, 94: 0.5}, {82: 1.0}, {16: 1.0}),
            ],
        ),
    ),
)
"""The scheme of AFLW as completed by Zhu et al. (CVPR 2016): 19 of its 21 points, no ears."""

BUILTIN = {scheme.name: scheme for scheme in (IBUG68, REDNET7, WFLW98, COFW29, AFLW19, HEAD70)}
"""The built-in schemes by name."""


def plain_scheme(scheme: Scheme) -> str | dict[str, Any]:
    """Returns the JSON value of a scheme: the name of a built-in one, else `Scheme.to_json`."""
    return scheme.name if BUILTIN.get(scheme.name) == scheme else scheme.to_json()


def scheme_of(plain: Any) -> Scheme:
    """Returns the scheme of a value of `plain_scheme`; returns a `Scheme` unchanged.

    Raises:
        RednetError: no built-in scheme has that name, or as `Scheme.from_json` raises it.
    """
    if isinstance(plain, Scheme):
        return plain
    if isinstance(plain, str):
        if plain not in BUILTIN:
            raise RednetError(f"scheme: no built-in scheme {plain!r} ({', '.join(BUILTIN)})")
        return BUILTIN[plain]
    if isinstance(plain, int):
        raise RednetError(f"scheme: no earlier version had {plain} landmarks")
    return Scheme.from_json(plain)


def load_scheme(name: str | os.PathLike[str]) -> Scheme:
    """Returns a built-in scheme by its name, or the scheme of a JSON file.

    Raises:
        RednetError: there is no such scheme or file, or the file is invalid; the message has the
            field and the reason.
    """
    if os.fspath(name) in BUILTIN:
        return BUILTIN[os.fspath(name)]
    path = Path(name)
    try:
        if not path.is_file():
            known = ", ".join(BUILTIN)
            raise RednetError(f"{name}: no such file or built-in scheme ({known})")
        if path.stat().st_size > _LARGEST_FILE:
            raise RednetError(f"{name}: not a scheme (larger than {_LARGEST_FILE} bytes)")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RednetError(f"{name}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise RednetError(f"{name}: not text in UTF-8") from None
    try:
        scheme = scheme_of_text(text)
    except RednetError as error:
        raise RednetError(f"{name}: {error}") from None
    if scheme.name in BUILTIN and scheme != BUILTIN[scheme.name]:
        raise RednetError(f"{name}: scheme.name: '{scheme.name}' is the name of a built-in scheme")
    return scheme
