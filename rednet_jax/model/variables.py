"""The variables of a network: their initial values, their shapes, and a comparison with a config.

Variables are plain dicts, {'params': ..., 'batch_stats': ...}.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.layers import Draw, normal
from rednet_jax.model.network import RedNet

Tree = Any
"""A nested dict of arrays, or any other tree of them."""


def init(config: RedNetConfig, key: jax.Array) -> dict[str, Tree]:
    """Returns initial variables, {'params': ..., 'batch_stats': ...}: plain dicts of float32.

    They are drawn on the host: compiling a program with so many small arrays would take longer than
    drawing them. The values depend on the key alone, not on the device.

    Args:
        config: of the network.
        key: a key of `jax.random`, or a tracer of one.
    """
    key_data = jax.random.key_data(key)
    draw = functools.partial(_draw_variables, config)
    if isinstance(key_data, jax.core.Tracer):
        variables: dict[str, Tree] = jax.pure_callback(
            draw, shapes_of(config), key_data, vmap_method="sequential"
        )
        return variables
    placed: dict[str, Tree] = jax.device_put(draw(key_data))
    return placed


def shapes_of(config: RedNetConfig) -> dict[str, Tree]:
    """Returns shapes and types of a network's variables, {'params': ..., 'batch_stats': ...}."""
    return _graph_and_shapes(config)[1]


def network(config: RedNetConfig, variables: dict[str, Tree]) -> RedNet:
    """Returns the network as an NNX module that holds the variables."""
    graph, _ = _graph_and_shapes(config)
    net: RedNet = nnx.merge(graph, variables["params"], variables["batch_stats"], copy=True)
    return net


@functools.cache
def _graph_and_shapes(config: RedNetConfig) -> tuple[Any, dict[str, Tree]]:
    graph, variables = _split(config, lambda shape, _: np.broadcast_to(np.float32(0), shape))
    return graph, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)


def _draw_variables(config: RedNetConfig, key_data: Any) -> dict[str, Tree]:
    return _split(config, normal(np.asarray(key_data)))[1]


def _split(config: RedNetConfig, draw: Draw) -> tuple[Any, dict[str, Tree]]:
    graph, *states = nnx.split(RedNet(config, draw), nnx.Param, nnx.BatchStat)
    params, stats = map(nnx.to_pure_dict, states)
    return graph, {"params": params, "batch_stats": stats}


def mismatch(config: RedNetConfig, variables: Tree, besides: Sequence[str] = ()) -> str | None:
    """Returns how variables differ in structure or shape from those of a config, or None.

    Args:
        config: of the network.
        variables: arrays of any type; nested dicts, or one dict of paths such as
            `params/encoder/stem1/conv/kernel`.
        besides: parts of the network, such as `detection`, that are not compared.
    """

    def compared(tree: Tree) -> dict[str, tuple[int, ...]]:
        return {
            path: shape
            for path, shape in by_path(tree).items()
            if not any(f"{path.partition('/')[2]}/".startswith(f"{part}/") for part in besides)
        }

    expected, actual = compared(shapes_of(config)), compared(variables)
    for name, shape in expected.items():
        if name not in actual:
            return f"{name} is missing"
        if actual[name] != shape:
            return f"{name} has shape {actual[name]}, its config needs {shape}"
    extra = sorted(set(actual) - set(expected))
    return f"{extra[0]} is not a variable of its config's network" if extra else None


def by_path(tree: Tree) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each array of a tree by its path: its keys joined by slashes."""
    leaves = jax.tree.leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): jnp.shape(leaf)
        for path, leaf in leaves
    }
