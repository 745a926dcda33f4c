"""Time per frame of each export of a checkpoint, and of JAX."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from rednet_jax.errors import RednetError
from rednet_jax.evaluate.provenance import provenance
from rednet_jax.export.check import Runner
from rednet_jax.export.folder import EXPORT, read_export
from rednet_jax.export.inputs import Inputs, comparison_inputs
from rednet_jax.export.litert import litert_runner
from rednet_jax.export.named import network
from rednet_jax.export.onnx import onnx_runner
from rednet_jax.export.savedmodel import savedmodel_runner
from rednet_jax.export.stablehlo import stablehlo_runner
from rednet_jax.export.targets import Target, export
from rednet_jax.export.torch import torch_runner
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.store import fingerprint, load

UNTIMED = ("safetensors", "web")
"""Targets that do not run here: weights only, and a web page, which shows its own time."""


def bench_exports(
    checkpoint: str | os.PathLike[str] = "compact",
    *,
    out: Path,
    feedback_steps: Sequence[int] = (1, 3),
    targets: Sequence[Target] = get_args(Target),
    rounds: int = 20,
    data_dir: Path | None = None,
    report: Callable[[int, int | None], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Exports a checkpoint to all targets and times the step of a stream in each.

    The frames run one after the other, from uint8 crops to points, as in tracking.

    Args:
        checkpoint: a released name, a safetensors file, or a run folder.
        out: folder of the exports, TARGET_K each; existing exports are reused.
        feedback_steps: all K to measure.
        targets: to export to; targets that do not run here are skipped.
        rounds: number of timed runs over the stream's 30 frames, after one warm-up run.
        data_dir: the folder of prepared data; if it contains 300w, the stream shows its faces.
        report: called with (done, total) before each export.

    Returns:
        `per_row`: `target` (`jax` first), `feedback_steps` and `ms_per_frame` (the median of a
        round's frames, in the fastest round); `left_out`: `target` and `feedback_steps` that are
        not available here, with the reason (`left_out`); `seen`, `rounds`, `provenance`.

    Raises:
        RednetError: a checkpoint that cannot be read, an existing export of another checkpoint, or
            files that cannot be written.
    """
    config, variables = load(checkpoint)
    inputs = comparison_inputs(config, data_dir)
    timed = [target for target in targets if target not in UNTIMED]
    rows: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    versions: dict[str, str] = {}
    for number, steps in enumerate(feedback_steps):
        runners = {"jax": network(config, variables, steps)}
        for done, target in enumerate(timed, number * len(timed)):
            report(done, len(feedback_steps) * len(timed))
            folder = out / f"{target}_{steps}"
            try:
                if not (folder / EXPORT).exists():
                    export(checkpoint, target, folder, feedback_steps=steps, data_dir=data_dir)
            except RednetError as error:
                left_out.append({"target": target, "feedback_steps": steps, "left_out": str(error)})
                continue
            written = read_export(folder / EXPORT)
            expected = {
                "weights": fingerprint(variables),
                "feedback_steps": steps,
                "dtype": "float32",
            }
            if {name: written.get(name) for name in expected} != expected:
                raise RednetError(f"{folder}: an export of another checkpoint or config; delete it")
            versions |= written["versions"]
            runners |= _runners(config, folder, written)
        rows += [
            {"target": name, "feedback_steps": steps, "ms_per_frame": ms}
            for name, ms in _milliseconds(runners, inputs, rounds).items()
        ]
    result = provenance(
        f"rednet bench exports --checkpoint {checkpoint} --out DIR --data-dir PREPARED "
        f"--feedback-steps {','.join(map(str, feedback_steps))}",
        seed=0,
    )
    return {
        "checkpoint": str(checkpoint),
        "seen": f"{inputs.source}: one stream of {len(inputs.frames)} frames",
        "rounds": rounds,
        "per_row": rows,
        "left_out": left_out,
        "provenance": {**result, "versions": {**result["versions"], **versions}},
    }


def _runners(config: RedNetConfig, folder: Path, written: dict[str, Any]) -> dict[str, Runner]:
    """Returns the runners of an export, by the names of their rows."""
    target, files = written["target"], [folder / name for name in written["files"]]
    if target == "torch":
        return {
            "torch": torch_runner(*files),
            "torch, compiled": torch_runner(*files, compiled=True),
        }
    if target == "savedmodel":
        return {target: savedmodel_runner(config, next(folder.glob("*/saved_model.pb")).parent)}
    runner = {"stablehlo": stablehlo_runner, "onnx": onnx_runner, "litert": litert_runner}[target]
    return {target: runner(config, *files)}


def _milliseconds(runners: Mapping[str, Runner], inputs: Inputs, rounds: int) -> dict[str, float]:
    """Returns the time of a frame in each runner; every round runs all of them."""
    for runner in runners.values():
        _times(runner, inputs)
    medians = [
        {name: statistics.median(_times(runner, inputs)) for name, runner in runners.items()}
        for _ in range(rounds)
    ]
    return {name: 1e3 * min(each[name] for each in medians) for name in runners}


def _times(runner: Runner, inputs: Inputs) -> list[float]:
    """Returns the seconds of each frame of the first stream."""
    state, times = None, []
    for frame, warp in zip(inputs.frames[:, :1], inputs.warps[:, :1], strict=True):
        begin = time.perf_counter()
        _, state = runner.step(frame, state, warp)
        times.append(time.perf_counter() - begin)
    return times
