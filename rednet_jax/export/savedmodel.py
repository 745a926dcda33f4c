"""Export to a TensorFlow SavedModel with the signatures `still` and `stream`."""

from __future__ import annotations

import contextlib
import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import jax

from rednet_jax.export import named
from rednet_jax.export.check import Runner
from rednet_jax.export.checked import Dtype, Job, Written, export_checked
from rednet_jax.export.folder import Shapes, input_shapes, signatures
from rednet_jax.export.stablehlo import PLATFORMS
from rednet_jax.model.config import RedNetConfig


def export_savedmodel(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    dtype: Dtype = "float32",
    *,
    feedback_steps: int | None = None,
    data_dir: Path | None = None,
) -> dict[str, Any]:
    """Writes the folder OUT/NAME and OUT/export.json after a check.

    The model needs only TensorFlow, and accepts any number of faces:

        model = tf.saved_model.load("NAME")
        outputs = model.signatures["still"](crops=crops)  # {"landmarks": ..., "confidence": ...}

    Arguments, return value and errors are those of `export_checked`. K is fixed in the model, and
    export.json has its `platforms` and `signatures`.
    """
    return export_checked(
        "savedmodel",
        checkpoint,
        out,
        dtype,
        _make,
        modules=["tensorflow"],
        extra="tf",
        feedback_steps=feedback_steps,
        data_dir=data_dir,
    )


def _make(job: Job) -> Written:
    weights = named.stored(job.variables, job.dtype)
    write_model(job.folder / job.name, job.config, weights, job.feedback_steps)
    files = (file for file in job.folder.rglob("*") if file.is_file())
    return Written(
        sorted(str(file.relative_to(job.folder)) for file in files),
        savedmodel_runner(job.config, job.folder / job.name),
        {
            "platforms": list(PLATFORMS),
            "signatures": signatures(job.config, passes="int32"),
        },
    )


def import_tensorflow() -> ModuleType:
    """Returns the module `tensorflow`, imported such that PyTorch works in the same process."""
    # Without this, TensorFlow logs the features of the processor when it is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # PyTorch imports Triton when it exports or compiles a module. With TensorFlow 2.21, Triton 3.7
    # ends the process by a segmentation fault unless it is imported first.
    with contextlib.suppress(ImportError):
        importlib.import_module("triton")
    import tensorflow

    module: ModuleType = tensorflow
    return module


def savedmodel_runner(config: RedNetConfig, folder: Path) -> Runner:
    """Returns a runner of a folder's two signatures."""
    tf = import_tensorflow()
    model = tf.saved_model.load(folder)

    def call(signature: str, inputs: named.Named) -> named.Named:
        tensors = {name: tf.constant(array) for name, array in inputs.items()}
        outputs: named.Named = model.signatures[signature](**tensors)
        return outputs

    return named.runner(
        config, lambda inputs: call("still", inputs), lambda inputs: call("stream", inputs)
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
    """Writes a SavedModel with the weights of `named.stored`.

    The signatures `still` and `stream` are `functions`; `batch` is their batch size, None for any.
    """
    tf = import_tensorflow()
    from jax.experimental import jax2tf

    module = tf.Module()
    variables = jax.tree.map(lambda leaf: tf.Variable(leaf, trainable=False), weights)
    # TensorFlow saves the attributes of a module, but replaces dicts by types unknown to JAX.
    module.weights = jax.tree.leaves(variables)

    def signature(function: named.Function, shapes: Shapes) -> Any:
        converted = jax2tf.convert(
            lambda weights, inputs: function(config, weights, feedback_steps, inputs),
            polymorphic_shapes=[None, "b, ..." if batch is None else None],
            with_gradient=False,
            native_serialization_platforms=PLATFORMS,
        )
        specs = {
            name: tf.TensorSpec((batch, *shape), dtype, name)
            for name, (dtype, shape) in shapes.items()
        }
        call = tf.function(lambda **inputs: converted(variables, inputs), autograph=False)
        return call.get_concrete_function(**specs)

    concrete = map(signature, functions, input_shapes(config, passes="int32"))
    tf.saved_model.save(module, folder, dict(zip(("still", "stream"), concrete, strict=True)))
