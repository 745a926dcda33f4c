"""Trains or resumes one run in its own process, then measures it.

`rednet ablate` starts

    python -m rednet_jax.ablate.worker '{"file": "experiments/ablation_losses.py", ...}'

with the fields of `Task`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from rednet_jax.ablate.folder import FAILED, MEASURED, read_measured
from rednet_jax.ablate.measure import measure
from rednet_jax.ablate.plan import load_ablation, run_of
from rednet_jax.compilation import keep_compiled
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.provenance import provenance
from rednet_jax.files import lock, write_text, writing
from rednet_jax.logs import quieten
from rednet_jax.train.loop import train
from rednet_jax.weights.store import load_with


class Task(NamedTuple):
    """Arguments of a worker.

    Attributes:
        file: of the ablation.
        changes: to the experiment of every arm.
        arm: name of the arm.
        seed: of the run.
        runs_dir: the folder of run folders.
        data_dir: the folder of prepared data, or None.
        command: for the provenance of the measurements.
    """

    file: str
    changes: dict[str, str]
    arm: str
    seed: int
    runs_dir: str
    data_dir: str | None
    command: str

    def to_json(self) -> str:
        """Returns the task as one command-line argument."""
        return json.dumps(self._asdict())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Returns the task of a text from `to_json`."""
        return cls(**json.loads(text))


def work(task: Task) -> bool:
    """Trains and measures; returns False if training was interrupted before its last step.

    If another process works on the run, this waits for it.

    Raises:
        RednetError: as `train` and `measure` do.
    """
    ablation = load_ablation(task.file, task.changes)
    run = run_of(ablation.arm(task.arm), task.seed)
    runs_dir = Path(task.runs_dir)
    data_dir = None if task.data_dir is None else Path(task.data_dir)
    folder = runs_dir / run.folder
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        opened = os.open(folder, os.O_RDONLY)
    try:
        lock(opened, folder, wait=True)
        if read_measured(runs_dir, run) is not None:
            return True
        (folder / FAILED).unlink(missing_ok=True)
        begun = time.perf_counter()
        state = train(
            run.experiment,
            folder,
            data_dir=data_dir,
            init_from=run.init_from,
            fresh=run.fresh,
        )
        if int(state.step) < run.experiment.steps:
            return False
        trained = time.perf_counter()
        _, variables = load_with(run.experiment.model, folder)
        figures = measure(run.experiment, variables, data_dir)
        measured = {
            "run": run.folder,
            "init_from": run.init_from,
            "fresh": list(run.fresh),
            **figures,
            "experiment": run.experiment.to_json(),
            "provenance": provenance(task.command, task.seed),
        }
        # Not indented, since every number would be a line.
        write_text(folder / MEASURED, json.dumps(measured) + "\n")
        seconds = time.perf_counter() - trained
        print(f"trained in {trained - begun:.0f} s, measured in {seconds:.0f} s", flush=True)
        return True
    finally:
        os.close(opened)


def main(argv: Sequence[str]) -> int:
    """Runs the task of a command line; returns the exit status."""
    quieten()
    keep_compiled()
    try:
        if work(Task.from_json(argv[0])):
            return 0
        print("rednet: interrupted; a checkpoint is saved", file=sys.stderr)
        return 1
    except RednetError as error:
        print(f"rednet: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
