"""Export to ONNX: two graphs, for images and for the next frame of a stream."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from rednet_jax.export import named
from rednet_jax.export.check import Runner
from rednet_jax.export.checked import Dtype, Job, Written, export_checked
from rednet_jax.export.folder import signatures
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.store import write_torch_weights

OPSET = 18


MODULES = ("torch", "onnxscript", "onnx", "onnxruntime", "safetensors")


def export_onnx(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    dtype: Dtype = "float32",
    *,
    feedback_steps: int | None = None,
    data_dir: Path | None = None,
) -> dict[str, Any]:
    """Writes OUT/NAME.onnx, OUT/NAME_stream.onnx and OUT/export.json after a check.

    Arguments, return value and errors are those of `export_checked`. K is fixed in the graphs, and
    export.json has their `opset` and `signatures`.
    """
    return export_checked(
        "onnx",
        checkpoint,
        out,
        dtype,
        make_graphs,
        modules=MODULES,
        extra="onnx",
        feedback_steps=feedback_steps,
        data_dir=data_dir,
    )


def make_graphs(job: Job) -> Written:
    """Writes both graphs, without a check."""
    files = [f"{job.name}.onnx", f"{job.name}_stream.onnx"]
    paths = [job.folder / file for file in files]
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        write_torch_weights(
            weights, job.config, job.variables, dtype=job.dtype, feedback_steps=job.feedback_steps
        )
        _write_graphs(job.config, weights, job.feedback_steps, *paths)
    if job.dtype == "float16":
        for path in paths:
            _store_float16(path)
    details = {"opset": OPSET, "signatures": signatures(job.config)}
    return Written(files, onnx_runner(job.config, *paths), details)


def onnx_runner(config: RedNetConfig, still_file: Path, stream_file: Path) -> Runner:
    """Returns a runner of the two graphs in onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    still_graph, stream_graph = (
        onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        for file in (still_file, stream_file)
    )

    def run(graph: onnxruntime.InferenceSession, inputs: named.Named) -> named.Named:
        names = [output.name for output in graph.get_outputs()]
        return dict(zip(names, graph.run(names, dict(inputs)), strict=True))

    return named.runner(
        config,
        lambda inputs: run(still_graph, inputs),
        lambda inputs: run(stream_graph, inputs),
        passes="int64",
    )


def _write_graphs(
    config: RedNetConfig, weights: Path, feedback_steps: int, still: Path, stream: Path
) -> None:
    """Traces the PyTorch module with the weights of a file."""
    import torch

    from rednet_jax.export import rednet_torch

    net = rednet_torch.load(weights)
    step = rednet_torch.Stream(net)
    state = net.initial_state(2)
    crops = torch.zeros(2, config.input_size, config.input_size, 3, dtype=torch.uint8)
    warp = torch.eye(2, 3).repeat(2, 1, 1)
    carried = [getattr(state, name).clone() for name in step.carried]
    answer = ["landmarks", "confidence"]
    metadata = {
        "rednet_config": json.dumps(config.to_json()),
        "feedback_steps": str(feedback_steps),
    }
    _write(net, (crops,), ["crops"], answer, metadata, still)
    _write(
        step,
        (crops, warp, *carried),
        ["crops", "warp", *step.carried],
        [*answer, *(f"next_{name}" for name in step.carried)],
        metadata,
        stream,
    )


def _write(
    module: Any,
    arguments: tuple[Any, ...],
    inputs: list[str],
    outputs: list[str],
    metadata: dict[str, str],
    file: Path,
) -> None:
    """Writes the graph of a module for any batch size, and checks it with ONNX's checker."""
    import onnx
    import torch

    batch = {0: torch.export.Dim("batch", min=1)}
    dynamic = [batch for _ in arguments]
    shapes = (*dynamic[:2], tuple(dynamic[2:])) if len(dynamic) > 1 else tuple(dynamic)
    # It warns about torchvision and future names, which do not concern users.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            arguments,
            dynamo=True,
            dynamic_shapes=shapes,
            opset_version=OPSET,
            input_names=inputs,
            output_names=outputs,
            verbose=False,
        )
    model = program.model_proto
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model, full_check=True)
    file.write_bytes(model.SerializeToString())


def _store_float16(file: Path) -> None:
    """Stores kernels with float16 values as float16; the graph casts them to float32."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(file)
    casts = []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.ndim < 2:
            continue
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if (half.astype(np.float32) == array).all():
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.float16"))
            casts.append(
                helper.make_node("Cast", [f"{name}.float16"], [name], to=TensorProto.FLOAT)
            )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    file.write_bytes(model.SerializeToString())
