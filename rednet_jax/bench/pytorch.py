"""Comparison of the network in JAX with the same network in PyTorch, and with other tools."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rednet_jax.bench.machine import (
    Machine,
    Timing,
    check_batches,
    interleaved_milliseconds,
    measure_machine,
    portrait_crops,
)
from rednet_jax.bench.other_tools import time_other_tools
from rednet_jax.bench.runtimes import Row, Variables, beside_jax, time_row, torch_network
from rednet_jax.bench.training_step import TRAINING, training_rows
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.provenance import provenance
from rednet_jax.export.folder import require, versions
from rednet_jax.inference.predict import predict_crops
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.store import Checkpoint, name_in_command, network_of, write_torch_weights

LARGEST_DIFFERENCE, LARGEST_MEDIAN = 0.1, 1e-3
"""Pixels: the largest difference of a point, and the largest median of all points, for two networks
to count as the same. In `compact`, rounding decides between equal maxima of a pooling window, which
moves single points by some hundredths of a pixel."""


def bench_torch(
    checkpoint: Checkpoint = "compact",
    *,
    batches: Sequence[int] = (1, 32),
    feedback_steps: Sequence[int] = (1, 2, 3),
    training_batch: int = 32,
    training_steps: Sequence[int] = (1, 2),
    compiled: bool = True,
    timing: Timing | None = None,
    report: Callable[[int, int | None], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Times a checkpoint in JAX and in PyTorch, and a training step of its network.

    PyTorch runs the module of `rednet export --to torch`. Inference is from uint8 crops to points
    as host arrays, as `Aligner` runs it.

    Args:
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        batches: batch sizes of inference.
        feedback_steps: all K of inference.
        training_batch: batch size of training.
        training_steps: all K of training.
        compiled: also time `torch.compile`.
        timing: number of timed calls.
        report: called with (done, total) before each row.

    Returns:
        `machine`: a `Machine`. `inference`: `batch`, `feedback_steps`, `runtime`, `ms`,
        `ms_per_face`, `of_product` (ms divided by that of the matrix product), `over_jax` (ms
        divided by that of JAX) and `difference_px` (largest difference of a point from JAX's).
        `training`, which `training_step` describes: the same, with `gradient_difference` (relative,
        of the gradient norm) instead of `difference_px`. `other_tools`: the rows of
        `time_other_tools`. `left_out`: `runtime`, and the reason (`left_out`). `threads` of
        PyTorch; `provenance`.

    Raises:
        RednetError: PyTorch is not installed, a checkpoint that cannot be read or is not supported
            by PyTorch's module, or PyTorch's points or gradients differ from JAX's.
    """
    require("torch", ["torch", "safetensors"])
    import torch

    check_batches([*batches, training_batch])
    timing = timing or Timing()
    config, variables = network_of(checkpoint)
    variables = jax.device_put(variables)
    trained = config.architecture != "ijcv_resnet"
    rows = len(batches) * len(feedback_steps) + len(training_steps) * trained
    left_out: list[Row] = []
    inference: list[Row] = []
    training: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        write_torch_weights(weights, config, variables, feedback_steps=1)
        machine = measure_machine(timing)
        for done, (batch, steps) in enumerate(itertools.product(batches, feedback_steps)):
            report(done, rows)
            inference += _inference(
                config, variables, weights, batch, steps, machine, timing, left_out, compiled
            )
        for done, steps in enumerate(training_steps if trained else ()):
            report(len(batches) * len(feedback_steps) + done, rows)
            training += training_rows(
                config, variables, weights, training_batch, steps, machine, timing, left_out
            )
    if not trained:
        reason = "the points of ijcv_resnet are peaks of maps, without gradient"
        left_out.append({"runtime": "training", "left_out": reason})
    others = time_other_tools(machine, timing)
    left_out += [row for row in others if "left_out" in row]
    name = name_in_command(checkpoint)
    words = [f"rednet bench torch --checkpoint {name} --batch {','.join(map(str, batches))}"]
    words.append(f"--feedback-steps {','.join(map(str, feedback_steps))}")
    origin = provenance(" ".join(words), seed=0)
    return {
        "checkpoint": name,
        "timing": timing._asdict(),
        "threads": torch.get_num_threads(),
        "machine": machine._asdict(),
        "inference": inference,
        "training_step": TRAINING,
        "training": training,
        "other_tools": [row for row in others if "left_out" not in row],
        "left_out": left_out,
        "provenance": {**origin, "versions": {**origin["versions"], **versions(["torch"])}},
    }


def _inference(
    config: RedNetConfig,
    variables: Variables,
    weights: Path,
    batch: int,
    steps: int,
    machine: Machine,
    timing: Timing,
    left_out: list[Row],
    compiled: bool,
) -> list[Row]:
    """Returns rows of all runtimes at one batch size and K; adds failing ones to `left_out`.

    Raises:
        RednetError: PyTorch's points differ from JAX's.
    """
    import torch

    crops = portrait_crops(config, batch)
    _, net = torch_network(weights, steps)
    _, channels_last = torch_network(weights, steps)
    channels_last.to(memory_format=torch.channels_last)

    def run_torch(net: Callable[..., Any]) -> Callable[[], Any]:
        def run() -> Any:
            with torch.inference_mode():
                points, confidence = net(torch.from_numpy(crops))
                return points.numpy(), confidence.numpy()

        return run

    def run_jax() -> Any:
        landmarks, confidence = predict_crops(config, variables, crops, steps, batch)
        return landmarks[-1], confidence[-1]

    runtimes: dict[str, Callable[[], Any]] = {
        "jax": run_jax,
        "torch, eager": run_torch(net),
        "torch, eager, channels_last": run_torch(channels_last),
    }
    name = "torch.compile"
    if compiled and all(row["runtime"] != name for row in left_out):
        # Without a reset, a second batch size would be compiled with dynamic shapes.
        torch.compiler.reset()
        run = run_torch(torch.compile(net, dynamic=False))
        try:
            run()
        except Exception as error:
            # Of any type: a missing C++ compiler is one of many causes.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            left_out.append({"runtime": name, "left_out": reason})
        else:
            runtimes[name] = run
    points = run_jax()[0]
    differences = {}
    for name, run in runtimes.items():
        moved = np.abs(run()[0] - points)
        differences[name] = float(moved.max())
        median = float(np.median(moved))
        if not (differences[name] <= LARGEST_DIFFERENCE and median <= LARGEST_MEDIAN):
            raise RednetError(
                f"{name}: points differ from JAX's by {differences[name]:.3g} px (median "
                f"{median:.3g}) at batch {batch}, K = {steps}; at most {LARGEST_DIFFERENCE} px "
                f"(median {LARGEST_MEDIAN}) is the same network"
            )
    rows = [
        {
            "batch": batch,
            "feedback_steps": steps,
            "runtime": name,
            **time_row(ms, batch, machine),
            "difference_px": differences[name],
        }
        for name, ms in interleaved_milliseconds(runtimes, timing).items()
    ]
    return beside_jax(rows)
