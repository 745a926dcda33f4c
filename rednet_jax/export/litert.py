"""Export to LiteRT: two .tflite files with builtin operators only, for images and for streams."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jax.extend.core import Literal as Constant

from rednet_jax.errors import RednetError
from rednet_jax.export import named
from rednet_jax.export.check import Runner
from rednet_jax.export.checked import Dtype, Job, Written, export_checked
from rednet_jax.export.folder import signatures
from rednet_jax.export.savedmodel import import_tensorflow, write_model
from rednet_jax.model.config import RedNetConfig


def export_litert(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    dtype: Dtype = "float32",
    *,
    feedback_steps: int | None = None,
    data_dir: Path | None = None,
) -> dict[str, Any]:
    """Writes OUT/NAME.tflite, OUT/NAME_stream.tflite and OUT/export.json after a check.

    The files accept one face, B = 1, and have the signatures `still` and `stream`:

        still = Interpreter("compact.tflite").get_signature_runner("still")
        outputs = still(crops=crops)  # {"landmarks": ..., "confidence": ...}

    Arguments, return value and errors are those of `export_checked`. K is fixed in the files, and
    export.json has their `signatures`.
    """
    return export_checked(
        "litert",
        checkpoint,
        out,
        dtype,
        _make,
        modules=["tensorflow", "ai_edge_litert"],
        extra="tf",
        feedback_steps=feedback_steps,
        data_dir=data_dir,
    )


def _make(job: Job) -> Written:
    files = [f"{job.name}.tflite", f"{job.name}_stream.tflite"]
    with tempfile.TemporaryDirectory() as model:
        write_model(
            Path(model),
            job.config,
            named.stored(job.variables, job.dtype),
            job.feedback_steps,
            batch=1,
            functions=(_without_uint8(named.still), _without_uint8(named.stream)),
        )
        for file, signature in zip(files, ("still", "stream"), strict=True):
            (job.folder / file).write_bytes(_converted(Path(model), signature))
    return Written(
        files,
        litert_runner(job.config, *(job.folder / file for file in files)),
        {"signatures": signatures(job.config, passes="int32", batch="1")},
    )


def litert_runner(config: RedNetConfig, still_file: Path, stream_file: Path) -> Runner:
    """Returns a runner of the two files, which runs faces one by one."""
    from ai_edge_litert.interpreter import Interpreter

    interpreters = [Interpreter(str(file)) for file in (still_file, stream_file)]

    def call(index: int, inputs: named.Named) -> named.Named:
        # Before 2.3, a signature's runner did not keep its interpreter alive.
        run = interpreters[index].get_signature_runner(("still", "stream")[index])
        faces = [
            run(**{name: array[i : i + 1] for name, array in inputs.items()})
            for i in range(len(inputs["crops"]))
        ]
        return {name: np.concatenate([face[name] for face in faces]) for name in faces[0]}

    return named.runner(config, lambda inputs: call(0, inputs), lambda inputs: call(1, inputs))


def _converted(model: Path, signature: str) -> bytes:
    """Converts a signature of a SavedModel to a .tflite file.

    Kernels keep their dtype. The converter's own float16 mode would also round biases, statistics
    and coordinates, which moves points by up to a quarter of a pixel.
    """
    tf = import_tensorflow()
    from tensorflow.lite.python.convert import ConverterError

    converter = tf.lite.TFLiteConverter.from_saved_model(str(model), signature_keys=[signature])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        return bytes(converter.convert())
    except ConverterError as error:
        text = str(error)
        reason = (text.partition("error: ")[2] or text).partition("\n")[0]
        raise RednetError(f"LiteRT has no operators for this network: {reason}") from error


def _without_uint8(function: named.Function) -> named.Function:
    """Replaces uint8 by int32 in a function; LiteRT's add, select and equal do not accept uint8.

    The indices of max pooling are uint8.
    """

    def call(
        config: RedNetConfig, weights: dict[str, Any], feedback_steps: int, inputs: named.Named
    ) -> dict[str, jax.Array]:
        closed, outputs = jax.make_jaxpr(
            lambda weights, inputs: function(config, weights, feedback_steps, inputs),
            return_shape=True,
        )(weights, inputs)
        leaves = _evaluated(closed.jaxpr, closed.consts, jax.tree.leaves((weights, inputs)))
        named_outputs: dict[str, jax.Array] = jax.tree.unflatten(
            jax.tree.structure(outputs), leaves
        )
        return named_outputs

    return call


def _evaluated(jaxpr: Jaxpr, constants: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    """Evaluates a jaxpr with int32 instead of uint8."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))

    def read(atom: Any) -> Any:
        value = atom.val if isinstance(atom, Constant) else values[atom]
        return lax.convert_element_type(value, jnp.int32) if _is_uint8(value) else value

    for equation in jaxpr.eqns:
        results = _evaluated_equation(equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _evaluated_equation(equation: JaxprEqn, inputs: list[Any]) -> Sequence[Any]:
    params = equation.params
    inner = params.get("jaxpr", params.get("call_jaxpr"))
    if inner is not None:
        program, constants = (
            (inner.jaxpr, inner.consts) if isinstance(inner, ClosedJaxpr) else (inner, [])
        )
        if equation.primitive.name != "scan":
            return _evaluated(program, constants, inputs)
        fixed, carried = params["num_consts"], params["num_carry"]

        def body(carry: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
            after = _evaluated(program, constants, [*inputs[:fixed], *carry, *slices])
            return after[:carried], after[carried:]

        carry, stacks = lax.scan(
            body,
            inputs[fixed : fixed + carried],
            inputs[fixed + carried :],
            length=params["length"],
            unroll=params["unroll"],
        )
        return [*carry, *stacks]
    if params.get("new_dtype") == jnp.uint8:
        params = {**params, "new_dtype": np.dtype(np.int32)}
    result = equation.primitive.bind(*inputs, **params)
    return result if equation.primitive.multiple_results else [result]


def _is_uint8(value: Any) -> bool:
    return bool(jnp.result_type(value) == jnp.uint8)
