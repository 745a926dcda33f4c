"""Sharded training, stopped and resumed, in a subprocess: the last part of `rednet quickstart`.

It needs a subprocess because XLA reads its flags once, and the four virtual devices are a flag.
"""

from __future__ import annotations

import importlib.resources
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from rednet_jax.errors import RednetError

STOPPED, RESUMED = 20, 40
"""Optimiser steps at which the run is stopped, and at which the resumed run is.

Both are validated: they are multiples of the experiment's `evaluate_every`."""

MESH = {"data": 2, "fsdp": 2}

_XLA_FLAGS = (
    "--xla_force_host_platform_device_count=4",
    # Nearly all the time is compilation: slower code that compiles faster takes less in total.
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
)


class Demonstration(NamedTuple):
    """The results of the run.

    Attributes:
        run_dir: its folder.
        experiment: its experiment file.
        resumed_at: step of the checkpoint that the second part resumed from.
        losses: of the last batch of each part.
        nmes: validation NME of the averaged weights at the end of each part, percent.
    """

    run_dir: Path
    experiment: Path
    resumed_at: int
    losses: tuple[float, float]
    nmes: tuple[float, float]


def smoke_path() -> Path:
    """Returns the path of experiments/smoke.py, in an installed package or in a checkout."""
    package = Path(str(importlib.resources.files("rednet_jax")))
    installed = package / "experiments" / "smoke.py"
    return installed if installed.is_file() else package.parent / "experiments" / "smoke.py"


def demonstrate(folder: str | os.PathLike[str]) -> Demonstration:
    """Trains experiments/smoke.py on a mesh of 4 virtual CPU devices, stops, and resumes.

    Args:
        folder: the run's folder is created in it: `smoke`, or `smoke_2` and so on if it exists.

    Returns:
        The results, read from the run's folder.

    Raises:
        RednetError: the subprocess failed.
    """
    names = itertools.chain(["smoke"], (f"smoke_{number}" for number in itertools.count(2)))
    run_dir = next(path for path in (Path(folder) / name for name in names) if not path.exists())
    flags = " ".join([os.environ.get("XLA_FLAGS", ""), *_XLA_FLAGS])
    done = subprocess.run(
        # Without -P, files in the current folder could shadow modules.
        [sys.executable, "-P", "-m", __name__, str(run_dir)],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        if done.returncode < 0:
            cause = f"ended by signal {-done.returncode}"
        else:
            cause = (done.stderr.strip().splitlines() or ["no error message"])[-1]
        raise RednetError(f"{run_dir}: training failed ({cause})")
    return _read(run_dir)


def _read(run_dir: Path) -> Demonstration:
    from rednet_jax.train.watch import ENVIRONMENT, METRICS, VALIDATION, read_rows

    rows = read_rows(run_dir / METRICS)
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    nmes = {row["step"]: row[VALIDATION][-1] for row in rows if VALIDATION in row}
    return Demonstration(
        run_dir,
        smoke_path(),
        read_rows(run_dir / ENVIRONMENT)[-1]["step"],
        (losses[STOPPED], losses[RESUMED]),
        (nmes[STOPPED], nmes[RESUMED]),
    )


def _train_twice(run_dir: Path) -> None:
    """Trains both parts in one process, so that compiled programs are shared."""
    from rednet_jax.train.load import load_experiment
    from rednet_jax.train.loop import train

    mesh = {f"mesh.{axis}": str(size) for axis, size in MESH.items()}
    experiment = load_experiment(smoke_path(), mesh)
    for steps in STOPPED, RESUMED:
        train(experiment, run_dir, stop_after=steps)


if __name__ == "__main__":
    try:
        _train_twice(Path(sys.argv[1]))
    except RednetError as error:
        sys.exit(str(error))
