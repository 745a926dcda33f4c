"""Which device holds what: the mesh, the table of parameters, and where a batch goes."""

from __future__ import annotations

import re
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rednet_jax.errors import RednetError
from rednet_jax.train.experiment import MeshConfig

P = PartitionSpec

TABLE: tuple[tuple[str, PartitionSpec], ...] = (
    # Convolutions, [k, k, in, out], and dense layers, [in, out], by their outputs: a gradient is
    # then reduced and scattered along the axis that its kernel was gathered along.
    (r"kernel\[4\]", P(None, None, None, "fsdp")),
    (r"kernel\[2\]", P(None, "fsdp")),
    # Scales, offsets, biases, batch statistics, counters.
    (r".*", P()),
)
"""Partition specs by the end of a leaf's path and its number of axes; the first match counts. The
moments and the average of a parameter end in its path, so they lie where it lies."""

SMALLEST = 2**14
"""Arrays with fewer elements are replicated: gathering them would cost more than they take."""


def make_mesh(config: MeshConfig) -> Mesh:
    """Returns the mesh, axes `data` and `fsdp`, of the first devices of all processes.

    Raises:
        RednetError: there are fewer devices than it needs, or a process would have none of it.
    """
    found = jax.device_count()
    wanted = f"mesh data={config.data},fsdp={config.fsdp} needs {config.devices} devices"
    if config.devices > found:
        raise RednetError(f"{wanted}, and there are {found}")
    if jax.process_count() > 1 and config.devices != found:
        raise RednetError(f"{wanted}; with many processes it must take all {found}")
    return jax.make_mesh(
        (config.data, config.fsdp),
        ("data", "fsdp"),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=jax.devices()[: config.devices],
    )


def partition_spec(path: str, shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
    """Returns how an array is sharded.

    Args:
        path: its keys with slashes.
        shape: of the array.
        fsdp: devices on that axis; an array that they do not divide is replicated.
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

    def one(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, partition_spec(name, leaf.shape, mesh.shape["fsdp"]))

    return jax.tree.map_with_path(one, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns how the first axis of a batch is sharded: over both axes of the mesh."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what every device holds whole."""
    return NamedSharding(mesh, P())
