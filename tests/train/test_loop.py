"""The training loop: the contents of a run folder, and exact resumption."""

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from train.conftest import compilations
from train.runs import assert_same, rows, saved, training_error, validations

from rednet_jax.errors import RednetError
from rednet_jax.evaluate.protocols import evaluate_split
from rednet_jax.landmarks.builtin import IBUG68, REDNET7
from rednet_jax.landmarks.convert import indices_in
from rednet_jax.train import validation
from rednet_jax.train.checkpoints import DIGESTS, Checkpoints
from rednet_jax.train.inputs import Inputs
from rednet_jax.train.loop import train
from rednet_jax.train.session import Session
from rednet_jax.weights.store import load

pytestmark = pytest.mark.usefixtures("without_report")


def test_the_run_folder(finished, experiment):
    assert sorted(path.name for path in finished.folder.iterdir()) == [
        ".lock",
        "best.safetensors",
        "checkpoints",
        "config.json",
        "environment.jsonl",
        "images",
        "init_from.json",
        "metrics.jsonl",
        "report.html",
        "tensorboard",
    ]
    images = [path.name for path in sorted((finished.folder / "images").iterdir())]
    assert images == [f"step_{step:08d}.png" for step in (5, 10, 15, 20)]
    config = json.loads((finished.folder / "config.json").read_text())
    assert config == experiment.to_json()
    trained = [row for row in rows(finished.folder) if "loss" in row]
    assert [row["step"] for row in trained] == [2, 4, 5, 6, 8, 10, 12, 14, 15, 16, 18, 20]
    terms = {"detection", "map_landmarks", "landmarks", "confidence"}
    assert set(trained[0]) == {"step", "loss", "nme", "gradient_norm", "learning_rate", *terms}
    # A warm-up of 3 steps from 0, then a cosine decay to 0 at step 20.
    peak, warmup = 5e-3, 3
    for row in trained:
        before = row["step"] - 1
        decay = 0.5 * (1 + np.cos(np.pi * (before - warmup) / (20 - warmup)))
        expected = peak * (before / warmup if before < warmup else decay)
        assert row["learning_rate"] == pytest.approx(expected, rel=1e-4)
    assert {step: len(nme) for step, nme in validations(finished.folder).items()} == {
        5: 1,
        10: 1,
        15: 2,
        20: 2,
    }
    assert int(finished.state.step) == 20


def test_every_start_is_recorded(finished, experiment, data_dir):
    (start,) = map(json.loads, (finished.folder / "environment.jsonl").read_text().splitlines())
    assert (start["step"], start["parallel"], start["processes"]) == (0, "jit", 1)
    assert start["mesh"] == {"data": 1, "fsdp": 1} and start["init_from"] is None
    assert {"command", "git_commit", "machine", "versions"} <= set(start)
    assert start["data"] == Inputs(experiment, data_dir).fingerprints()
    assert set(start["data"]) == {"images"}
    assert set(start["data"]["images"]) == {"train 300w/train", "validation 300w/validation"}


def test_a_run_killed_before_its_first_checkpoint_starts_with_the_same_weights_again(
    finished, experiment, data_dir, tmp_path, monkeypatch
):
    weights = str(finished.folder / "best.safetensors")
    original, initial_states = Session.run, []

    def killed(self, last, state, position):
        initial_states.append(jax.device_get(state))
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "run", killed)
    for init_from in (weights, None):
        with pytest.raises(KeyboardInterrupt):
            train(experiment, tmp_path / "run", data_dir=data_dir, init_from=init_from)
    for state in initial_states:
        assert_same(state.params, load(weights)[1]["params"])
    starts = [json.loads(line) for line in (tmp_path / "run" / "environment.jsonl").open()]
    assert [start["init_from"]["checkpoint"] for start in starts] == [weights]
    monkeypatch.setattr(Session, "run", original)
    with pytest.raises(RednetError, match="holds other weights than when the run started"):
        (tmp_path / "run" / "init_from.json").write_text(
            json.dumps({"checkpoint": weights, "fingerprint": "0"})
        )
        train(experiment, tmp_path / "run", data_dir=data_dir)


def test_the_step_is_compiled_once_for_each_number_of_passes(finished):
    assert finished.compilations == 2


def test_the_newest_checkpoint_and_the_best_are_kept(finished):
    best = min((nme[-1], step) for step, nme in validations(finished.folder).items())[1]
    assert saved(finished.folder) == sorted({best, 20})


def test_best_weights_are_the_average_of_the_best_checkpoint(finished):
    best = min((nme[-1], step) for step, nme in validations(finished.folder).items())[1]
    with Checkpoints(finished.folder / "checkpoints", keep=1) as checkpoints:
        state, _ = checkpoints.load(best, jax.eval_shape(lambda: finished.state))
    assert_same(load(str(finished.folder))[1], state.average)


def test_validation_equals_evaluation(finished, data_dir, experiment):
    """Validation and `evaluate_split` share crops and metrics, but not all code."""
    result = evaluate_split(
        (experiment.model, finished.state.average),
        "300w",
        "validation",
        data_dir=data_dir,
        feedback_steps=(1, 2),
    )
    measured = [row["nme"] for row in result["per_step"]]
    np.testing.assert_allclose(validations(finished.folder)[20], measured, rtol=1e-6)


@pytest.mark.parametrize("stops", [(10,), (3, 7, 12)], ids=str)
def test_a_stopped_run_ends_bit_for_bit_like_an_uninterrupted_one(
    finished, experiment, data_dir, tmp_path, stops
):
    """Stopped where the number of passes changes, and between validations and log lines."""
    before = compilations(experiment)
    for stop in stops:
        state = train(experiment, tmp_path, data_dir=data_dir, stop_after=stop)
        assert int(state.step) == stop and saved(tmp_path)[-1] == stop
    state = train(experiment, tmp_path, data_dir=data_dir)
    assert_same(state, finished.state)
    assert compilations(experiment) == before, "a restored state caused a compilation"
    expected = [row for row in rows(finished.folder) if "loss" in row]
    actual = [
        row
        for row in rows(tmp_path)
        if "loss" in row and (row["step"] not in stops or row in expected)
    ]
    assert actual == expected
    # Validations at other steps would take part in the choice of the best weights.
    assert validations(finished.folder) == validations(tmp_path)
    best, expected = (folder / "best.safetensors" for folder in (tmp_path, finished.folder))
    assert best.read_bytes() == expected.read_bytes()


def test_a_finished_run_does_not_change(finished, experiment, data_dir, capsys):
    before = rows(finished.folder)
    starts = (finished.folder / "environment.jsonl").read_text()
    for steps in (3, 20, 100):
        assert_same(
            train(experiment, finished.folder, data_dir=data_dir, stop_after=steps), finished.state
        )
    assert rows(finished.folder) == before
    assert (finished.folder / "environment.jsonl").read_text() == starts
    lines = [line for line in capsys.readouterr().out.splitlines() if "step" in line]
    assert lines == 3 * [f"{finished.folder}: finished, all 20 steps are done"]


def test_unused_devices_are_named(experiment, tmp_path, capsys):
    mesh = dataclasses.replace(experiment.mesh, data=2, fsdp=2)
    on_mesh = dataclasses.replace(experiment, mesh=mesh)
    with pytest.raises(RednetError, match="not prepared"):
        train(on_mesh, tmp_path, data_dir=tmp_path)
    unused = ", ".join(map(str, jax.devices()[4:]))
    assert f"devices that the mesh leaves unused: {unused}\n" in capsys.readouterr().out


def test_log_lines_of_steps_that_run_again_are_dropped(finished, experiment, data_dir, tmp_path):
    train(experiment, tmp_path, data_dir=data_dir, stop_after=10)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        # A run that was killed after step 12 while writing a line, before its next checkpoint.
        file.write('{"step": 12, "loss": 99.0}\n{"step": 1')
    train(experiment, tmp_path, data_dir=data_dir)
    assert rows(tmp_path) == rows(finished.folder)


def test_the_best_nme_is_kept_across_restarts(
    finished, experiment, data_dir, tmp_path, monkeypatch
):
    nmes = {5: [3.0], 10: [4.0], 15: [2.0, 3.5], 20: [5.0, 2.5]}
    step = iter(nmes)
    monkeypatch.setattr(validation, "validation_nme", lambda *_: nmes[next(step)])
    best = tmp_path / "best.safetensors"
    train(experiment, tmp_path, data_dir=data_dir, stop_after=5)
    first = best.read_bytes()
    train(experiment, tmp_path, data_dir=data_dir, stop_after=15)
    assert best.read_bytes() == first and saved(tmp_path) == [5, 15]
    train(experiment, tmp_path, data_dir=data_dir)
    assert best.read_bytes() != first and saved(tmp_path) == [20]
    assert_same(load(str(tmp_path))[1], finished.state.average)


def test_a_run_with_a_damaged_checkpoint_resumes_from_the_one_before(
    finished, experiment, data_dir, tmp_path, capsys
):
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    older = saved(run)[0]
    assert older < 20
    (run / "checkpoints" / "20" / "metrics" / "metrics").write_text("")
    assert_same(train(experiment, run, data_dir=data_dir), finished.state)
    output = capsys.readouterr()
    assert f"resumes at step {older}\n" in output.out
    assert output.err.strip() == (
        f"rednet: warning: {run}/checkpoints/20: damaged (metrics/metrics is not JSON); "
        f"kept as 20.damaged; the run resumes from step {older}"
    )
    assert rows(run) == rows(finished.folder)
    assert (run / "checkpoints" / "20" / DIGESTS).exists()


def test_a_run_is_taken_back_to_a_step(finished, experiment, data_dir, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    older = saved(run)[0]
    text = training_error(experiment, run, data_dir, from_step=7)
    assert text == f"{run}/checkpoints: no checkpoint of step 7; there are: {older}, 20"
    assert_same(train(experiment, run, data_dir=data_dir, from_step=older), finished.state)
    assert (run / "checkpoints" / "20.superseded").is_dir()
    assert rows(run) == rows(finished.folder)
    # A requeued job has the same command.
    capsys.readouterr()
    assert_same(train(experiment, run, data_dir=data_dir, from_step=older), finished.state)
    assert "finished, all 20 steps are done\n" in capsys.readouterr().out


def test_a_second_job_in_a_folder_is_an_error(finished, experiment, data_dir, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    script = (
        "import sys\nfrom pathlib import Path\nfrom rednet_jax.train.lock import only_writer\n"
        "with only_writer(Path(sys.argv[1])):\n    print(flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        before = rows(run)
        holder = f"(host {socket.gethostname()}, process {other.pid})"
        text = training_error(experiment, run, data_dir)
        assert text == f"{run}: another process is training in this folder {holder}"
        assert rows(run) == before
        other.kill()
    # The lock is released when its process ends.
    assert_same(train(experiment, run, data_dir=data_dir), finished.state)


def test_progress_is_printed(experiment, data_dir, tmp_path, capsys):
    train(experiment, tmp_path, data_dir=data_dir, stop_after=12)
    train(experiment, tmp_path, data_dir=data_dir, stop_after=14)
    lines = capsys.readouterr().out.splitlines()
    assert "300w/train: 6 faces" in lines
    compiled = [line for line in lines if "compiling" in line]
    assert [line.split(":")[0] for line in compiled] == ["step 1", "step 11", "step 13"]
    assert any("resumes at step 12" in line for line in lines)
    train(experiment, tmp_path, data_dir=data_dir, stop_after=14)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == f"{tmp_path}: step 14 is done, no step is left of --stop-after 14"
    validated = next(line for line in lines if line.startswith("step 5/20"))
    assert "validation nme" in validated and "frames/s" in validated


def test_a_trace_has_the_given_number_of_steps(experiment, data_dir, tmp_path, capsys):
    train(experiment, tmp_path, data_dir=data_dir, stop_after=5, profile=2)
    assert f"{tmp_path / 'profile'}: trace of steps 3 to 4" in capsys.readouterr().out
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert b"step_num" in trace.read_bytes()
    text = training_error(experiment, tmp_path, data_dir, stop_after=8, profile=2)
    assert text.startswith("--profile 2 takes 4 steps") and text.endswith("3 are left to run")
    assert "--profile must be" in training_error(experiment, tmp_path, data_dir, profile=-1)


def test_seven_landmarks_are_selected_from_the_68(experiment, narrow, data_dir):
    seven = dataclasses.replace(experiment, model=narrow("compact", scheme=REDNET7))
    indices = list(indices_in(IBUG68, REDNET7))
    few, all_68 = (Inputs(each, data_dir) for each in (seven, experiment))
    assert few.validation(0).landmarks.shape == (3, 7, 2)
    few, all_68 = (next(each.open(0)) for each in (few, all_68))
    np.testing.assert_array_equal(few.landmarks, all_68.landmarks[:, indices])
    assert few.labelled.shape == (4, 7)


@pytest.mark.slow
def test_a_killed_run_resumes_bit_for_bit(finished, experiment, data_dir, tmp_path):
    """In new processes: SIGKILL after the first checkpoint, then the remaining steps."""
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\n"
        "from rednet_jax.train.experiment import *\n"
        "from rednet_jax.train.losses import LossConfig\n"
        "from rednet_jax.data.augment import Augmentation\n"
        "from rednet_jax.landmarks.schemes import *\n"
        "from rednet_jax.train.loop import train\n"
        f"train({experiment!r}, Path(sys.argv[1]), data_dir=Path(sys.argv[2]))\n"
    )
    command = [sys.executable, str(script), str(tmp_path / "run"), str(data_dir)]
    process = subprocess.Popen(command)
    checkpoint = tmp_path / "run" / "checkpoints" / "5"
    deadline = time.monotonic() + 300
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert checkpoint.exists() and not (tmp_path / "run" / "checkpoints" / "20").exists()
    subprocess.run(command, check=True)
    with Checkpoints(tmp_path / "run" / "checkpoints", keep=1) as checkpoints:
        state, _ = checkpoints.load(20, jax.eval_shape(lambda: finished.state))
    assert_same(state, finished.state)
    assert rows(tmp_path / "run") == rows(finished.folder)
