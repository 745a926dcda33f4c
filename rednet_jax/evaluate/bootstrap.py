"""Intervals for a mean error, and for how much one network errs more than another, by bootstrap.

Faces are resampled at random, with replacement, and the mean of each sample is computed, many
times; the interval holds the middle of those means (percentile bootstrap). Faces of one person or
frames of one clip err together, so they are drawn together, as a group. Of n groups (or faces, or
seeds) n - 1 are drawn, which makes the spread of the means right however small n is; n of n would
have it too narrow, by a fifth with three seeds (Rao and Wu 1988).

Seeds and faces are drawn independently of each other, which errs towards a wide interval (Owen
2007). Two or three seeds say little of how seeds differ, whatever is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_AT_ONCE = 1_000_000
"""Entries of an array that draws are made in."""


def bootstrap_interval(
    values: ArrayLike,
    groups: Sequence[object] | NDArray[np.generic] | None = None,
    *,
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns the interval (low, high) of the mean of values over faces.

    Args:
        values: [N], one of each face, or [S, N], of each of S training seeds: the mean is over
            both, and seeds are drawn, too. nan is no answer; a face counts where every seed has
            one, elsewhere it is left out before anything is drawn.
        groups: [N], whose face it is (a person, a clip, a photo): of any type that compares equal.
            Every face is a group of its own where it is None. The mean is that of faces all the
            same, a large group weighs more.
        level: share of the means that lie in the interval, between 0 and 1.
        draws: how many means.
        seed: of the draws.

    Returns:
        In the unit of the values; (nan, nan) where fewer than two groups have an answer.

    Raises:
        ValueError: shapes that do not fit, a level that is not between 0 and 1, no draw.
    """
    parts, known = _answered([values])
    return _bounds([parts[0][None]], groups, known, level, draws, seed)[0]


def paired_interval(
    first: ArrayLike,
    second: ArrayLike,
    groups: Sequence[object] | NDArray[np.generic] | None = None,
    *,
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns the interval (low, high) of the mean difference, first - second, on the same faces.

    It is below 0 where first has surely the smaller mean. Args, returns and errors as in
    `bootstrap_interval`; S may differ between the two, whose seeds are drawn independently, while
    faces are drawn for both at once. A face counts where every seed of both has an answer.
    """
    parts, known = _answered([first, second])
    return _bounds([part[None] for part in parts], groups, known, level, draws, seed)[0]


def bootstrap_intervals(
    columns: Mapping[str, NDArray[np.floating]],
    groups: Sequence[object] | NDArray[np.generic] | None = None,
    *,
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Returns `bootstrap_interval` of each column [N], by name; drawn once where it can be."""
    alike: dict[bytes, list[str]] = {}
    for name, values in columns.items():
        alike.setdefault(np.isnan(np.asarray(values, np.float64)).tobytes(), []).append(name)
    found: dict[str, tuple[float, float]] = {}
    for names in alike.values():
        table, known = _answered([np.stack([columns[name] for name in names])])
        bounds = _bounds([table[0][:, None]], groups, known, level, draws, seed)
        found |= dict(zip(names, bounds, strict=True))
    return {name: found[name] for name in columns}


def mean_difference(first: ArrayLike, second: ArrayLike) -> float:
    """Returns the mean difference, first - second, that `paired_interval` is the interval of.

    nan where no face has an answer throughout.

    Raises:
        ValueError: shapes that do not fit.
    """
    parts = _answered([first, second])[0]
    return float(parts[0].mean() - parts[1].mean()) if parts[0].size else float("nan")


def _answered(arms: Sequence[ArrayLike]) -> tuple[list[Floats], NDArray[np.bool_]]:
    """The values [S, M] of the M faces that all have answered, and which of N these are."""
    parts = [np.asarray(arm, np.float64) for arm in arms]
    if any(part.ndim not in (1, 2) for part in parts) or len({p.shape[-1] for p in parts}) > 1:
        raise ValueError(f"values of shape {', '.join(str(part.shape) for part in parts)}")
    parts = [np.atleast_2d(part) for part in parts]
    known: NDArray[np.bool_] = np.logical_and.reduce([~np.isnan(part).any(0) for part in parts])
    return [part[:, known] for part in parts], known


def _bounds(
    arms: Sequence[Floats],
    groups: Sequence[object] | NDArray[np.generic] | None,
    known: NDArray[np.bool_],
    level: float,
    draws: int,
    seed: int,
) -> list[tuple[float, float]]:
    """Of one or two arms [C, S, M] the intervals of C means, or of C differences."""
    if not 0 < level < 1 or draws < 1:
        raise ValueError(f"level {level}, {draws} draws")
    owner = _numbers(groups, known)
    count = int(owner.max(initial=-1)) + 1
    if count < 2:
        return [(float("nan"), float("nan"))] * len(arms[0])
    # Of the values all that a draw needs: how many there are in each group, and their sums.
    sizes = np.bincount(owner, minlength=count).astype(np.float64)
    sums = [np.apply_along_axis(lambda row: np.bincount(owner, row), -1, arm) for arm in arms]
    rng = np.random.default_rng(seed)
    means = []
    for drawn in _draws(rng, draws, count):
        total = np.zeros(())
        for sign, arm in zip((1, -1), sums, strict=False):
            seeds = _draw(rng, len(drawn), arm.shape[1])
            of_seeds = np.einsum("dg,csg->dcs", drawn, arm, optimize=True)
            total = total + sign * np.einsum("dcs,ds->dc", of_seeds, seeds / seeds.sum(1)[:, None])
        means.append(total / (drawn @ sizes)[:, None])
    ends = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [(float(low), float(high)) for low, high in ends.T]


def _numbers(
    groups: Sequence[object] | NDArray[np.generic] | None, known: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """The group [M], numbered from 0, of each face that has answered."""
    if groups is None:
        return np.arange(int(known.sum()))
    if len(groups) != len(known):
        raise ValueError(f"{len(groups)} groups for {len(known)} faces")
    numbers: dict[object, int] = {}
    of = [
        numbers.setdefault(group, len(numbers)) for group, k in zip(groups, known, strict=True) if k
    ]
    return np.asarray(of, np.int64)


def _draws(rng: np.random.Generator, draws: int, count: int) -> Iterator[Floats]:
    """As many rows of `_draw` as there are draws, some at a time."""
    at_once = max(1, _AT_ONCE // count)
    for start in range(0, draws, at_once):
        yield _draw(rng, min(at_once, draws - start), count)


def _draw(rng: np.random.Generator, size: int, count: int) -> Floats:
    """How often each of `count` is drawn [size, count], `count` - 1 in all; a single one, once."""
    if count == 1:
        return np.ones((size, 1))
    drawn = rng.integers(0, count, (size, count - 1)) + count * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(float)
