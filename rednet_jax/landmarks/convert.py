"""Converts landmarks of one scheme to another."""

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
    """Returns whether landmarks of `source` can be converted to `target`."""
    return source == target or _rows(source, target) is not None


def convert(landmarks: Any, source: Scheme, target: Scheme) -> Any:
    """Converts landmarks of `source` to landmarks of `target`.

    Args:
        landmarks: [..., L, 2], NumPy or JAX array, any frame of pixels.
        source: their scheme, with L landmarks.
        target: scheme with M landmarks.

    Returns:
        [..., M, 2], NumPy or JAX array of the same dtype, float32 for integers.

    Raises:
        RednetError: `target` has no conversion from `source`, directly or through a built-in
            scheme.
    """
    if np.issubdtype(landmarks.dtype, np.integer):
        landmarks = landmarks.astype(np.float32)
    if source == target:
        return landmarks
    indices, weights = _table(source, target)
    if indices.shape[1] == 1:
        return landmarks[..., indices[:, 0], :]
    # Not a matrix product, since accelerators round its factors.
    terms = landmarks[..., indices, :] * weights[..., None].astype(landmarks.dtype)
    return terms.sum(-2)


def convert_labelled(labelled: Any, source: Scheme, target: Scheme) -> Any:
    """Converts the mask of known landmarks of `source` to that of `target`, bool [..., M].

    Args:
        labelled: bool [..., L], NumPy or JAX array, mask of the known landmarks of `source`.
        source: scheme with L landmarks.
        target: scheme with M landmarks.

    Raises:
        RednetError: as `convert` raises it.
    """
    if source == target:
        return labelled
    indices, weights = _table(source, target)
    return (labelled[..., indices] | (weights == 0)).all(-1)


def indices_in(source: Scheme, target: Scheme) -> tuple[int, ...] | None:
    """Returns the index in `source` of each landmark of `target`.

    Returns None if there is no conversion, or if it computes a landmark from several.
    """
    if source == target:
        return tuple(range(source.count))
    rows = _rows(source, target)
    if rows is None or any(len(row) != 1 for row in rows):
        return None
    return tuple(row[0][0] for row in rows)


@functools.lru_cache(maxsize=64)
def _table(source: Scheme, target: Scheme) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Indices and weights [M, P] of each landmark's terms, padded with weight 0."""
    rows = _rows(source, target)
    if rows is None:
        raise RednetError(
            f"landmarks of scheme {source.name} cannot be converted to {target.name}: it has no "
            f"conversion from {source.name}"
        )
    terms = max(map(len, rows))
    indices, weights = np.zeros((len(rows), terms), np.int64), np.zeros((len(rows), terms))
    for number, row in enumerate(rows):
        for term, (index, weight) in enumerate(row):
            indices[number, term], weights[number, term] = index, weight
    return indices, weights


@functools.lru_cache(maxsize=64)
def _rows(source: Scheme, target: Scheme) -> tuple[Row, ...] | None:
    """The rows of the direct conversion, or of one through a built-in scheme, or None."""
    direct = _direct(source, target)
    if direct is not None:
        return direct.rows
    for through in BUILTIN.values():
        first, second = _direct(source, through), _direct(through, target)
        if first is not None and second is not None:
            return tuple(_composed(first, row) for row in second.rows)
    return None


def _direct(source: Scheme, target: Scheme) -> Conversion | None:
    """Returns the conversion of `target` from `source`, or None.

    Raises:
        RednetError: the conversion has a landmark that `source` does not have.
    """
    conversion = next((known for known in target.conversions if known.source == source.name), None)
    for number, row in enumerate(conversion.rows if conversion else ()):
        for index, _ in row:
            if index >= source.count:
                raise RednetError(
                    f"scheme {target.name}: conversions: {source.name}: row {number}: landmark "
                    f"{index} is not in 0 to {source.count - 1}"
                )
    return conversion


def _composed(first: Conversion, row: Row) -> Row:
    weights: dict[int, float] = {}
    for index, weight in row:
        for inner, inner_weight in first.rows[index]:
            weights[inner] = weights.get(inner, 0.0) + weight * inner_weight
    return tuple(weights.items())
