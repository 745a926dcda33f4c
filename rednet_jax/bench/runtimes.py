"""Shared by the comparisons with PyTorch: the exported network, and rows of times."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from rednet_jax.bench.machine import Machine
from rednet_jax.export import torch as exported

Variables = dict[str, Any]
Row = dict[str, Any]


def torch_network(weights: Path, steps: int) -> tuple[ModuleType, Any]:
    """Returns a new copy of the exported module, and its network with K = `steps`."""
    module = exported.load_module(Path(exported.__file__).with_name(exported.MODULE))
    net = module.load(weights)
    net.feedback_steps = steps
    return module, net


def time_row(ms: float, batch: int, machine: Machine) -> Row:
    """Returns the time of a batch, also per face and relative to the matrix product."""
    return {"ms": ms, "ms_per_face": ms / batch, "of_product": ms / machine.product_ms}


def beside_jax(rows: list[Row]) -> list[Row]:
    """Returns the rows with `over_jax`, their time divided by that of the runtime 'jax'."""
    (jax_ms,) = (row["ms"] for row in rows if row["runtime"] == "jax")
    return [{**row, "over_jax": row["ms"] / jax_ms} for row in rows]
