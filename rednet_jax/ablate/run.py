"""All runs of an ablation, some at a time, each in a process of its own."""

from __future__ import annotations

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

_LOOK_EVERY = 0.2
"""Seconds."""

_PATIENCE = 120.0
"""Seconds that a run has to save itself after it was asked to stop."""


class Outcome(NamedTuple):
    """What came of an ablation.

    Attributes:
        files: that were written.
        failures: a line for each run that failed.
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
    """Trains and measures what is not yet, and writes the table of what is measured.

    Args:
        file: that builds an `Ablation`.
        runs_dir: holds a folder for each run; several ablations may share it, and its runs.
        data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.
        out: folder of NAME.json, NAME.md and NAME.png; None for experiments/results.
        jobs: runs at a time.
        minutes: after so many minutes no run is started; running ones finish.
        do: `train`, `table` or both.
        changes: to the experiment of every arm; then `out` must be named.
        say: called with a line for every run that begins or ends.

    Raises:
        RednetError: a file that builds no ablation, numbers out of range, or a table of nothing.
    """
    if jobs < 1:
        raise RednetError(f"--jobs must be at least 1, not {jobs}")
    if changes and out is None:
        raise RednetError("an ablation with changed fields needs --out: its results are others")
    ablation = load_ablation(file, changes)
    command = _command(file, changes or {})
    # The device's memory is for the runs: this process computes means.
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
        if read_measured(runs_dir, run) is None and (why := read_failure(runs_dir, run)):
            log = runs_dir / run.folder / LOG
            failures.append(f"{arm_name}, seed {seed}: failed: {why} ({log})")
    files = []
    if "table" in do:
        files = write_results(tabulate(ablation, runs_dir, command), out or RESULTS)
    return Outcome(files, failures)


def _command(file: Path, changes: Mapping[str, str]) -> str:
    parent = "experiments/" if file.resolve().parent.name == "experiments" else ""
    words = [f"--{name} {shlex.quote(value)}" for name, value in changes.items()]
    return " ".join(["rednet ablate", f"{parent}{file.name}", *words])


def _runs(ablation: Ablation) -> list[tuple[Run, str, int]]:
    """Runs with arm and seed, as they are trained: with the first seed all arms, then the next.

    One that is cut short then has whole comparisons. Arms that train alike are one run.
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
    """Starts a process for every run that is not measured; what fails is noted in its folder.

    SIGTERM and Ctrl-C are forwarded to the runs, which save checkpoints, and end this.

    Args:
        ablation: whose runs.
        runs_dir: holds their folders.
        task: from an arm's name and a seed to the command that trains and measures.
        jobs: processes at a time.
        minutes: after so many none is started.
        say: called with a line for every run that begins or ends.

    Raises:
        KeyboardInterrupt: it was asked to stop.
    """
    begun = time.monotonic()
    runs = _runs(ablation)
    waiting = [one for one in runs if read_measured(runs_dir, one[0]) is None]
    say(f"{ablation.name}: {len(runs)} runs, {len(runs) - len(waiting)} of them measured before")
    running: list[_Running] = []
    with _terminated_is_interrupted():
        try:
            while waiting or running:
                late = minutes is not None and time.monotonic() - begun >= 60 * minutes
                while waiting and len(running) < jobs and not late:
                    run, arm_name, seed = waiting.pop(0)
                    label = f"{arm_name}, seed {seed}"
                    running.append(_start(run, label, runs_dir, task(arm_name, seed)))
                    say(f"{label}: {runs_dir / run.folder}")
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    _finish(one, runs_dir, say)
                if late and not running:
                    say(f"{minutes:g} minutes are over: {len(waiting)} runs were not started")
                    return
                time.sleep(_LOOK_EVERY)
        finally:
            _stop(running)


def _start(run: Run, label: str, runs_dir: Path, words: list[str]) -> _Running:
    folder = runs_dir / run.folder
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        log = (folder / LOG).open("ab")
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "PYTHONUNBUFFERED": "1"}
    # In a session of its own: Ctrl-C reaches this process alone, which lets the run save itself.
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
    return _Running(run, label, process, log, time.monotonic())


def _finish(one: _Running, runs_dir: Path, say: Say) -> None:
    one.log.close()
    spent = f"{(time.monotonic() - one.begun) / 60:.1f} minutes"
    status = one.process.returncode
    if status == 0 and read_measured(runs_dir, one.run) is not None:
        say(f"{one.label}: measured after {spent}")
        return
    reason = _last_words(runs_dir / one.run.folder / LOG)
    if status < 0:
        reason = f"killed by {signal.Signals(-status).name}"
    write_failure(runs_dir, one.run, reason)
    say(f"{one.label}: failed after {spent}: {reason}")


def _last_words(log: Path) -> str:
    """The line of a log that says why its process ended."""
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    complaints = [line for line in lines if re.match(r"rednet: |[\w.]*(Error|Exception)\b", line)]
    last = (complaints or lines or ["no word in its log"])[-1].removeprefix("rednet: ")
    return last if len(last) <= 300 else f"{last[:300]} ..."


def _stop(running: list[_Running]) -> None:
    """Asks runs to save themselves and waits for that."""
    for one in running:
        one.process.terminate()
    end = time.monotonic() + _PATIENCE
    for one in running:
        try:
            one.process.wait(max(end - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()
        one.log.close()


@contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """Within it SIGTERM does what Ctrl-C does, so that the runs are stopped."""
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
