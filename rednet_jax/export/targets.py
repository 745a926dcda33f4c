"""`export`: a checkpoint in any of the forms, by name."""

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
    """Writes a checkpoint in another form, and OUT/export.json, which it returns.

    Args:
        checkpoint: a released name, a safetensors file, or a run folder.
        target: the form.
        out: folder, made if need be.
        dtype: of the kernels in the files.
        feedback_steps: K; None for the K that the network was trained with.
        data_dir: the folder of prepared data, whose faces are compared on if it holds 300w.
        runtime: npm's folder `onnxruntime-web`, for the web.

    Raises:
        RednetError: a runtime for another form than the web; else as the function of the form says.
    """
    if target == "web":
        write: Callable[..., dict[str, Any]] = functools.partial(export_web, runtime=runtime)
    elif runtime is not None:
        raise RednetError(f"--runtime is for the web: {target} has no use for it")
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
