"""Times every network of `ablation_shapes`, untrained, on this machine.

    python experiments/shape_times.py

Writes experiments/results/shape_times.json: for each arm its parameters, and milliseconds for one
face with K = 1 and 3 and for 32 faces with K = 1, also relative to a product of 2048 x 2048
matrices. Run nothing else at the same time. Two CPU cores: 2 minutes.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from rednet_jax.ablate.plan import load_ablation
from rednet_jax.bench.machine import (
    Timing,
    interleaved_milliseconds,
    measure_machine,
    portrait_crops,
)
from rednet_jax.bench.runtimes import time_row
from rednet_jax.evaluate.provenance import provenance
from rednet_jax.files import write_json
from rednet_jax.inference.predict import predict_crops
from rednet_jax.model.rednet import init

HERE = Path(__file__).parent
CALLS = ((1, 1), (1, 3), (32, 1))
"""Batch and K of each measured call."""

TIMING = Timing(rounds=20, seconds=0.1)


def main() -> None:
    """Measures and writes."""
    origin = provenance("python experiments/shape_times.py", 0)
    machine = measure_machine(TIMING)
    rows: dict[str, dict[str, Any]] = {}
    runs: dict[tuple[str, int, int], Callable[[], Any]] = {}
    for arm in load_ablation(HERE / "ablation_shapes.py").arms:
        config = arm.experiment.model
        variables = init(config, jax.random.key(0))
        count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        rows[arm.name] = {"arm": arm.name, "parameters": count}
        for batch, steps in CALLS:
            runs[arm.name, batch, steps] = functools.partial(
                predict_crops, config, variables, portrait_crops(config, batch), steps, batch
            )
    for (name, batch, steps), ms in interleaved_milliseconds(runs, TIMING).items():
        rows[name][f"batch {batch}, K = {steps}"] = time_row(ms, batch, machine)
        print(f"batch {batch}, K = {steps}: {name} {ms:.2f} ms")
    result = {"machine": machine._asdict(), "rows": list(rows.values()), "provenance": origin}
    write_json(HERE / "results" / "shape_times.json", result)


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    main()
