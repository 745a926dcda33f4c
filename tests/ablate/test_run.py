"""Order of runs, failures and interruption."""

import errno
import fcntl
import json
import sys
import time

import pytest
from ablate.tiny import FILE, experiment, tiny, write_measured

from rednet_jax.ablate import run as module
from rednet_jax.ablate import worker
from rednet_jax.ablate.folder import read_failure, read_measured
from rednet_jax.ablate.plan import Arm, run_of
from rednet_jax.ablate.run import ablate, run_all
from rednet_jax.ablate.worker import Task
from rednet_jax.errors import RednetError
from rednet_jax.train.loop import train


@pytest.fixture(autouse=True)
def poll_often(monkeypatch):
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.02)


class Tasks:
    """Commands of processes that do nothing, with a record of arms and seeds in `started`."""

    def __init__(self, ablation, runs_dir, broken=()):
        self.started = []
        self.ablation, self.runs_dir, self.broken = ablation, runs_dir, broken

    def __call__(self, arm, seed):
        self.started.append((arm, seed))
        if (arm, seed) in self.broken:
            return [sys.executable, "-c", "raise ValueError('not a number')"]
        write_measured(self.runs_dir, self.ablation.arm(arm), seed, [[1.0, 2.0]] * 2)
        return [sys.executable, "-c", ""]


def test_seed_by_seed(tmp_path):
    tasks = Tasks(tiny(), tmp_path)
    run_all(tiny(), tmp_path, tasks, jobs=2)
    assert tasks.started == [(arm, seed) for seed in range(3) for arm in ("short", "long")]


def test_measured_runs_are_shared_with_other_ablations(tmp_path):
    run_all(tiny(), tmp_path, Tasks(tiny(), tmp_path))
    arms = (Arm("base", experiment()), Arm("more", experiment(batch=6)))
    other = tiny(name="other", arms=arms, baseline="base", claims=())
    other_tasks = Tasks(other, tmp_path)
    lines = []
    run_all(other, tmp_path, other_tasks, say=lines.append)
    assert other_tasks.started == [("more", 0), ("more", 1), ("more", 2)]
    assert lines[0] == "other: 6 runs, 3 already measured"


def test_arms_with_equal_training_are_one_run(tmp_path):
    arms = (*tiny().arms, Arm("maps", tiny().arms[0].experiment, readout="maps"))
    tasks = Tasks(tiny(arms=arms), tmp_path)
    run_all(tiny(arms=arms), tmp_path, tasks)
    assert len(tasks.started) == 6


def test_a_failed_run_is_reported_and_the_others_continue(tmp_path):
    tasks = Tasks(tiny(), tmp_path, broken=[("short", 1)])
    lines = []
    run_all(tiny(), tmp_path, tasks, say=lines.append)
    assert len(tasks.started) == 6
    assert any(line.startswith("short, seed 1: failed") for line in lines)
    run = run_of(tiny().arm("short"), 1)
    assert read_failure(tmp_path, run) == "ValueError: not a number"
    assert read_measured(tmp_path, run) is None


def test_no_run_is_started_after_the_minutes(tmp_path):
    tasks = Tasks(tiny(), tmp_path)
    lines = []
    run_all(tiny(), tmp_path, tasks, minutes=0, say=lines.append)
    assert tasks.started == []
    assert lines[-1] == "0 minutes have passed: 6 runs were not started"


def test_an_interrupt_terminates_the_runs(tmp_path):
    note = tmp_path / "stopped"
    ready = tmp_path / "ready"
    code = (
        "import pathlib, signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(note)!r}).touch(), "
        "sys.exit()))\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(60)"
    )

    def say(line):
        if "seed" in line:
            while not ready.exists():
                time.sleep(0.05)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all(tiny(), tmp_path / "runs", lambda *_: [sys.executable, "-c", code], say=say)
    assert note.exists()


def test_invalid_arguments_raise(tmp_path):
    file = tmp_path / "one.py"
    file.write_text(FILE.format(name="one"))
    with pytest.raises(RednetError, match="--jobs must be at least 1"):
        ablate(file, jobs=0)
    for minutes in (-1.0, float("nan"), float("inf")):
        with pytest.raises(RednetError, match="--minutes must be a finite number of at least 0, n"):
            ablate(file, minutes=minutes)
    with pytest.raises(RednetError, match="needs --out"):
        ablate(file, changes={"steps": "3"})


def task_of(folder, arm, seed):
    """Returns a task of the tiny ablation."""
    file = folder / "tiny.py"
    file.write_text(FILE.format(name="tiny"))
    return Task(str(file), {}, arm, seed, str(folder / "runs"), None, "rednet ablate tiny.py")


@pytest.mark.slow
def test_an_interrupted_run_is_resumed_and_measured(tmp_path, capsys):
    run = run_of(tiny().arm("short"), 1)
    folder = tmp_path / "runs" / run.folder
    train(run.experiment, folder, stop_after=1)
    assert worker.work(task_of(tmp_path, "short", 1))
    assert "resumes at step 1" in capsys.readouterr().out
    measured = json.loads((folder / "measured.json").read_text())
    (faces,) = measured["pictures"]["errors"].values()
    assert {len(faces["regression"]), len(faces["maps"])} == {4}
    assert {len(row) for row in faces["regression"]} == {6}
    assert measured["provenance"]["seed"] == 1
    written = (folder / "measured.json").stat().st_mtime_ns
    assert worker.work(task_of(tmp_path, "short", 1))
    assert (folder / "measured.json").stat().st_mtime_ns == written


def test_a_worker_runs_without_locks_in_the_file_system(tmp_path, monkeypatch, capsys):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    folder = write_measured(tmp_path / "runs", tiny().arm("short"), 0, [[1.0, 2.0]] * 2)
    assert worker.work(task_of(tmp_path, "short", 0))
    line = capsys.readouterr().err
    assert line.startswith(f"rednet: warning: {folder}: cannot be locked (No locks available); ")


def test_a_worker_prints_errors_as_one_line(tmp_path, capsys):
    assert worker.main([task_of(tmp_path, "none", 0).to_json()]) == 2
    assert capsys.readouterr().err == "rednet: no arm 'none': short, long\n"


@pytest.mark.slow
def test_an_ablation_in_worker_processes(tmp_path):
    """The first run fails, the second is measured, and then the time limit is reached."""
    file = tmp_path / "tiny.py"
    file.write_text(FILE.format(name="tiny"))
    runs_dir = tmp_path / "runs"
    broken = runs_dir / run_of(tiny().arm("short"), 0).folder
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("{}")
    lines = []
    outcome = ablate(
        file, runs_dir=runs_dir, out=tmp_path / "out", jobs=2, minutes=0.01, say=lines.append
    )
    assert lines[-1].endswith("4 runs were not started")
    (failure,) = outcome.failures
    assert failure.startswith("short, seed 0: failed: ")
    assert "the folder holds another run" in failure
    result = json.loads((tmp_path / "out" / "tiny.json").read_text())
    states = [run["state"] for run in result["runs"]]
    assert states == ["failed", *["not decided"] * 2, "measured", *["not decided"] * 2]
