"""Starts the runs of an ablation, each in its own process."""

from __future__ import annotations

import math
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, NamedTuple

import jax

from rednet_jax.ablate.folder import (
    LOG,
    read_failure,
    read_measured,
    write_failure,
)
from rednet_jax.ablate.page import write_results
from rednet_jax.ablate.plan import Ablation, Run, load_ablation, run_of
from rednet_jax.ablate.table import tabulate
from rednet_jax.ablate.worker import Task
from rednet_jax.errors import RednetError
from rednet_jax.files import writing

Say = Callable[[str], None]

RUNS, RESULTS = Path("runs/ablations"), Path("experiments/results")

_POLL_SECONDS = 0.2

_STOP_SECONDS = 120.0
"""Time for a run to save a checkpoint after SIGTERM, before it is killed."""


class Outcome(NamedTuple):
    """Result of `ablate`.

    Attributes:
        files: that were written.
        failures: one line for each failed run.
    """

    files: list[Path]
    failures: list[str]


class _Running(NamedTuple):
    run: Run
    label: str
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    begun: float


def ablate(
    file: Path,
    *,
    runs_dir: Path = RUNS,
    data_dir: Path | None = None,
    out: Path | None = None,
    jobs: int = 1,
    minutes: float | None = None,
    do: tuple[str, ...] = ("train", "table"),
    changes: Mapping[str, str] | None = None,
    say: Say = print,
) -> Outcome:
    """Trains and measures the missing runs, and writes the tables of all measurements.

    Args:
        file: that assigns an `Ablation`.
        runs_dir: contains a folder for each run; several ablations may share it, and its runs.
        data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.
        out: folder of NAME.json, NAME.md and NAME.png; None for experiments/results.
        jobs: number of concurrent runs.
        minutes: time after which no run is started; running ones finish.
        do: `train`, `table` or both.
        changes: to the experiment of every arm; `out` is then required.
        say: called with a line for every run that starts or ends.

    Raises:
        RednetError: a file that assigns no ablation, numbers out of range, or no measured run.
    """
    if jobs < 1:
        raise RednetError(f"--jobs must be at least 1, not {jobs}")
    if minutes is not None and not 0 <= minutes < math.inf:
        raise RednetError(f"--minutes must be a finite number of at least 0, not {minutes:g}")
    if changes and out is None:
        raise RednetError("an ablation with changed fields needs --out, since its results differ")
    ablation = load_ablation(file, changes)
    command = _command(file, changes or {})
    # Leaves the accelerator's memory to the runs; this process only computes means.
    jax.config.update("jax_platforms", "cpu")
    if "train" in do:

        def task(arm: str, seed: int) -> list[str]:
            words = Task(
                file=str(file),
                changes=dict(changes or {}),
                arm=arm,
                seed=seed,
                runs_dir=str(runs_dir),
                data_dir=None if data_dir is None else str(data_dir),
                command=command,
            )
            return [sys.executable, "-m", "rednet_jax.ablate.worker", words.to_json()]

        run_all(ablation, runs_dir, task, jobs=jobs, minutes=minutes, say=say)
    failures = []
    for run, arm_name, seed in _runs(ablation):
        if read_measured(runs_dir, run) is None and (reason := read_failure(runs_dir, run)):
            log = runs_dir / run.folder / LOG
            failures.append(f"{arm_name}, seed {seed}: failed: {reason} ({log})")
    files = []
    if "table" in do:
        files = write_results(tabulate(ablation, runs_dir, command), out or RESULTS)
    return Outcome(files, failures)


def _command(file: Path, changes: Mapping[str, str]) -> str:
    parent = "experiments/" if file.resolve().parent.name == "experiments" else ""
    words = [f"--{name} {shlex.quote(value)}" for name, value in changes.items()]
    return " ".join(["rednet ablate", f"{parent}{file.name}", *words])


def _runs(ablation: Ablation) -> list[tuple[Run, str, int]]:
    """Returns runs with arm and seed in the order of training: all arms of a seed, then the next.

    An incomplete ablation then has complete comparisons. Arms with equal training are one run.
    """
    runs: dict[str, tuple[Run, str, int]] = {}
    for seed in ablation.seeds:
        for arm in ablation.arms:
            run = run_of(arm, seed)
            runs.setdefault(run.folder, (run, arm.name, seed))
    return list(runs.values())


def run_all(
    ablation: Ablation,
    runs_dir: Path,
    task: Callable[[str, int], list[str]],
    *,
    jobs: int = 1,
    minutes: float | None = None,
    say: Say = print,
) -> None:
    """Starts a process for every run that is not measured; failures are recorded in its folder.

    SIGTERM and Ctrl-C are forwarded to the runs, which save checkpoints, and end this call.

    Args:
        ablation: that defines the runs.
        runs_dir: contains their folders.
        task: returns the command that trains and measures an arm, by name, with a seed.
        jobs: number of concurrent processes.
        minutes: time after which no run is started.
        say: called with a line for every run that starts or ends.

    Raises:
        KeyboardInterrupt: on SIGTERM or Ctrl-C.
    """
    begun = time.monotonic()
    runs = _runs(ablation)
    waiting = [entry for entry in runs if read_measured(runs_dir, entry[0]) is None]
    say(f"{ablation.name}: {len(runs)} runs, {len(runs) - len(waiting)} already measured")
    running: list[_Running] = []
    with _sigterm_as_interrupt():
        try:
            while waiting or running:
                late = minutes is not None and time.monotonic() - begun >= 60 * minutes
                while waiting and len(running) < jobs and not late:
                    run, arm_name, seed = waiting.pop(0)
                    label = f"{arm_name}, seed {seed}"
                    running.append(_start(run, label, runs_dir, task(arm_name, seed)))
                    say(f"{label}: {runs_dir / run.folder}")
                for ended in [entry for entry in running if entry.process.poll() is not None]:
                    running.remove(ended)
                    _finish(ended, runs_dir, say)
                if late and not running:
                    say(f"{minutes:g} minutes have passed: {len(waiting)} runs were not started")
                    return
                time.sleep(_POLL_SECONDS)
        finally:
            _stop(running)


def _start(run: Run, label: str, runs_dir: Path, words: list[str]) -> _Running:
    folder = runs_dir / run.folder
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        log = (folder / LOG).open("ab")
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "PYTHONUNBUFFERED": "1"}
    # In its own session, so that Ctrl-C reaches this process only, which then stops the run.
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
    return _Running(run, label, process, log, time.monotonic())


def _finish(ended: _Running, runs_dir: Path, say: Say) -> None:
    ended.log.close()
    spent = f"{(time.monotonic() - ended.begun) / 60:.1f} minutes"
    status = ended.process.returncode
    if status == 0 and read_measured(runs_dir, ended.run) is not None:
        say(f"{ended.label}: measured after {spent}")
        return
    reason = _failure_reason(runs_dir / ended.run.folder / LOG)
    if status < 0:
        reason = f"killed by {signal.Signals(-status).name}"
    write_failure(runs_dir, ended.run, reason)
    say(f"{ended.label}: failed after {spent}: {reason}")


def _failure_reason(log: Path) -> str:
    """Returns the last error message of a log, or its last line."""
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"rednet: |[\w.]*(Error|Exception)\b", line)]
    last = (errors or lines or ["its log is empty"])[-1].removeprefix("rednet: ")
    return last if len(last) <= 300 else f"{last[:300]} ..."


def _stop(running: list[_Running]) -> None:
    """Terminates runs and waits until they have saved checkpoints."""
    for entry in running:
        entry.process.terminate()
    end = time.monotonic() + _STOP_SECONDS
    for entry in running:
        try:
            entry.process.wait(max(end - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            entry.process.kill()
            entry.process.wait()
        entry.log.close()


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Context in which SIGTERM raises KeyboardInterrupt, so that the runs are stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
