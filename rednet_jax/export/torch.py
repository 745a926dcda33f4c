"""Export to PyTorch: a self-contained Python file and its weights."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rednet_jax.export.check import Answer, Runner, State
from rednet_jax.export.checked import Dtype, Job, Written, export_checked
from rednet_jax.export.folder import signatures
from rednet_jax.weights.store import write_torch_weights

MODULE = "rednet_torch.py"


def export_torch(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    dtype: Dtype = "float32",
    *,
    feedback_steps: int | None = None,
    data_dir: Path | None = None,
) -> dict[str, Any]:
    """Writes OUT/rednet_torch.py, OUT/NAME.safetensors and OUT/export.json after a check.

    Arguments, return value and errors are those of `export_checked`. K is the module's default, and
    export.json has its `signatures`.
    """
    return export_checked(
        "torch",
        checkpoint,
        out,
        dtype,
        _make,
        modules=["torch", "safetensors"],
        extra="torch",
        feedback_steps=feedback_steps,
        data_dir=data_dir,
    )


def _make(job: Job) -> Written:
    module, weights = job.folder / MODULE, job.folder / f"{job.name}.safetensors"
    shutil.copyfile(Path(__file__).with_name(MODULE), module)
    write_torch_weights(
        weights, job.config, job.variables, dtype=job.dtype, feedback_steps=job.feedback_steps
    )
    files = [module.name, weights.name]
    return Written(files, torch_runner(module, weights), {"signatures": signatures(job.config)})


def load_module(file: Path) -> ModuleType:
    """Returns a Python file as a module, independent of other modules with its name."""
    spec = importlib.util.spec_from_file_location("_exported_rednet_torch", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def torch_runner(module: Path, weights: Path, *, compiled: bool = False) -> Runner:
    """Returns a runner of an exported module, eager or with `torch.compile`."""
    import torch

    exported = load_module(module)
    net = exported.load(weights)
    carried = exported.Stream(net).carried
    call, call_step = (torch.compile(f) if compiled else f for f in (net, net.step))

    def arrays(landmarks: Any, confidence: Any) -> Answer:
        return landmarks.numpy(), confidence.numpy()

    def still(crops: NDArray[Any]) -> Answer:
        return arrays(*call(torch.from_numpy(crops)))

    def step(
        frames: NDArray[Any], state: State | None, warp: NDArray[np.float32]
    ) -> tuple[Answer, State]:
        before = net.initial_state(len(frames))
        if state is not None:
            before = before._replace(**{name: torch.from_numpy(state[name]) for name in carried})
        *answer, after = call_step(torch.from_numpy(frames), before, torch.from_numpy(warp))
        return arrays(*answer), {name: getattr(after, name).numpy() for name in carried}

    return Runner(still, step)
