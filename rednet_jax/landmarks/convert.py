"""Landmarks of one scheme as landmarks of another."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.builtin import BUILTIN
from rednet_jax.landmarks.schemes import Conversion, Scheme

Row = tuple[tuple[int, float], ...]


def converts(source: Scheme, target: Scheme) -> bool:
    """Returns whether landmarks of `source` give those of `target`."""
    return source == target or _rows(source, target) is not None


def convert(landmarks: Any, source: Scheme, target: Scheme) -> Any:
    """Returns landmarks of `source` as landmarks of `target`.

    Args:
        landmarks: [..., L, 2], numpy or JAX, any frame of pixels.
        source: their scheme, of L landmarks.
        target: scheme of M landmarks.

    Returns:
        [..., M, 2], of the kind and dtype that was given.

    Raises:
        RednetError: `target` has no conversion from `source`, directly or through a built-in
            scheme.
    """
    if source == target:
        return landmarks
    indices, weights = _table(source, target)
    if indices.shape[1] == 1:
        return landmarks[..., indices[:, 0], :]
    # Not a matrix product: accelerators round its factors.
    terms = landmarks[..., indices, :] * weights[..., None].astype(landmarks.dtype)
    return terms.sum(-2)


def convert_labelled(labelled: Any, source: Scheme, target: Scheme) -> Any:
    """Returns which landmarks of `target` are known, bool [..., M].

    Args:
        labelled: bool [..., L], numpy or JAX, which landmarks of `source` are known.
        source: scheme of L landmarks.
        target: scheme of M landmarks.

    Raises:
        RednetError: as `convert` does.
    """
    if source == target:
        return labelled
    indices, weights = _table(source, target)
    return (labelled[..., indices] | (weights == 0)).all(-1)


def indices_in(source: Scheme, target: Scheme) -> tuple[int, ...] | None:
    """Returns for each landmark of `target` its index in `source`.

    None if there is no conversion, or one that mixes landmarks.
    """
    if source == target:
        return tuple(range(source.count))
    rows = _rows(source, target)
    if rows is None or any(len(row) != 1 for row in rows):
        return None
    return tuple(row[0][0] for row in rows)


@functools.lru_cache(maxsize=64)
def _table(source: Scheme, target: Scheme) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Indices and weights [M, P] of each landmark's terms; a weight of 0 is padding."""
    rows = _rows(source, target)
    if rows is None:
        raise RednetError(
            f"landmarks of scheme {source.name} do not give those of {target.name}: it has no "
            f"conversion from {source.name}"
        )
    terms = max(map(len, rows))
    indices, weights = np.zeros((len(rows), terms), np.int64), np.zeros((len(rows), terms))
    for number, row in enumerate(rows):
        for place, (index, weight) in enumerate(row):
            if index >= source.count:
                raise RednetError(
                    f"scheme {target.name}: conversions: {source.name}: row {number}: {index} is "
                    f"no landmark of 0 to {source.count - 1}"
                )
            indices[number, place], weights[number, place] = index, weight
    return indices, weights


@functools.lru_cache(maxsize=64)
def _rows(source: Scheme, target: Scheme) -> tuple[Row, ...] | None:
    """The rows of the direct conversion, or of one through a built-in scheme; None without."""
    direct = _direct(source.name, target)
    if direct is not None:
        return direct.rows
    for through in BUILTIN.values():
        first, second = _direct(source.name, through), _direct(through.name, target)
        if first is not None and second is not None:
            return tuple(_composed(first, row) for row in second.rows)
    return None


def _direct(source: str, target: Scheme) -> Conversion | None:
    return next((one for one in target.conversions if one.source == source), None)


def _composed(first: Conversion, row: Row) -> Row:
    weights: dict[int, float] = {}
    for index, weight in row:
        for inner, share in first.rows[index]:
            weights[inner] = weights.get(inner, 0.0) + weight * share
    return tuple(weights.items())
