"""Stages of images, people and clips: losses, frozen parts, and resumption across stages."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from data.miniature_300vw import prepare_300vw
from train.miniature_300w import prepare_300w
from train.runs import assert_same

from rednet_jax.data.pipeline import ClipConfig
from rednet_jax.errors import RednetError
from rednet_jax.train import inputs
from rednet_jax.train.checkpoints import Checkpoints
from rednet_jax.train.experiment import (
    DataConfig,
    Experiment,
    OptimiserConfig,
    Stage,
)
from rednet_jax.train.loop import train
from rednet_jax.train.losses import LossConfig
from rednet_jax.train.state import initial_train_state
from rednet_jax.weights.store import load

OPTIMISER = OptimiserConfig(learning_rate=5e-3, warmup_steps=1)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare_300w(folder, train=6, validation=3)
    return prepare_300vw(folder)


@pytest.fixture(scope="module")
def experiment(narrow) -> Experiment:
    small = DataConfig(cached_size=80, cover=1.3)
    frozen = dataclasses.replace(
        OPTIMISER, frozen=("encoder",), rates=("decoder/convs*0.001", "decoder*0.5")
    )
    return Experiment(
        name="stages",
        model=narrow("compact", feedback_steps=1),
        stages=(
            Stage("images", 3, small, optimiser=OPTIMISER, batch=4),
            Stage(
                "people",
                3,
                dataclasses.replace(small, train=("300w/train", "300vw/train"), weights=(1.0, 1.0)),
                losses=LossConfig(identity=1.0),
                optimiser=frozen,
                batch=4,
            ),
            Stage(
                "clips",
                4,
                dataclasses.replace(small, train=("300vw/train",), validation="300vw/train"),
                clips=ClipConfig(frames=3, largest_stride=2),
                losses=LossConfig(stability=1.0),
                optimiser=OPTIMISER,
                batch=2,
            ),
        ),
        evaluate_every=100,
        log_every=1,
        keep=9,
    )


@pytest.fixture(scope="module", autouse=True)
def people(module_monkeypatch):
    """Gives the drawn faces four identities."""
    read = inputs.face_crops

    def face_crops(*args, **kwargs):
        crops = read(*args, **kwargs)
        return dataclasses.replace(crops, identities=np.arange(len(crops)) % 4 * 10)

    module_monkeypatch.setattr(inputs, "face_crops", face_crops)


@pytest.fixture(scope="module")
def module_monkeypatch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def finished(experiment, data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages") / "run"
    return folder, train(experiment, folder, data_dir=data_dir)


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def state_at(folder, experiment, step):
    like = jax.eval_shape(lambda: initial_train_state(experiment))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda leaf: leaf.update(sharding=device), like)
    with Checkpoints(folder / "checkpoints", keep=9) as checkpoints:
        return checkpoints.load(step, like)[0]


def test_each_stage_has_its_own_losses(finished):
    terms = [set(row) for row in rows(finished[0]) if "loss" in row]
    assert len(terms) == 10
    assert all("identity" in row for row in terms[3:6])
    assert not any("identity" in row for row in terms[:3] + terms[6:])
    assert all("stability" in row for row in terms[6:])
    # Before training, the cross entropy is about that of a guess.
    first = rows(finished[0])[4]
    assert first["step"] == 4 and 0.5 < first["identity"] < 3 * np.log(5)


def test_a_stage_ends_with_a_validation_and_a_checkpoint(finished, experiment):
    assert [row["step"] for row in rows(finished[0]) if "validation_nme" in row] == [3, 6, 10]
    assert sorted(int(path.name) for path in (finished[0] / "checkpoints").iterdir()) == [3, 6, 10]


def test_a_stage_of_clips_is_validated_on_clips(finished):
    measured = [row for row in rows(finished[0]) if "validation_nme" in row]
    assert [len(row["validation_nme"]) for row in measured] == [1, 1, 1]
    assert ["validation_jitter" in row for row in measured] == [False, False, True]
    assert 0 < measured[2]["validation_jitter"][0] < 100


def test_frozen_parts_do_not_change_and_slow_parts_change_less(finished, experiment):
    before, after = (state_at(finished[0], experiment, step) for step in (3, 6))
    assert_same(before.params["encoder"], after.params["encoder"])
    assert_same(before.batch_stats["encoder"], after.batch_stats["encoder"])

    def change(part):
        changes = jax.tree.map(
            lambda a, b: np.abs(a - b).max(), part(before.params), part(after.params)
        )
        return max(jax.tree.leaves(changes))

    assert 0 < change(lambda params: params["decoder"]["convs"]) < 1e-4
    assert change(lambda params: params["identity"]) > 5e-3
    assert not np.array_equal(
        *(jax.tree.leaves(s.batch_stats["decoder"])[0] for s in (before, after))
    )


def test_each_stage_reinitialises_the_optimiser(finished, experiment):
    for step, within in ((3, 3), (6, 3), (10, 4)):
        counts = [
            int(leaf)
            for leaf in jax.tree.leaves(state_at(finished[0], experiment, step).opt_state)
            if leaf.ndim == 0
        ]
        assert counts and set(counts) == {within}


@pytest.mark.parametrize("stops", [(3, 6), (1, 4, 8)], ids=str)
def test_resumed_runs_end_bit_for_bit_like_an_uninterrupted_one(
    finished, experiment, data_dir, tmp_path, stops
):
    for stop in stops:
        assert int(train(experiment, tmp_path, data_dir=data_dir, stop_after=stop).step) == stop
    assert_same(train(experiment, tmp_path, data_dir=data_dir), finished[1])


def test_a_run_can_begin_with_the_weights_of_another(finished, experiment, data_dir, tmp_path):
    weights = finished[0] / "best.safetensors"
    alone = dataclasses.replace(experiment, stages=experiment.stages[1:])
    train(alone, tmp_path / "run", data_dir=data_dir, stop_after=1, init_from=str(weights))
    state = state_at(tmp_path / "run", alone, 1)
    initial = load(str(weights))[1]
    # The encoder is frozen in the first stage of this run.
    assert_same(state.params["encoder"], initial["params"]["encoder"])
    wider = dataclasses.replace(
        experiment, model=dataclasses.replace(experiment.model, regression_width=9)
    )
    with pytest.raises(RednetError, match="holds another network"):
        train(wider, tmp_path / "wider", data_dir=data_dir, init_from=str(weights))


def test_invalid_parts_and_too_many_people_create_no_run_folder(experiment, data_dir, tmp_path):
    def error_of(**changes):
        stage = dataclasses.replace(experiment.stages[1], **changes)
        with pytest.raises(RednetError) as caught:
            train(dataclasses.replace(experiment, stages=(stage,)), tmp_path, data_dir=data_dir)
        assert not any(tmp_path.iterdir())
        return str(caught.value)

    frozen = dataclasses.replace(OPTIMISER, frozen=("encodr",))
    assert "people: optimiser: 'encodr' is not a part" in error_of(optimiser=frozen)
    few = dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, identities=3))
    with pytest.raises(RednetError, match=r"4 people to classify, and model\.identities is 3"):
        train(few, tmp_path, data_dir=data_dir)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGTERM, ""),
        (signal.SIGINT, "\nstops after this step, with a checkpoint; Ctrl-C again stops at once\n"),
    ],
)
def test_a_signal_saves_a_checkpoint_and_exits_with_status_0(
    experiment, data_dir, tmp_path, number, message
):
    file, run = tmp_path / "experiment.py", tmp_path / "run"
    model = experiment.model.to_json()
    file.write_text(
        "from rednet_jax.model.config import RedNetConfig\n"
        "from rednet_jax.train.experiment import *\n"
        f"model = RedNetConfig.from_json({model!r})\n"
        "data = DataConfig(cached_size=80, cover=1.3)\n"
        "stage = Stage('images', 100_000, data, batch=4)\n"
        "experiment = Experiment('long', model, (stage,), log_every=1)\n"
    )
    command = [sys.executable, "-m", "rednet_jax", "train", str(file)]
    command += ["--run-dir", str(run), "--data-dir", str(data_dir)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if (run / "metrics.jsonl").exists() and len(rows(run)) >= 3:
            break
        time.sleep(0.1)
    os.kill(process.pid, number)
    out, error = process.communicate(timeout=100)
    assert (process.returncode, error) == (0, message)
    done = rows(run)[-1]["step"]
    assert f"step {done}: stopped, checkpoint saved" in out
    assert [int(path.name) for path in (run / "checkpoints").iterdir()] == [done]
