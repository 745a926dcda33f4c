"""The random streams of a run: independent root keys, derived from the experiment's seed."""

from __future__ import annotations

import enum

import jax
from jax import Array


class Stream(enum.IntEnum):
    """The purposes of random numbers. Keys depend on the values, so never renumber one."""

    PARAMS = 0
    """The initial weights."""
    DRAWS = 1
    """Augmentation, or generated faces, of the training steps."""
    VALIDATION = 2
    """Generated validation faces."""
    BURSTS = 3
    """Bursts of corrupted frames in training clips."""


def root(seed: int, stream: Stream) -> Array:
    """Returns the key [] that all keys of a stream are derived from.

    The key of the seed is used for the roots alone. Flax derives the keys of layers by `fold_in`
    with 0, 1, 2, ...: from the key of the seed, these would be the roots.

    Args:
        seed: of the experiment.
        stream: of the root.
    """
    return jax.random.fold_in(jax.random.key(seed), stream)


def row_keys(root: Array, step: Array, row: Array) -> Array:
    """Returns a key [B] for each row of a step's batch.

    Args:
        root: key [] of a stream.
        step: int32 [], steps done before.
        row: int32 [B], rows in the batch of all processes.
    """
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(root, step), row)
