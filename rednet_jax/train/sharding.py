"""The device mesh, and the shardings of parameters, optimiser state and batches."""

from __future__ import annotations

import re
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rednet_jax.errors import RednetError
from rednet_jax.train.experiment import MeshConfig

P = PartitionSpec

TABLE: tuple[tuple[str, PartitionSpec], ...] = (
    # Convolutions, [k, k, in, out], and dense layers, [in, out], along their outputs: gradients are
    # reduce-scattered along the axis that kernels are all-gathered along.
    (r"kernel\[4\]", P(None, None, None, "fsdp")),
    (r"kernel\[2\]", P(None, "fsdp")),
    # Scales, offsets, biases, batch statistics, counters.
    (r".*", P()),
)
"""Partition specs by the last key of a leaf's path and its number of axes; the first match applies.
The paths of a parameter's moments and average have the same last key, so all have one sharding."""

SMALLEST = 2**14
"""Arrays with fewer elements are replicated: gathering costs more than the memory that it saves."""


def make_mesh(config: MeshConfig) -> Mesh:
    """Returns the mesh of the first devices, with axes `data` and `fsdp`.

    Raises:
        RednetError: there are fewer devices than it needs, or many processes and more devices.
    """
    available = jax.device_count()
    needs = f"mesh data={config.data},fsdp={config.fsdp} needs {config.devices} devices"
    if config.devices > available:
        raise RednetError(f"{needs}, and there are {available}")
    if jax.process_count() > 1 and config.devices != available:
        raise RednetError(f"{needs}; with many processes it must use all {available}")
    return jax.make_mesh(
        (config.data, config.fsdp),
        ("data", "fsdp"),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=jax.devices()[: config.devices],
    )


def partition_spec(path: str, shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
    """Returns how an array is sharded.

    Args:
        path: its keys, joined by slashes.
        shape: of the array.
        fsdp: size of that axis; an array is replicated if it does not divide the sharded axis.
    """
    described = f"{path.rsplit('/', 1)[-1]}[{len(shape)}]"
    spec = next(spec for pattern, spec in TABLE if re.fullmatch(pattern, described))
    size = 1
    for length in shape:
        size *= length
    for length, axis in zip(shape, spec, strict=False):
        if axis is not None and (length % fsdp or size < SMALLEST):
            return P()
    return spec


def shardings(mesh: Mesh, tree: Any) -> Any:
    """Returns the `NamedSharding` of each array (or shape) of a tree."""

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, partition_spec(name, leaf.shape, mesh.shape["fsdp"]))

    return jax.tree.map_with_path(sharding, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: the first axis over both axes of the mesh."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of replicated arrays."""
    return NamedSharding(mesh, P())
