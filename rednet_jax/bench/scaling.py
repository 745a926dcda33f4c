"""Estimates how training scales, from a step compiled for meshes of virtual devices.

Nothing is run and no array is created: the step is compiled ahead of time from shapes. FLOPs,
collectives and memory are read from the compiled program; times are estimates.
"""

from __future__ import annotations

import functools
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from rednet_jax.bench.chips import H100, TPU_V5P, Chip
from rednet_jax.bench.hlo import KINDS, Cost, Operation, program_operations, total_cost
from rednet_jax.bench.overlap import overlapped_seconds
from rednet_jax.data.pipeline import Batch
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.provenance import provenance
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import DataConfig, Experiment, MeshConfig, OptimiserConfig, Stage
from rednet_jax.train.losses import LossConfig
from rednet_jax.train.parallel import Sharded

Statistics = Literal["global", "device"]

CHIPS = {"h100": H100, "v5p": TPU_V5P}
ALONE = MeshConfig()
MESHES = tuple(MeshConfig(data, 8) for data in (1, 8, 32))
"""Parameters sharded over the 8 devices of a node, batches over all."""
FEW = 20
"""Images per device, as in a step of experiments/eccv_vgg_300vw.py on one device."""
GUESS = 152
"""Images per device at the start of the search for the largest batch."""
FILLED = 0.9
"""Share of a device's memory that a step may use."""
SHARES = (1.0, 0.4)
"""Shares of the peak that arithmetic reaches: the published peak, and an assumption for
convolutions."""

_PROCESSES = 6
"""Number of concurrent compilations, with up to 2 GB of memory each."""

_OPTIONS: dict[str, str | bool] = {
    # The CPU backend combines all-reduces of any size; a combined one would have to wait for the
    # last gradient and could not overlap with arithmetic.
    "xla_disable_hlo_passes": "cpu-all-reduce-combiner",
    # LLVM need not optimise the program, which is never run.
    "xla_backend_optimization_level": "0",
    "xla_llvm_disable_expensive_passes": True,
}


class CompiledStep(NamedTuple):
    """Figures of a compiled training step, on each device.

    Attributes:
        operations: of the program.
        memory: bytes of arguments, results and temporaries; a donated argument and its result
            count once.
        seconds: of lowering and compiling.
    """

    operations: list[Operation]
    memory: int
    seconds: float


def bench_scaling(report: Callable[[int, int | None], None] | None = None) -> dict[str, Any]:
    """Compiles the image stage of the preset `eccv_vgg` in bfloat16 for several meshes.

    First the largest batch of an H100 is found on one device. It is then compiled for `MESHES`, and
    for 64 devices also with the other choice of `Stage.batch_statistics` and with `FEW` images.

    Args:
        report: called with (done, total) after each program.

    Returns:
        The provenance; `network`, `feedback_steps`, `compute`, `parameters` (their number);
        `largest_batch`, for each chip the largest number of images per device (`batch`), the bytes
        of that step (`memory`; measured for the H100, extrapolated for other chips from the H100's
        batch and `FEW`), the bytes per image (`an_image`) and the bytes available (`limit`); and
        `rows`, one for each program (`mesh_row`).
    """
    submitted: dict[Experiment, Future[CompiledStep]] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_PROCESSES, context, initializer=_make_virtual_devices) as pool:

        def begin(mesh: MeshConfig, batch: int, statistics: Statistics) -> Future[CompiledStep]:
            experiment = _image_stage(mesh, batch, statistics)
            if experiment not in submitted:
                submitted[experiment] = pool.submit(compiled_step, experiment)
            return submitted[experiment]

        def memory(batch: int) -> int:
            return begin(ALONE, batch, "device").result().memory

        for mesh, batch in ((ALONE, FEW), (ALONE, GUESS), (MESHES[1], FEW)):
            begin(mesh, batch, "device")
        batch = largest_batch(memory, FILLED * H100.memory, (FEW, GUESS))
        largest = {
            name: _filled(memory, FILLED * chip.memory, (FEW, batch))
            for name, chip in CHIPS.items()
        }
        # The measured batch; the extrapolation from `FEW` may be larger.
        (searched,) = (name for name, chip in CHIPS.items() if chip is H100)
        largest[searched] |= {"batch": batch, "memory": memory(batch)}
        programs: list[tuple[MeshConfig, int, Statistics]] = [
            (ALONE, batch, "device"),
            *((mesh, batch, "device") for mesh in MESHES),
            (MESHES[1], batch, "global"),
            (ALONE, FEW, "device"),
            (MESHES[1], FEW, "device"),
        ]
        for program in programs:
            begin(*program)
        rows = []
        for mesh, batch, statistics in programs:
            step = begin(mesh, batch, statistics).result()
            alone = begin(ALONE, batch, "device").result()
            rows.append(mesh_row(_image_stage(mesh, batch, statistics), step, alone))
            if report is not None:
                report(len(rows), len(programs))
    experiment = _image_stage(ALONE, FEW, "device")
    params = Sharded(experiment).abstract(0).params
    return {
        **provenance("rednet bench scaling --json OUT.json", experiment.seed),
        "network": experiment.model.architecture,
        "feedback_steps": experiment.model.feedback_steps,
        "compute": experiment.compute,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "largest_batch": largest,
        "rows": rows,
    }


def _make_virtual_devices() -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(mesh.devices for mesh in MESHES))


def compiled_step(experiment: Experiment) -> CompiledStep:
    """Compiles a step of an experiment's first stage on its mesh.

    Raises:
        RednetError: fewer devices than the mesh needs.
    """
    begin = time.perf_counter()
    batch = _shapes(experiment, experiment.stages[0])
    lowered = Sharded(experiment).lowered(0, experiment.model.feedback_steps, batch)
    compiled = lowered.compile(compiler_options=_OPTIONS)
    seconds = time.perf_counter() - begin
    text, sizes = compiled.as_text(), compiled.memory_analysis()
    assert text is not None and sizes is not None
    memory = (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        - sizes.alias_size_in_bytes
        + sizes.temp_size_in_bytes
    )
    return CompiledStep(program_operations(text), memory, seconds)


def largest_batch(memory: Callable[[int], int], limit: float, first: tuple[int, int]) -> int:
    """Returns the largest batch, a multiple of 8, whose step fits in memory.

    The search is a secant method on the last two batches. It ends when it returns to the last
    batch: this was measured and fits, and by the secant 8 more images do not.

    Args:
        memory: returns the bytes of a step with a batch; increases with the batch.
        limit: bytes.
        first: the two batches to start with.

    Raises:
        RednetError: a batch of 8 does not fit.
    """
    small, large = first
    while True:
        batch = int(_filled(memory, limit, (small, large))["batch"])
        if batch < 8:
            raise RednetError(f"a step of 8 images needs more than {limit:.3g} bytes")
        if batch == large:
            return batch
        small, large = large, batch


def _filled(
    memory: Callable[[int], int], limit: float, measured: tuple[int, int]
) -> dict[str, float]:
    """Returns the largest multiple of 8 within a limit, by the line through two batches."""
    small, large = measured
    slope = (memory(large) - memory(small)) / (large - small)
    batch = int(large + (limit - memory(large)) / slope) // 8 * 8
    return {
        "batch": batch,
        "memory": memory(large) + slope * (batch - large),
        "an_image": slope,
        "limit": limit,
    }


def mesh_row(experiment: Experiment, compiled: CompiledStep, alone: CompiledStep) -> dict[str, Any]:
    """Returns the row of a compiled step.

    Args:
        experiment: with the mesh that the step is compiled for.
        compiled: its step.
        alone: the step of one device with the same batch per device.

    Returns:
        `devices`, `data`, `fsdp`, `batch_statistics`; per device `batch`, `memory` in bytes,
        `tflop`, and for each kind of collective `KIND_mb` (10^6 bytes, of the whole arrays) and
        `KIND_count`; `compile_s`; and for each chip its `estimate`.
    """
    mesh, (stage, *_) = experiment.mesh, experiment.stages
    cost = total_cost(operation.cost for operation in compiled.operations)
    row: dict[str, Any] = {
        "devices": mesh.devices,
        "data": mesh.data,
        "fsdp": mesh.fsdp,
        "batch_statistics": stage.batch_statistics,
        "batch": stage.batch // mesh.devices,
        "memory": compiled.memory,
        "tflop": cost.flops / 1e12,
    }
    for kind in KINDS:
        counts = {each: count for each, count in cost.collectives.items() if each.kind == kind}
        name = kind.replace("-", "_")
        row[f"{name}_mb"] = sum(count * each.bytes for each, count in counts.items()) / 1e6
        row[f"{name}_count"] = sum(counts.values())
    row["compile_s"] = compiled.seconds
    alone_cost = total_cost(operation.cost for operation in alone.operations)
    return row | {
        name: estimate(chip, compiled.operations, alone_cost) for name, chip in CHIPS.items()
    }


def estimate(chip: Chip, operations: list[Operation], alone: Cost) -> dict[str, Any]:
    """Estimates the time of a step as an interval, and its efficiency.

    Args:
        chip: that runs the step.
        operations: of the step.
        alone: cost of the step of one device, without communication.

    Returns:
        `communication_ms`, the sum over collectives; and `at`, for each of `SHARES` the share of
        the `peak` that arithmetic reaches, `arithmetic_ms`, the time of a step without overlap
        (`serial_ms`) and with collectives that overlap with arithmetic as the program's dependences
        allow (`overlapped_ms`), and for both the time of the step of one device divided by it,
        percent (`serial_efficiency`, `overlapped_efficiency`).
    """
    cost = total_cost(operation.cost for operation in operations)

    def communication(cost: Cost) -> float:
        return sum(
            count * chip.communication_seconds(each) for each, count in cost.collectives.items()
        )

    def at(share: float) -> dict[str, float]:
        def arithmetic(cost: Cost) -> float:
            return chip.compute_seconds(cost.flops) / share

        serial = arithmetic(cost) + communication(cost)
        overlapped = overlapped_seconds(operations, arithmetic, communication)
        return {
            "peak": share,
            "arithmetic_ms": 1e3 * arithmetic(cost),
            "serial_ms": 1e3 * serial,
            "overlapped_ms": 1e3 * overlapped,
            "serial_efficiency": 100 * arithmetic(alone) / serial,
            "overlapped_efficiency": 100 * arithmetic(alone) / overlapped,
        }

    return {"communication_ms": 1e3 * communication(cost), "at": list(map(at, SHARES))}


@functools.cache
def _image_stage(mesh: MeshConfig, batch: int, statistics: Statistics) -> Experiment:
    """Returns the first stage of experiments/eccv_vgg_300vw.py in bfloat16, `batch` per device."""
    stage = Stage(
        losses=LossConfig(map_landmarks=0.0, sigma=2.0),
        optimiser=OptimiserConfig(frozen=("identity", "temporal")),
        batch_statistics=statistics,
        batch=batch * mesh.devices,
    )
    model = RedNetConfig.preset("eccv_vgg", identities=1_654)
    return Experiment("scaling", model, (stage,), compute="bfloat16", mesh=mesh)


def _shapes(experiment: Experiment, stage: Stage) -> Batch:
    """Returns a batch of the stage as shapes and dtypes."""
    assert isinstance(stage.data, DataConfig)
    size, points = stage.data.cached_size, experiment.model.scheme.count
    per_face: dict[str, tuple[tuple[int, ...], Any]] = {
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
        for name, (shape, kind) in per_face.items()
    }
    return Batch(**arrays)
