"""Means of the weights of networks that were trained from the same initial weights."""

from __future__ import annotations

import os
from collections.abc import Sequence

import jax
import numpy as np

from rednet_jax.errors import RednetError
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.store import Variables, load


def blend(
    checkpoints: Sequence[str | os.PathLike[str]], shares: Sequence[float] | None = None
) -> tuple[RedNetConfig, Variables]:
    """Returns the network of several checkpoints with the mean of their weights, NumPy float32.

    Args:
        checkpoints: each as for `load`.
        shares: weights of the mean, which sum to 1; None for equal weights.

    Raises:
        RednetError: a checkpoint cannot be read, or its network differs from the first one's.
    """
    (config, first), *others = map(load, checkpoints)
    for checkpoint, (other, _) in zip(checkpoints[1:], others, strict=True):
        if other != config:
            raise RednetError(f"{checkpoint}: not the network of {checkpoints[0]}")
    trees = [first, *(variables for _, variables in others)]

    def mean(*leaves: np.ndarray) -> np.ndarray:
        return np.average(leaves, axis=0, weights=shares).astype(np.float32)

    return config, jax.tree.map(mean, *trees)
