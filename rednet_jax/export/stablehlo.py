"""A checkpoint as StableHLO by `jax.export`: a file of pictures, one of a stream's next frame."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Literal

import jax
from jax import export, lax

from rednet_jax.export import named
from rednet_jax.export.check import Runner, compare, network
from rednet_jax.export.folder import (
    Shapes,
    feedback_steps_of,
    input_shapes,
    publish,
    signatures,
    versions,
)
from rednet_jax.export.inputs import comparison_inputs
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.store import checkpoint_name, load

PLATFORMS = ("cpu", "cuda", "tpu")


def export_stablehlo(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    dtype: Literal["float32", "float16"] = "float32",
    *,
    feedback_steps: int | None = None,
    data_dir: Path | None = None,
) -> dict[str, Any]:
    """Writes OUT/NAME.stablehlo, OUT/NAME_stream.stablehlo and OUT/export.json, once checked.

    JAX and flatbuffers run them, on any of `PLATFORMS` and for any number of faces:

        still = jax.export.deserialize(bytearray(Path("compact.stablehlo").read_bytes()))
        answer = jax.jit(still.call)(crops=crops)  # {"landmarks": ..., "confidence": ...}

    Args:
        checkpoint: a released name, a safetensors file, or a run folder; NAME is its last part.
        out: folder, made if need be.
        dtype: of the kernels in the files; they compute in float32.
        feedback_steps: K, which is fixed in a file; None for the K it was trained with.
        data_dir: the folder of prepared data, whose faces are compared on if it holds 300w.

    Returns:
        What export.json holds: `target`, `files`, `platforms`, `dtype`, `feedback_steps`, what
        `check.compare` returns, `versions` and `signatures`.

    Raises:
        RednetError: a checkpoint that cannot be read, landmarks that differ from the network's, or
            files that cannot be written. No file is left then.
    """
    config, variables = load(checkpoint)
    steps = feedback_steps_of(config, feedback_steps)
    name = checkpoint_name(checkpoint)
    files = [f"{name}.stablehlo", f"{name}_stream.stablehlo"]
    weights = named.stored(variables, dtype)
    still, stream = input_shapes(config, passes="int32")
    with tempfile.TemporaryDirectory() as folder:
        staged = Path(folder)
        for file, function, inputs in (
            (files[0], named.still, still),
            (files[1], named.stream, stream),
        ):
            (staged / file).write_bytes(_serialised(function, config, weights, steps, inputs))
        exported = stablehlo_runner(config, *(staged / file for file in files))
        compared = compare(
            config,
            network(config, variables, steps),
            exported,
            comparison_inputs(config, data_dir),
            dtype,
        )
        written = {
            "target": "stablehlo",
            "files": files,
            "platforms": list(PLATFORMS),
            "dtype": dtype,
            "feedback_steps": steps,
            **compared,
            "versions": versions(["jax", "flax", "flatbuffers"]),
            "signatures": signatures(config, passes="int32"),
        }
        publish(staged, Path(out), written)
    return written


def stablehlo_runner(config: RedNetConfig, still_file: Path, stream_file: Path) -> Runner:
    """Returns what two files answer."""
    still, stream = (
        jax.jit(export.deserialize(bytearray(file.read_bytes())).call)
        for file in (still_file, stream_file)
    )
    return named.runner(config, lambda given: still(**given), lambda given: stream(**given))


def _serialised(
    function: named.Function,
    config: RedNetConfig,
    weights: dict[str, Any],
    feedback_steps: int,
    inputs: Shapes,
) -> bytes:
    """A function of named arrays with its weights, for any batch and platform."""
    (batch,) = export.symbolic_shape("b")

    @jax.jit
    def call(**given: jax.Array) -> dict[str, jax.Array]:
        # Else XLA computes for seconds what is made of weights alone, and rounds it otherwise.
        return function(config, lax.optimization_barrier(weights), feedback_steps, given)

    abstract = {
        name: jax.ShapeDtypeStruct((batch, *shape), dtype)
        for name, (dtype, shape) in inputs.items()
    }
    return bytes(export.export(call, platforms=PLATFORMS)(**abstract).serialize())
