"""Bootstrap intervals of a mean error, and of the difference between two networks' mean errors.

Faces are resampled with replacement many times, and the interval contains the central part of the
resulting means (percentile bootstrap). Errors of one person's faces or of one clip's frames are
correlated, so these are resampled together, as a group. Of n groups (or faces, or seeds), n - 1 are
drawn, which gives the means the right variance for any n; with n draws the interval would be too
narrow, by a fifth with three seeds (Rao and Wu 1988).

Seeds and faces are drawn independently of each other, which makes the interval rather too wide
(Owen 2007). Two or three seeds give a poor estimate of the variance among seeds in any case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_CHUNK = 1_000_000
"""Largest number of elements of an array of draws."""


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
        values: [N], one per face, or [S, N], for S training seeds: the mean is over both axes, and
            seeds are resampled, too. nan means no prediction; a face with a nan for any seed is
            excluded before resampling.
        groups: [N], the group of each face (a person, a clip, a photo), of any hashable type. If
            None, every face is its own group. The mean is over faces, so a large group has a larger
            weight.
        level: share of the means inside the interval, between 0 and 1.
        draws: number of resampled means.
        seed: of the resampling.

    Returns:
        The interval in the unit of the values; (nan, nan) for fewer than two groups.

    Raises:
        ValueError: shapes that do not match, a level not between 0 and 1, or no draws.
    """
    parts, known = _complete([values])
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

    It is entirely below 0 if the mean of `first` is significantly smaller. Args, returns and errors
    are as in `bootstrap_interval`. S may differ between the two: their seeds are resampled
    independently, but faces jointly. A face with a nan for any seed of either is excluded.
    """
    parts, known = _complete([first, second])
    return _bounds([part[None] for part in parts], groups, known, level, draws, seed)[0]


def bootstrap_intervals(
    columns: Mapping[str, NDArray[np.floating]],
    groups: Sequence[object] | NDArray[np.generic] | None = None,
    *,
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Returns `bootstrap_interval` of each column [N]; columns with equal nans share draws."""
    same_nans: dict[bytes, list[str]] = {}
    for name, values in columns.items():
        same_nans.setdefault(np.isnan(np.asarray(values, np.float64)).tobytes(), []).append(name)
    intervals: dict[str, tuple[float, float]] = {}
    for names in same_nans.values():
        table, known = _complete([np.stack([columns[name] for name in names])])
        bounds = _bounds([table[0][:, None]], groups, known, level, draws, seed)
        intervals |= dict(zip(names, bounds, strict=True))
    return {name: intervals[name] for name in columns}


def mean_difference(first: ArrayLike, second: ArrayLike) -> float:
    """Returns the mean difference, first - second, over the same faces as `paired_interval`.

    nan if no face is without nan.

    Raises:
        ValueError: shapes that do not match.
    """
    parts = _complete([first, second])[0]
    return float(parts[0].mean() - parts[1].mean()) if parts[0].size else float("nan")


def _complete(arms: Sequence[ArrayLike]) -> tuple[list[Floats], NDArray[np.bool_]]:
    """Returns the values [S, M] of the M faces without nan in any arm, and their mask [N]."""
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
    """Returns the intervals of C means, or of C differences, from one or two arms [C, S, M]."""
    if not 0 < level < 1 or draws < 1:
        raise ValueError(f"level {level}, {draws} draws")
    owner = _numbers(groups, known)
    count = int(owner.max(initial=-1)) + 1
    if count < 2:
        return [(float("nan"), float("nan"))] * len(arms[0])
    # A draw needs only the size of each group and the sum of its values.
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
    """Returns the group number [M], from 0, of each face in the mask `known`."""
    if groups is None:
        return np.arange(int(known.sum()))
    if len(groups) != len(known):
        raise ValueError(f"{len(groups)} groups for {len(known)} faces")
    numbers: dict[object, int] = {}
    owner = [
        numbers.setdefault(group, len(numbers)) for group, k in zip(groups, known, strict=True) if k
    ]
    return np.asarray(owner, np.int64)


def _draws(rng: np.random.Generator, draws: int, count: int) -> Iterator[Floats]:
    """Yields the rows of `_draw` for all draws, in chunks."""
    rows = max(1, _CHUNK // count)
    for start in range(0, draws, rows):
        yield _draw(rng, min(rows, draws - start), count)


def _draw(rng: np.random.Generator, size: int, count: int) -> Floats:
    """Returns counts [size, count] of `count` - 1 draws with replacement; [size, 1] ones for 1."""
    if count == 1:
        return np.ones((size, 1))
    drawn = rng.integers(0, count, (size, count - 1)) + count * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(float)
