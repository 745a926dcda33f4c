"""A run that is killed over and over, at any moment, ends like one that never was."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from train.test_loop import assert_same, rows, saved

from rednet_jax.train.checkpoints import Checkpoints
from rednet_jax.train.state import initial_train_state
from rednet_jax.train.watch import read_rows

KILLS = 20


@pytest.mark.slow
def test_a_run_that_is_killed_twenty_times_loses_only_steps_since_its_checkpoint(
    experiment, data_dir, tmp_path
):
    (stage,) = experiment.stages
    short = dataclasses.replace(
        experiment,
        model=dataclasses.replace(experiment.model, feedback_steps=1),
        stages=(dataclasses.replace(stage, steps=10_000, one_pass_steps=0),),
        # Something is being written at nearly every moment.
        evaluate_every=1,
        log_every=1,
        keep=2,
    )
    file, run = tmp_path / "experiment.py", tmp_path / "killed"
    file.write_text(
        "from rednet_jax.train.experiment import *\n"
        "from rednet_jax.train.losses import LossConfig\n"
        "from rednet_jax.landmarks.schemes import *\n"
        f"experiment = {short!r}\n"
    )
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        # Else each start would compile for as long as it trains.
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    told = tmp_path / "told.txt"

    def start(folder, *options):
        command = [sys.executable, "-m", "rednet_jax.cli", "train", str(file), *options]
        command += ["--run-dir", str(folder), "--data-dir", str(data_dir)]
        with told.open("w") as out:
            return subprocess.Popen(command, env=environment, stdout=out)

    rng = np.random.default_rng(0)
    newest, cut_short, start_up = 0, 0, 0.0
    for kill in range(KILLS):
        begun = time.monotonic()
        process = start(run)
        early = kill % 5 == 4
        if early:
            time.sleep(rng.uniform(0, start_up))
        else:
            while "validation nme" not in told.read_text() and process.poll() is None:
                time.sleep(0.01)
            start_up = time.monotonic() - begun
            time.sleep(rng.uniform(0, 2))
        assert process.poll() is None, "it ended by itself"
        process.send_signal(signal.SIGKILL)
        process.wait()
        if newest and not early:
            assert f"resumes at step {newest}\n" in told.read_text()
        names = os.listdir(run / "checkpoints")
        whole = [int(name) for name in names if name.isdecimal()]
        cut_short += len(whole) < len(names)
        # A checkpoint is begun once the one before it is whole.
        done = [row["step"] for row in read_rows(run / "metrics.jsonl")]
        now = max(whole, default=0)
        assert now >= max(newest, max(done, default=0) - 2)
        newest = now
    assert cut_short > KILLS / 4, "hardly a checkpoint was cut short: nothing was tried"

    end = newest + 3
    for folder in (run, tmp_path / "alone"):
        assert start(folder, "--stop-after", str(end)).wait() == 0
    states = []
    for folder in (run, tmp_path / "alone"):
        assert saved(folder)[-1] == end
        with Checkpoints(folder / "checkpoints", keep=2) as checkpoints:
            like = jax.eval_shape(lambda: initial_train_state(short))
            states.append(checkpoints.load(end, like))
    assert_same(states[0][0], states[1][0])
    assert states[0][1] == states[1][1]
    assert rows(run) == rows(tmp_path / "alone")
    assert (run / "best.safetensors").read_bytes() == (
        tmp_path / "alone" / "best.safetensors"
    ).read_bytes()
