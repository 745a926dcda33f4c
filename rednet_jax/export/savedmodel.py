"""A checkpoint as a TensorFlow SavedModel with the signatures `still` and `stream`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Literal

import jax

from rednet_jax.export import named
from rednet_jax.export.check import Runner, compare, network
from rednet_jax.export.folder import (
    Shapes,
    feedback_steps_of,
    input_shapes,
    publish,
    require,
    signatures,
    versions,
)
from rednet_jax.export.inputs import comparison_inputs
from rednet_jax.export.stablehlo import PLATFORMS
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.store import checkpoint_name, load


def export_savedmodel(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    dtype: Literal["float32", "float16"] = "float32",
    *,
    feedback_steps: int | None = None,
    data_dir: Path | None = None,
) -> dict[str, Any]:
    """Writes the folder OUT/NAME and OUT/export.json, once they are checked.

    TensorFlow alone runs it, for any number of faces:

        model = tf.saved_model.load("NAME")
        answer = model.signatures["still"](crops=crops)  # {"landmarks": ..., "confidence": ...}

    Args:
        checkpoint: a released name, a safetensors file, or a run folder; NAME is its last part.
        out: folder, made if need be.
        dtype: of the kernels in the files; the model computes in float32.
        feedback_steps: K, which is fixed in the model; None for the K it was trained with.
        data_dir: the folder of prepared data, whose faces are compared on if it holds 300w.

    Returns:
        What export.json holds: `target`, `files`, `platforms`, `dtype`, `feedback_steps`, what
        `check.compare` returns, `versions` and `signatures`.

    Raises:
        RednetError: TensorFlow is not installed, a checkpoint that cannot be read, landmarks that
            differ from the network's, or files that cannot be written. No file is left then.
    """
    require("tf", ["tensorflow"])
    config, variables = load(checkpoint)
    steps = feedback_steps_of(config, feedback_steps)
    name = checkpoint_name(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        staged = Path(folder)
        write_model(staged / name, config, named.stored(variables, dtype), steps)
        files = (file for file in staged.rglob("*") if file.is_file())
        written = {
            "target": "savedmodel",
            "files": sorted(str(file.relative_to(staged)) for file in files),
            "platforms": list(PLATFORMS),
            "dtype": dtype,
            "feedback_steps": steps,
            **compare(
                config,
                network(config, variables, steps),
                savedmodel_runner(config, staged / name),
                comparison_inputs(config, data_dir),
                dtype,
            ),
            "versions": {**versions(["jax", "flax"]), "tensorflow": tensorflow_version()},
            "signatures": signatures(config, passes="int32"),
        }
        publish(staged, Path(out), written)
    return written


def tensorflow_version() -> str:
    """Returns TensorFlow's version, whichever of its packages is installed."""
    import tensorflow as tf

    version: str = tf.__version__
    return version


def savedmodel_runner(config: RedNetConfig, folder: Path) -> Runner:
    """Returns what a folder's two signatures answer."""
    import tensorflow as tf

    model = tf.saved_model.load(folder)

    def call(signature: str, given: named.Named) -> named.Named:
        tensors = {name: tf.constant(array) for name, array in given.items()}
        outputs: named.Named = model.signatures[signature](**tensors)
        return outputs

    return named.runner(
        config, lambda given: call("still", given), lambda given: call("stream", given)
    )


def write_model(
    folder: Path,
    config: RedNetConfig,
    weights: dict[str, Any],
    feedback_steps: int,
    *,
    batch: int | None = None,
    functions: tuple[named.Function, named.Function] = (named.still, named.stream),
) -> None:
    """Writes a SavedModel of weights of `named.stored`, for a batch, or None for any.

    Its signatures `still` and `stream` are what `functions` compute.
    """
    # TensorFlow reads it when it is loaded, and else tells what the processor could do.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf
    from jax.experimental import jax2tf

    module = tf.Module()
    module.weights = jax.tree.map(lambda leaf: tf.Variable(leaf, trainable=False), weights)

    def signature(function: named.Function, shapes: Shapes) -> Any:
        converted = jax2tf.convert(
            lambda weights, given: function(config, weights, feedback_steps, given),
            polymorphic_shapes=[None, "b, ..." if batch is None else None],
            with_gradient=False,
            native_serialization_platforms=PLATFORMS,
        )
        inputs = {
            name: tf.TensorSpec((batch, *shape), dtype, name)
            for name, (dtype, shape) in shapes.items()
        }
        call = tf.function(lambda **given: converted(module.weights, given), autograph=False)
        return call.get_concrete_function(**inputs)

    concrete = map(signature, functions, input_shapes(config, passes="int32"))
    tf.saved_model.save(module, folder, dict(zip(("still", "stream"), concrete, strict=True)))
