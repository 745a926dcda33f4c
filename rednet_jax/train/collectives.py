"""Collectives over trees of arrays: a few large ones instead of one for each array.

Every collective has a start-up time, so many small ones take longer than one of the same size.
Sharded arrays are flattened and concatenated to one vector for each part of the network (`encoder`,
`decoder`, ...). So the gradients of one part can be reduced while the backward pass computes those
of another.

All functions run inside `jax.shard_map` or `jax.pmap`. All arrays of a tree have the same dtype.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree
from jax.sharding import PartitionSpec

Tree = Any
Axes = tuple[str, ...]

_FSDP = "fsdp"


def gather_params(params: Tree, specs: Tree) -> Tree:
    """All-gathers sharded parameters: one collective for each part of the network.

    Args:
        params: of the network; each array is this device's shard.
        specs: `PartitionSpec` of each array.

    Returns:
        The full parameters.
    """
    leaves, structure = jax.tree.flatten(params)
    for group in _sharded(params, specs):
        shards = [leaves[number] for number, _ in group]
        # [devices, size of all shards]
        rows = lax.all_gather(jnp.concatenate([shard.reshape(-1) for shard in shards]), _FSDP)
        for (number, axis), shard, columns in zip(group, shards, _split(rows, shards), strict=True):
            blocks = columns.reshape(-1, *shard.shape)
            before, after = shard.shape[:axis], shard.shape[axis + 1 :]
            leaves[number] = jnp.moveaxis(blocks, 0, axis).reshape(*before, -1, *after)
    return jax.tree.unflatten(structure, leaves)


def average_gradients(
    gradients: Tree, specs: Tree, replicated: Tree, axes: Axes
) -> tuple[Tree, Tree]:
    """Averages gradients over devices; each result is sharded as its parameter is.

    Sharded arrays take a reduce-scatter along `fsdp` and an all-reduce along the other axes for
    each part of the network. All other arrays, together with `replicated`, take one all-reduce.

    Args:
        gradients: of the full parameters, from this device's share of the batch.
        specs: `PartitionSpec` of each array.
        replicated: another tree to average over devices.
        axes: mapped axes that the batch is split over.

    Returns:
        The gradients, each array this device's shard, and the averaged other tree.
    """
    leaves, structure = jax.tree.flatten(gradients)
    groups = _sharded(gradients, specs)
    scattered = {number for number, _ in itertools.chain(*groups)}
    rest = [number for number in range(len(leaves)) if number not in scattered]
    vector, unravel = ravel_pytree(([leaves[number] for number in rest], replicated))
    whole, replicated = unravel(lax.pmean(vector, axes))
    for number, leaf in zip(rest, whole, strict=True):
        leaves[number] = leaf
    for group in groups:
        devices = lax.axis_size(_FSDP)
        blocks, shards = [], []
        for number, axis in group:
            shape = leaves[number].shape
            cut = (*shape[:axis], devices, shape[axis] // devices, *shape[axis + 1 :])
            block = jnp.moveaxis(leaves[number].reshape(cut), axis, 0)
            blocks.append(block.reshape(devices, -1))
            shards.append(jax.ShapeDtypeStruct(block.shape[1:], block.dtype))
        own = lax.psum_scatter(jnp.concatenate(blocks, axis=1), _FSDP)
        mean = lax.pmean(own, tuple(axis for axis in axes if axis != _FSDP)) / devices
        for (number, _), shard, piece in zip(group, shards, _split(mean, shards), strict=True):
            leaves[number] = piece.reshape(shard.shape)
    return jax.tree.unflatten(structure, leaves), replicated


def sharded_norm(tree: Tree, specs: Tree) -> Array:
    """Returns the l2 norm of all arrays of a tree, a scalar, with one all-reduce.

    Args:
        tree: each array is this device's shard.
        specs: `PartitionSpec` of each array.
    """
    squares = [jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(tree)]
    scattered = {number for number, _ in itertools.chain(*_sharded(tree, specs))}
    own = sum(square for number, square in enumerate(squares) if number in scattered)
    whole = sum(square for number, square in enumerate(squares) if number not in scattered)
    return jnp.sqrt(lax.psum(own, _FSDP) + whole)


def gather_batch(values: dict[str, Array], axes: Axes) -> dict[str, Array]:
    """All-gathers a number per sample, [b] of each device to [B], in one collective.

    The first of `axes` is the major one, as in the layout of `batch_sharding`.
    """
    stacked = lax.all_gather(jnp.stack(list(values.values())), axes, axis=1, tiled=True)
    return dict(zip(values, stacked, strict=True))


def _sharded(tree: Tree, specs: Tree) -> list[list[tuple[int, int]]]:
    """Returns index and sharded axis of the sharded arrays, for each part of the network."""
    parts: dict[Any, list[tuple[int, int]]] = {}
    flat = jax.tree.leaves(specs, is_leaf=lambda spec: isinstance(spec, PartitionSpec))
    for number, ((path, _), spec) in enumerate(
        zip(jax.tree.leaves_with_path(tree), flat, strict=True)
    ):
        if _FSDP in (names := tuple(spec)):
            parts.setdefault(path[0], []).append((number, names.index(_FSDP)))
    return list(parts.values())


def _split(vectors: Array, shards: list[Any]) -> list[Array]:
    """Splits the last axis into the sizes of the arrays that were concatenated."""
    ends = itertools.accumulate(math.prod(shard.shape) for shard in shards)
    return jnp.split(vectors, list(ends)[:-1], axis=-1)
