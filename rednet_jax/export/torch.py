"""A checkpoint as a PyTorch module that stands alone: one Python file and its weights."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.export.check import Answer, Runner, compare, network
from rednet_jax.export.folder import feedback_steps_of, publish, require, signatures, versions
from rednet_jax.export.inputs import comparison_inputs
from rednet_jax.weights.store import checkpoint_name, load, write_torch_weights

MODULE = "rednet_torch.py"


def export_torch(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    dtype: Literal["float32", "float16"] = "float32",
    *,
    feedback_steps: int | None = None,
    data_dir: Path | None = None,
) -> dict[str, Any]:
    """Writes OUT/rednet_torch.py, OUT/NAME.safetensors and OUT/export.json, once they are checked.

    Args:
        checkpoint: a released name, a safetensors file, or a run folder; NAME is its last part.
        out: folder, made if need be.
        dtype: of the kernels in the file; the module computes in float32.
        feedback_steps: K that the module runs by default; None for the K it was trained with.
        data_dir: the folder of prepared data, whose faces are compared on if it holds 300w.

    Returns:
        What export.json holds: `target`, `files`, `dtype`, `feedback_steps`, what `check.compare`
        returns, `versions` and `signatures`.

    Raises:
        RednetError: torch is not installed, a checkpoint that cannot be read, landmarks that differ
            from the network's, or files that cannot be written. No file is left then.
    """
    require("torch", ["torch"])
    config, variables = load(checkpoint)
    steps = feedback_steps_of(config, feedback_steps)
    weights = f"{checkpoint_name(checkpoint)}.safetensors"
    if (Path(out) / weights).resolve() == Path(checkpoint).resolve():
        raise RednetError(f"{Path(out) / weights}: would replace the checkpoint itself")
    with tempfile.TemporaryDirectory() as folder:
        staged = Path(folder)
        shutil.copyfile(Path(__file__).with_name(MODULE), staged / MODULE)
        write_torch_weights(staged / weights, config, variables, dtype=dtype, feedback_steps=steps)
        inputs = comparison_inputs(config, data_dir)
        exported = torch_runner(staged / MODULE, staged / weights)
        written = {
            "target": "torch",
            "files": [MODULE, weights],
            "dtype": dtype,
            "feedback_steps": steps,
            **compare(config, network(config, variables, steps), exported, inputs, dtype),
            "versions": versions(["jax", "flax", "safetensors", "torch"]),
            "signatures": signatures(config),
        }
        publish(staged, Path(out), written)
    return written


def load_module(file: Path) -> ModuleType:
    """Returns a Python file as a module of its own, whatever else has its name."""
    spec = importlib.util.spec_from_file_location("_exported_rednet_torch", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def torch_runner(module: Path, weights: Path, *, compiled: bool = False) -> Runner:
    """Returns what an exported module answers, eager or by `torch.compile`."""
    import torch

    net = load_module(module).load(weights)
    call, following = (torch.compile(f) if compiled else f for f in (net, net.step))

    def arrays(landmarks: Any, confidence: Any) -> Answer:
        return landmarks.numpy(), confidence.numpy()

    def still(crops: NDArray[Any]) -> Answer:
        return arrays(*call(torch.from_numpy(crops)))

    def step(
        frames: NDArray[np.uint8], state: Any, warp: NDArray[np.float32]
    ) -> tuple[Answer, Any]:
        state = net.initial_state(len(frames)) if state is None else state
        *answer, state = following(torch.from_numpy(frames), state, torch.from_numpy(warp))
        return arrays(*answer), state

    return Runner(still, step)
