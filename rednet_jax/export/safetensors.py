"""Export to a safetensors file of this library, from a run folder or with float16 kernels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rednet_jax.export.checked import Dtype, Job, Written, export_checked
from rednet_jax.export.named import network
from rednet_jax.weights.store import load, write_weights


def export_safetensors(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    dtype: Dtype = "float32",
    *,
    feedback_steps: int | None = None,
    data_dir: Path | None = None,
) -> dict[str, Any]:
    """Writes OUT/NAME.safetensors and OUT/export.json after a check.

    Arguments, return value and errors are those of `export_checked`. K is only used in the check.
    """
    return export_checked(
        "safetensors",
        checkpoint,
        out,
        dtype,
        _make,
        modules=["safetensors"],
        feedback_steps=feedback_steps,
        data_dir=data_dir,
    )


def _make(job: Job) -> Written:
    file = job.folder / f"{job.name}.safetensors"
    write_weights(file, job.config, job.variables, dtype=job.dtype)
    return Written([file.name], network(*load(file), job.feedback_steps), {})
