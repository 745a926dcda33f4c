"""`export`: exports a checkpoint to a target by name."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from rednet_jax.errors import RednetError
from rednet_jax.export.checked import Dtype
from rednet_jax.export.litert import export_litert
from rednet_jax.export.onnx import export_onnx
from rednet_jax.export.safetensors import export_safetensors
from rednet_jax.export.savedmodel import export_savedmodel
from rednet_jax.export.stablehlo import export_stablehlo
from rednet_jax.export.torch import export_torch
from rednet_jax.export.web import export_web

Target = Literal["safetensors", "stablehlo", "torch", "onnx", "savedmodel", "litert", "web"]


def export(
    checkpoint: str | os.PathLike[str],
    target: Target,
    out: str | os.PathLike[str],
    *,
    dtype: Dtype = "float32",
    feedback_steps: int | None = None,
    data_dir: Path | None = None,
    runtime: Path | None = None,
) -> dict[str, Any]:
    """Exports a checkpoint, and returns the content of OUT/export.json.

    Args:
        checkpoint: a released name, a safetensors file, or a run folder.
        target: the format.
        out: folder, created if it does not exist.
        dtype: of the kernels in the files.
        feedback_steps: K; None for the K of training.
        data_dir: folder of prepared data. If it has 300w, its faces are the inputs of the check.
        runtime: npm's folder `onnxruntime-web`, for the target web only.

    Raises:
        RednetError: `runtime` is given for another target, or as the target's function raises it.
    """
    if target == "web":
        write: Callable[..., dict[str, Any]] = functools.partial(export_web, runtime=runtime)
    elif runtime is not None:
        raise RednetError(f"--runtime is only for the target web, not for {target}")
    else:
        write = {
            "safetensors": export_safetensors,
            "stablehlo": export_stablehlo,
            "torch": export_torch,
            "onnx": export_onnx,
            "savedmodel": export_savedmodel,
            "litert": export_litert,
        }[target]
    return write(checkpoint, out, dtype, feedback_steps=feedback_steps, data_dir=data_dir)
