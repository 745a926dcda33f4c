"""How training should scale: a step compiled for meshes of virtual devices, and read.

Nothing is run and no array is made: the step is compiled ahead of time from shapes alone, and what
the compiled program computes and sends is counted in its text.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rednet_jax.bench.chips import H100, TPU_V5P
from rednet_jax.bench.hlo import KINDS, Cost, program_cost
from rednet_jax.data.pipeline import Batch
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.provenance import provenance
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import DataConfig, Experiment, MeshConfig, OptimiserConfig, Stage
from rednet_jax.train.losses import LossConfig
from rednet_jax.train.parallel import Sharded

MESHES = tuple(MeshConfig(data, fsdp) for data, fsdp in ((1, 1), (1, 8), (8, 8), (32, 8)))
"""One device to compare with; then parameters over the 8 of a node, and batches over all."""

_BATCH = 20
"""Faces a device, as many as a step of experiments/eccv_vgg_300vw.py has on its one."""

_QUICK: dict[str, str | bool] = {
    "xla_backend_optimization_level": "0",
    "xla_llvm_disable_expensive_passes": True,
}
"""For LLVM, which sees the program last: it is never run."""


def bench_scaling(report: Callable[[int, int | None], None] | None = None) -> dict[str, Any]:
    """Compiles the picture stage of the preset `eccv_vgg` in bfloat16 for each of `MESHES`.

    Args:
        report: called with meshes done and in all.

    Returns:
        Where the result comes from; `network`, `feedback_steps`, `compute`, `parameters` (how many
        there are); and `meshes`, a row each (`mesh_row`). All times in it are estimates.

    Raises:
        RednetError: JAX was used before in this process, with fewer devices.
    """
    try:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", max(mesh.devices for mesh in MESHES))
    except RuntimeError as error:
        raise RednetError(f"bench scaling needs a process of its own: {error}") from error
    rows: list[dict[str, float | int]] = []
    for done, mesh in enumerate(MESHES, start=1):
        experiment = _picture_stage(mesh)
        begin = time.perf_counter()
        cost = step_cost(experiment)
        seconds = time.perf_counter() - begin
        rows.append(mesh_row(experiment, cost, rows[0] if rows else None) | {"compile_s": seconds})
        if report is not None:
            report(done, len(MESHES))
    params = Sharded(experiment).abstract().params
    return {
        **provenance("rednet bench scaling --json OUT.json", experiment.seed),
        "network": experiment.model.architecture,
        "feedback_steps": experiment.model.feedback_steps,
        "compute": experiment.compute,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "meshes": rows,
    }


def step_cost(experiment: Experiment) -> Cost:
    """Compiles a step of an experiment's first stage on its mesh, and returns what it costs.

    Raises:
        RednetError: fewer devices than the mesh needs.
    """
    batch = _shapes(experiment, experiment.stages[0])
    lowered = Sharded(experiment).lowered(0, experiment.model.feedback_steps, batch)
    text = lowered.compile(compiler_options=_QUICK).as_text()
    assert text is not None
    return program_cost(text)


def mesh_row(
    experiment: Experiment, cost: Cost, alone: dict[str, float | int] | None
) -> dict[str, float | int]:
    """Returns what is told of a mesh.

    Args:
        experiment: on it.
        cost: of its step, on each device.
        alone: the row of one device with as large a part of the batch; None for that row itself.

    Returns:
        `devices`, `data`, `fsdp`; of each device `batch`, `tflop`, and of each kind of collective
        `KIND_mb` (10^6 bytes, of the whole arrays) and `KIND_count`; and of each chip
        `CHIP_estimated_compute_ms`, `CHIP_estimated_communication_ms`, their sum
        `CHIP_estimated_step_ms`, and `CHIP_estimated_efficiency`, the time of a step on one device
        over that, percent.
    """
    mesh = experiment.mesh
    row: dict[str, float | int] = {
        "devices": mesh.devices,
        "data": mesh.data,
        "fsdp": mesh.fsdp,
        "batch": experiment.stages[0].batch // mesh.devices,
        "tflop": cost.flops / 1e12,
    }
    for kind in KINDS:
        counts = {one: count for one, count in cost.collectives.items() if one.kind == kind}
        name = kind.replace("-", "_")
        row[f"{name}_mb"] = sum(count * one.bytes for one, count in counts.items()) / 1e6
        row[f"{name}_count"] = sum(counts.values())
    for chip, name in ((H100, "h100"), (TPU_V5P, "v5p")):
        compute = 1e3 * chip.compute_seconds(cost.flops)
        communication = 1e3 * sum(
            count * chip.communication_seconds(one) for one, count in cost.collectives.items()
        )
        step = compute + communication
        row[f"{name}_estimated_compute_ms"] = compute
        row[f"{name}_estimated_communication_ms"] = communication
        row[f"{name}_estimated_step_ms"] = step
        row[f"{name}_estimated_efficiency"] = (
            100 * (alone or row)[f"{name}_estimated_step_ms"] / step
        )
    return row


def _picture_stage(mesh: MeshConfig) -> Experiment:
    """The first stage of experiments/eccv_vgg_300vw.py, in bfloat16."""
    stage = Stage(
        losses=LossConfig(map_landmarks=0.0, sigma=2.0),
        optimiser=OptimiserConfig(frozen=("identity", "temporal")),
        batch=_BATCH * mesh.devices,
    )
    model = RedNetConfig.preset("eccv_vgg", identities=1_654)
    return Experiment("scaling", model, (stage,), compute="bfloat16", mesh=mesh)


def _shapes(experiment: Experiment, stage: Stage) -> Batch:
    """A batch of the stage's as shapes and types alone."""
    assert isinstance(stage.data, DataConfig)
    size, points = stage.data.cached_size, experiment.model.landmarks
    of_a_face: dict[str, tuple[tuple[int, ...], Any]] = {
        "images": ((size, size, 3), jnp.uint8),
        "landmarks": ((points, 2), jnp.float32),
        "labelled": ((points,), jnp.bool_),
        "affines": ((2, 3), jnp.float32),
        "identity": ((), jnp.int32),
        "face": ((), jnp.int32),
        "row": ((), jnp.int32),
    }
    arrays: dict[str, Any] = {
        name: jax.ShapeDtypeStruct((stage.batch, *shape), kind)
        for name, (shape, kind) in of_a_face.items()
    }
    return Batch(**arrays)
