"""Export to StableHLO with `jax.export`: files for images and for the next frame of a stream."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
from jax import export, lax

from rednet_jax.compiler_options import inference_options
from rednet_jax.export import named
from rednet_jax.export.check import Runner
from rednet_jax.export.checked import Dtype, Job, Written, export_checked
from rednet_jax.export.folder import Shapes, input_shapes, signatures
from rednet_jax.model.config import RedNetConfig

PLATFORMS = ("cpu", "cuda", "tpu")


def export_stablehlo(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    dtype: Dtype = "float32",
    *,
    feedback_steps: int | None = None,
    data_dir: Path | None = None,
) -> dict[str, Any]:
    """Writes OUT/NAME.stablehlo, OUT/NAME_stream.stablehlo and OUT/export.json after a check.

    The files need only JAX and flatbuffers, run on all `PLATFORMS` and accept any number of faces:

        still = jax.export.deserialize(bytearray(Path("compact.stablehlo").read_bytes()))
        outputs = jax.jit(still.call)(crops=crops)  # {"landmarks": ..., "confidence": ...}

    Arguments, return value and errors are those of `export_checked`. K is fixed in the files, and
    export.json has their `platforms` and `signatures`.
    """
    return export_checked(
        "stablehlo",
        checkpoint,
        out,
        dtype,
        _make,
        modules=["flatbuffers"],
        feedback_steps=feedback_steps,
        data_dir=data_dir,
    )


def _make(job: Job) -> Written:
    weights = named.stored(job.variables, job.dtype)
    files = [f"{job.name}.stablehlo", f"{job.name}_stream.stablehlo"]
    for file, function, inputs in zip(
        files, (named.still, named.stream), input_shapes(job.config, passes="int32"), strict=True
    ):
        call = _serialised(function, job.config, weights, job.feedback_steps, inputs)
        (job.folder / file).write_bytes(call)
    return Written(
        files,
        stablehlo_runner(job.config, *(job.folder / file for file in files)),
        {
            "platforms": list(PLATFORMS),
            "signatures": signatures(job.config, passes="int32"),
        },
    )


def stablehlo_runner(config: RedNetConfig, still_file: Path, stream_file: Path) -> Runner:
    """Returns a runner of the two files."""
    still, stream = (
        jax.jit(
            export.deserialize(bytearray(file.read_bytes())).call,
            compiler_options=inference_options(),
        )
        for file in (still_file, stream_file)
    )
    return named.runner(config, lambda inputs: still(**inputs), lambda inputs: stream(**inputs))


def _serialised(
    function: named.Function,
    config: RedNetConfig,
    weights: dict[str, Any],
    feedback_steps: int,
    shapes: Shapes,
) -> bytes:
    """Serialises a function of named arrays with its weights, for any batch size and platform."""
    (batch,) = export.symbolic_shape("b")

    @jax.jit
    def call(**inputs: jax.Array) -> dict[str, jax.Array]:
        # Without the barrier, XLA folds operations on weights, which is slow and rounds otherwise.
        return function(config, lax.optimization_barrier(weights), feedback_steps, inputs)

    abstract = {
        name: jax.ShapeDtypeStruct((batch, *shape), dtype)
        for name, (dtype, shape) in shapes.items()
    }
    return bytes(export.export(call, platforms=PLATFORMS)(**abstract).serialize())
