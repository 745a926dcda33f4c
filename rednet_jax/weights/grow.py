"""Weights of a network with more blocks or larger kernels that starts close to a trained one."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from rednet_jax.errors import RednetError
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.store import Variables

SMALL = 0.05
"""Factor on the initial scales of normalisations that the trained network lacks: a residual block
that is added changes its input little. With 0, its ReLU would have no gradient."""


def grow(trained: Variables, config: RedNetConfig, key: jax.Array) -> Variables:
    """Returns variables of `config`, NumPy float32, with the values of a trained network.

    Arrays of the same name and shape are copied. Kernels that are larger along their first two axes
    have the trained kernel in their centre and zeros around it, which does not change the output.
    Arrays that the trained network lacks are initialised, with small scales.

    Args:
        trained: {'params': ..., 'batch_stats': ...}.
        config: of the larger network.
        key: of the initial values.

    Raises:
        RednetError: an array of the trained network that the larger one lacks, or of another shape.
    """
    values = {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(trained)}
    initial = jax.device_get(rednet.init(config, key))

    def grown(path: Any, leaf: np.ndarray) -> np.ndarray:
        name = _name(path)
        if name in values:
            return _centred(name, np.asarray(values.pop(name)), leaf.shape)
        return leaf * np.float32(SMALL) if name.endswith("/scale") else leaf

    variables: Variables = jax.tree_util.tree_map_with_path(grown, initial)
    if values:
        raise RednetError(f"the larger network has no {', '.join(sorted(values)[:3])}")
    return variables


def _name(path: Any) -> str:
    return "/".join(part.key for part in path)


def _centred(name: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if value.shape == shape:
        return value
    more = [large - small for large, small in zip(shape, value.shape, strict=False)]
    square = value.ndim == len(shape) == 4 and more[0] == more[1] and not any(more[2:])
    if not (square and more[0] > 0 and more[0] % 2 == 0):
        raise RednetError(f"{name}: shape {value.shape} cannot grow to {shape}")
    margin = more[0] // 2
    return np.pad(value, [(margin, margin)] * 2 + [(0, 0)] * 2)
