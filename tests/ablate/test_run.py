"""Which runs are started, in which order, and what becomes of those that fail."""

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
def impatient(monkeypatch):
    monkeypatch.setattr(module, "_LOOK_EVERY", 0.02)


class Tasks:
    """Processes that measure nothing, and note who was asked for."""

    def __init__(self, ablation, runs_dir, broken=()):
        self.asked = []
        self.ablation, self.runs_dir, self.broken = ablation, runs_dir, broken

    def __call__(self, arm, seed):
        self.asked.append((arm, seed))
        if (arm, seed) in self.broken:
            return [sys.executable, "-c", "raise ValueError('not a number')"]
        write_measured(self.runs_dir, self.ablation.arm(arm), seed, [[1.0, 2.0]] * 2)
        return [sys.executable, "-c", ""]


def test_seed_by_seed(tmp_path):
    tasks = Tasks(tiny(), tmp_path)
    run_all(tiny(), tmp_path, tasks, jobs=2)
    assert tasks.asked == [(arm, seed) for seed in range(3) for arm in ("short", "long")]


def test_what_is_measured_is_not_begun_again_by_another_ablation_either(tmp_path):
    run_all(tiny(), tmp_path, Tasks(tiny(), tmp_path))
    arms = (Arm("base", experiment()), Arm("more", experiment(batch=6)))
    other = tiny(name="other", arms=arms, baseline="base", claims=())
    other_tasks = Tasks(other, tmp_path)
    lines = []
    run_all(other, tmp_path, other_tasks, say=lines.append)
    assert other_tasks.asked == [("more", 0), ("more", 1), ("more", 2)]
    assert lines[0] == "other: 6 runs, 3 of them measured before"


def test_arms_that_train_alike_are_one_run(tmp_path):
    arms = (*tiny().arms, Arm("maps", tiny().arms[0].experiment, readout="maps"))
    tasks = Tasks(tiny(arms=arms), tmp_path)
    run_all(tiny(arms=arms), tmp_path, tasks)
    assert len(tasks.asked) == 6


def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path):
    tasks = Tasks(tiny(), tmp_path, broken=[("short", 1)])
    lines = []
    run_all(tiny(), tmp_path, tasks, say=lines.append)
    assert len(tasks.asked) == 6
    assert any(line.startswith("short, seed 1: failed") for line in lines)
    run = run_of(tiny().arm("short"), 1)
    assert read_failure(tmp_path, run) == "ValueError: not a number"
    assert read_measured(tmp_path, run) is None


def test_after_the_minutes_none_is_begun(tmp_path):
    tasks = Tasks(tiny(), tmp_path)
    lines = []
    run_all(tiny(), tmp_path, tasks, minutes=0, say=lines.append)
    assert tasks.asked == []
    assert lines[-1] == "0 minutes are over: 6 runs were not started"


def test_whoever_is_interrupted_asks_its_runs_to_stop(tmp_path):
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


def test_what_is_asked_for_wrongly(tmp_path):
    file = tmp_path / "one.py"
    file.write_text(FILE.format(name="one"))
    with pytest.raises(RednetError, match="--jobs must be at least 1"):
        ablate(file, jobs=0)
    with pytest.raises(RednetError, match="needs --out"):
        ablate(file, changes={"steps": "3"})


def told(folder, arm, seed):
    """A task of the tiny ablation."""
    file = folder / "tiny.py"
    file.write_text(FILE.format(name="tiny"))
    return Task(str(file), {}, arm, seed, str(folder / "runs"), None, "rednet ablate tiny.py")


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_and_is_measured(tmp_path, capsys):
    run = run_of(tiny().arm("short"), 1)
    folder = tmp_path / "runs" / run.folder
    train(run.experiment, folder, stop_after=1)
    assert worker.work(told(tmp_path, "short", 1))
    assert "resumes at step 1" in capsys.readouterr().out
    measured = json.loads((folder / "measured.json").read_text())
    (faces,) = measured["pictures"]["errors"].values()
    assert {len(faces["regression"]), len(faces["maps"])} == {4}
    assert {len(row) for row in faces["regression"]} == {6}
    assert measured["provenance"]["seed"] == 1
    written = (folder / "measured.json").stat().st_mtime_ns
    assert worker.work(told(tmp_path, "short", 1))
    assert (folder / "measured.json").stat().st_mtime_ns == written


def test_a_worker_says_in_a_line_what_is_wrong(tmp_path, capsys):
    assert worker.main([told(tmp_path, "none", 0).to_json()]) == 2
    assert capsys.readouterr().err == "rednet: no arm 'none': short, long\n"


@pytest.mark.slow
def test_the_whole_in_processes_of_its_own(tmp_path):
    """The first run breaks, the second is measured, and then the time is over."""
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
