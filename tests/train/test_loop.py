"""The loop: what a run folder holds, exact resumption, and the ways in which a run stops."""

import dataclasses
import itertools
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

from rednet_jax.errors import RednetError
from rednet_jax.evaluate.protocols import evaluate_split
from rednet_jax.landmarks.builtin import IBUG68, REDNET7
from rednet_jax.landmarks.convert import indices_in
from rednet_jax.train import inputs, loop, validation
from rednet_jax.train.checkpoints import DIGESTS, Checkpoints
from rednet_jax.train.inputs import Inputs
from rednet_jax.train.load import changed
from rednet_jax.train.loop import train
from rednet_jax.weights.store import load

pytestmark = pytest.mark.usefixtures("without_report")


def rows(folder):
    """metrics.jsonl without what depends on the clock."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    clock = ("frames_per_second", "waiting")
    return [{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines]


def validations(folder):
    return {row["step"]: row["validation_nme"] for row in rows(folder) if "validation_nme" in row}


def saved(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


def assert_same(one, other):
    for (path, mine), theirs in zip(
        jax.tree.leaves_with_path(one), jax.tree.leaves(other), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs, err_msg=jax.tree_util.keystr(path))


def test_the_run_folder(finished, experiment):
    assert sorted(path.name for path in finished.folder.iterdir()) == [
        ".lock",
        "best.safetensors",
        "checkpoints",
        "config.json",
        "environment.jsonl",
        "init_from.json",
        "metrics.jsonl",
        "pictures",
        "report.html",
        "tensorboard",
    ]
    images = [path.name for path in sorted((finished.folder / "pictures").iterdir())]
    assert images == [f"step_{step:08d}.png" for step in (5, 10, 15, 20)]
    config = json.loads((finished.folder / "config.json").read_text())
    assert config == experiment.to_json()
    trained = [row for row in rows(finished.folder) if "loss" in row]
    assert [row["step"] for row in trained] == [2, 4, 5, 6, 8, 10, 12, 14, 15, 16, 18, 20]
    terms = {"detection", "map_landmarks", "landmarks", "confidence"}
    assert set(trained[0]) == {"step", "loss", "nme", "gradient_norm", "learning_rate", *terms}
    # 3 steps up, then half a cosine down to 0 at step 20; the first step's rate is 0.
    peak, warmup = 5e-3, 3
    for row in trained:
        before = row["step"] - 1
        down = 0.5 * (1 + np.cos(np.pi * (before - warmup) / (20 - warmup)))
        expected = peak * (before / warmup if before < warmup else down)
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


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_with_the_same_weights(
    finished, experiment, data_dir, tmp_path, monkeypatch
):
    weights = str(finished.folder / "best.safetensors")
    run, begun = loop._Run.to, []

    def killed(self, last, state, place):
        begun.append(jax.device_get(state))
        raise KeyboardInterrupt

    monkeypatch.setattr(loop._Run, "to", killed)
    for init_from in (weights, None):
        with pytest.raises(KeyboardInterrupt):
            train(experiment, tmp_path / "run", data_dir=data_dir, init_from=init_from)
    for state in begun:
        assert_same(state.params, load(weights)[1]["params"])
    starts = [json.loads(line) for line in (tmp_path / "run" / "environment.jsonl").open()]
    assert [start["init_from"]["checkpoint"] for start in starts] == [weights]
    monkeypatch.setattr(loop._Run, "to", run)
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


def test_validation_is_what_evaluation_says(finished, data_dir, experiment):
    """The two border on each other in code and must not differ: same crops, same weights."""
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
def test_a_run_that_was_stopped_ends_bit_for_bit_like_one_that_was_not(
    finished, experiment, data_dir, tmp_path, stops
):
    """On the border of one pass and two, and off every interval."""
    before = compilations(experiment)
    for stop in stops:
        state = train(experiment, tmp_path, data_dir=data_dir, stop_after=stop)
        assert int(state.step) == stop and saved(tmp_path)[-1] == stop
    state = train(experiment, tmp_path, data_dir=data_dir)
    assert_same(state, finished.state)
    assert compilations(experiment) == before, "a state from disk was compiled for anew"
    there = [row for row in rows(finished.folder) if "loss" in row]
    here = [
        row
        for row in rows(tmp_path)
        if "loss" in row and (row["step"] not in stops or row in there)
    ]
    assert here == there
    assert validations(finished.folder).items() <= validations(tmp_path).items()


def test_steps_beyond_the_end_and_below_what_was_done_change_nothing(
    finished, experiment, data_dir, capsys
):
    before = rows(finished.folder)
    starts = (finished.folder / "environment.jsonl").read_text()
    for steps in (3, 20, 100):
        assert_same(
            train(experiment, finished.folder, data_dir=data_dir, stop_after=steps), finished.state
        )
    assert rows(finished.folder) == before
    assert (finished.folder / "environment.jsonl").read_text() == starts
    told = [line for line in capsys.readouterr().out.splitlines() if "step" in line]
    assert told == 3 * [f"{finished.folder}: finished, all 20 steps are done"]


def test_devices_that_the_mesh_leaves_out_are_named(experiment, tmp_path, capsys):
    mesh = dataclasses.replace(experiment.mesh, data=2, fsdp=2)
    absent = dataclasses.replace(experiment, mesh=mesh)
    with pytest.raises(RednetError, match="not prepared"):
        train(absent, tmp_path, data_dir=tmp_path)
    told = ", ".join(map(str, jax.devices()[4:]))
    assert f"devices that the mesh leaves unused: {told}\n" in capsys.readouterr().out


def test_lines_of_steps_that_are_run_again_are_cut(finished, experiment, data_dir, tmp_path):
    train(experiment, tmp_path, data_dir=data_dir, stop_after=10)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        # A run that came to step 12 and was killed before its next checkpoint, in mid-line.
        file.write('{"step": 12, "loss": 99.0}\n{"step": 1')
    train(experiment, tmp_path, data_dir=data_dir)
    assert rows(tmp_path) == rows(finished.folder)


def test_the_best_is_remembered_across_a_restart(
    finished, experiment, data_dir, tmp_path, monkeypatch
):
    told = {5: [3.0], 10: [4.0], 15: [2.0, 3.5], 20: [5.0, 2.5]}
    step = iter(told)
    monkeypatch.setattr(validation, "validation_nme", lambda *_: told[next(step)])
    best = tmp_path / "best.safetensors"
    train(experiment, tmp_path, data_dir=data_dir, stop_after=5)
    first = best.read_bytes()
    train(experiment, tmp_path, data_dir=data_dir, stop_after=15)
    assert best.read_bytes() == first and saved(tmp_path) == [5, 15]
    train(experiment, tmp_path, data_dir=data_dir)
    assert best.read_bytes() != first and saved(tmp_path) == [20]
    assert_same(load(str(tmp_path))[1], finished.state.average)


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    finished, experiment, data_dir, tmp_path, capsys
):
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    older = saved(run)[0]
    assert older < 20
    (run / "checkpoints" / "20" / "metrics" / "metrics").write_text("")
    assert_same(train(experiment, run, data_dir=data_dir), finished.state)
    told = capsys.readouterr()
    assert f"resumes at step {older}\n" in told.out
    assert told.err.strip() == (
        f"rednet: warning: {run}/checkpoints/20: damaged (metrics/metrics is not JSON); "
        f"kept as 20.damaged; the run resumes from step {older}"
    )
    assert rows(run) == rows(finished.folder)
    assert (run / "checkpoints" / "20" / DIGESTS).exists()


def test_a_run_is_taken_back_to_a_step(finished, experiment, data_dir, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    older = saved(run)[0]
    text = refused(experiment, run, data_dir, from_step=7)
    assert text == f"{run}/checkpoints: no checkpoint of step 7; there are: {older}, 20"
    assert_same(train(experiment, run, data_dir=data_dir, from_step=older), finished.state)
    assert (run / "checkpoints" / "20.superseded").is_dir()
    assert rows(run) == rows(finished.folder)
    # A job that is queued again has the same command.
    capsys.readouterr()
    assert_same(train(experiment, run, data_dir=data_dir, from_step=older), finished.state)
    assert "finished, all 20 steps are done\n" in capsys.readouterr().out


def test_two_jobs_do_not_write_to_one_folder(finished, experiment, data_dir, tmp_path):
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
        text = refused(experiment, run, data_dir)
        assert text == f"{run}: another process is training in this folder {holder}"
        assert rows(run) == before
        other.kill()
    # A lock goes with its process.
    assert_same(train(experiment, run, data_dir=data_dir), finished.state)


def test_progress_is_told(experiment, data_dir, tmp_path, capsys):
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
    told = next(line for line in lines if line.startswith("step 5/20"))
    assert "validation nme" in told and "frames/s" in told


def refused(experiment, folder, data_dir, **options) -> str:
    with pytest.raises(RednetError) as caught:
        train(experiment, folder, data_dir=data_dir, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"batch": "3"}, "stages[0].batch was 4, now is 3"),
        ({"losses.sigma": "2"}, "stages[0].losses.sigma was 1.0, now is 2.0"),
        ({"model.crop_margin": "1.5"}, "model.crop_margin was 1.25, now is 1.5"),
    ],
)
def test_another_experiment_does_not_resume(finished, experiment, data_dir, changes, told):
    before = rows(finished.folder)
    text = refused(changed(experiment, changes), finished.folder, data_dir)
    assert told in text and "config.json" in text
    assert rows(finished.folder) == before


def test_a_config_that_is_no_json_is_refused(experiment, data_dir, tmp_path):
    (tmp_path / "config.json").write_text("{")
    assert "not a run's config" in refused(experiment, tmp_path, data_dir)


def test_a_file_in_the_folders_place(experiment, data_dir, tmp_path):
    place = tmp_path / "run"
    place.write_text("in the way")
    assert str(place) in refused(experiment, place, data_dir)
    assert str(place) in refused(experiment, place / "below", data_dir)
    assert place.read_text() == "in the way"


@pytest.mark.parametrize("name", ["checkpoints", "metrics.jsonl"])
def test_something_else_in_a_files_place(experiment, data_dir, tmp_path, name):
    if name == "checkpoints":
        (tmp_path / name).write_text("in the way")
    else:
        (tmp_path / name).mkdir()
    assert name in refused(experiment, tmp_path, data_dir)


def test_data_that_is_not_there_claims_no_folder(experiment, data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("REDNET_JAX_DATA", str(tmp_path / "elsewhere"))
    run = tmp_path / "run"
    for folder in ("elsewhere", "absent"):
        where = None if folder == "elsewhere" else tmp_path / folder
        assert f"{folder}: 300w is not prepared" in refused(experiment, run, where)
    other = changed(experiment, {"data.validation": "300w/valid"})
    assert "'valid'" in refused(other, run, data_dir)
    assert not run.exists()


def test_no_steps_at_all_are_refused(experiment, data_dir, tmp_path):
    assert "--stop-after" in refused(experiment, tmp_path / "run", data_dir, stop_after=0)


def test_a_trace_holds_the_steps_that_were_asked_for(experiment, data_dir, tmp_path, capsys):
    train(experiment, tmp_path, data_dir=data_dir, stop_after=5, profile=2)
    assert f"{tmp_path / 'profile'}: trace of steps 3 to 4" in capsys.readouterr().out
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert b"step_num" in trace.read_bytes()
    text = refused(experiment, tmp_path, data_dir, stop_after=8, profile=2)
    assert text.startswith("--profile 2 takes 4 steps") and text.endswith("3 are left to run")
    assert "--profile must be" in refused(experiment, tmp_path, data_dir, profile=-1)


def poisoned(monkeypatch, name):
    """From here on one label of the face is not a number."""
    read = inputs.face_crops

    def face_crops(*args, **kwargs):
        crops = read(*args, **kwargs)
        crops.landmarks[list(crops.names).index(name), 30] = np.nan
        return crops

    monkeypatch.setattr(inputs, "face_crops", face_crops)


def first_with(name, start, experiment, data_dir):
    """Number of the first step from `start` on that trains on the face."""
    reader = Inputs(experiment, data_dir).open(0)
    reader.set_state({"next_index": start})
    return next(step for step in itertools.count(start + 1) if name in reader.names(next(reader)))


@pytest.mark.parametrize(("start", "last_good"), [(0, "no checkpoint yet"), (5, "step 5")])
def test_a_poisoned_label_stops_the_run_and_is_named(
    experiment, data_dir, tmp_path, monkeypatch, start, last_good
):
    if start:
        train(experiment, tmp_path, data_dir=data_dir, stop_after=start)
    face = "helen/trainset/face4"
    poisoned(monkeypatch, face)
    text = refused(experiment, tmp_path, data_dir)
    assert f"not finite at step {first_with(face, start, experiment, data_dir)}," in text
    assert "faces: helen/trainset/face4;" in text and last_good in text
    assert saved(tmp_path) == ([start] if start else [])
    assert all(np.isfinite(row["loss"]) for row in rows(tmp_path) if "loss" in row)
    # With the label mended it goes on from there.
    monkeypatch.undo()
    assert (
        int(train(experiment, tmp_path, data_dir=data_dir, stop_after=start + 2).step) == start + 2
    )


def test_a_step_that_breaks_for_all_faces_names_a_few(tmp_path):
    def pending(step, loss, norm=1.0):
        metrics = {"loss_of_face": np.array(loss), "gradient_norm": np.array(norm)}
        return loop.Pending(step, [f"face{i}" for i in range(len(loss))], metrics)

    with Checkpoints(tmp_path, keep=1) as checkpoints:
        with pytest.raises(RednetError, match=r"step 7, faces: face0, .*face4 and 4 more; no"):
            loop._read_out([pending(6, [1.0] * 9), pending(7, [np.nan] * 9)], checkpoints)
        with pytest.raises(RednetError, match=r"step 3, faces: none by itself"):
            loop._read_out([pending(3, [1.0] * 9, np.inf)], checkpoints)
        row = loop._read_out([pending(3, [1.0]), pending(4, [1.0], 2.5)], checkpoints)
    assert row == {"step": 4, "gradient_norm": 2.5}


def test_weights_that_cannot_be_validated_are_not_saved(
    experiment, data_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(validation, "validation_nme", lambda *_: [float("nan")])
    text = refused(experiment, tmp_path, data_dir)
    assert "validation NME is not finite at step 5; no checkpoint yet" in text
    assert saved(tmp_path) == []


def test_seven_points_are_taken_out_of_the_68(experiment, narrow, data_dir):
    seven = dataclasses.replace(experiment, model=narrow("compact", scheme=REDNET7))
    picked = list(indices_in(IBUG68, REDNET7))
    few, whole = (Inputs(one, data_dir) for one in (seven, experiment))
    assert few.validation(0).landmarks.shape == (3, 7, 2)
    few, whole = (next(one.open(0)) for one in (few, whole))
    np.testing.assert_array_equal(few.landmarks, whole.landmarks[:, picked])
    assert few.labelled.shape == (4, 7)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_bit_for_bit(finished, experiment, data_dir, tmp_path):
    """In fresh processes: SIGKILL after the first checkpoint, then the rest."""
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
