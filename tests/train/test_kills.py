"""A run that is killed repeatedly, at random moments, ends like an uninterrupted one."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from train.runs import assert_same, rows

from rednet_jax.train.checkpoints import Checkpoints
from rednet_jax.train.state import initial_train_state
from rednet_jax.train.watch import read_rows

KILLS = 20


@pytest.mark.slow
def test_a_run_killed_twenty_times_loses_only_the_steps_since_its_last_checkpoint(
    experiment, data_dir, tmp_path
):
    (stage,) = experiment.stages
    short = dataclasses.replace(
        experiment,
        model=dataclasses.replace(experiment.model, feedback_steps=1),
        stages=(dataclasses.replace(stage, steps=10_000, one_pass_steps=0),),
        # So that files are being written nearly all the time.
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
        # Otherwise each start would compile for as long as it trains.
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    output = tmp_path / "output.txt"

    def start(folder, *options):
        command = [sys.executable, "-m", "rednet_jax", "train", str(file), *options]
        command += ["--run-dir", str(folder), "--data-dir", str(data_dir)]
        with output.open("w") as out:
            return subprocess.Popen(command, env=environment, stdout=out)

    rng = np.random.default_rng(0)
    newest, incomplete, start_up = 0, 0, 0.0
    for kill in range(KILLS):
        started = time.monotonic()
        process = start(run)
        early = kill % 5 == 4
        if early:
            time.sleep(rng.uniform(0, start_up))
        else:
            while "validation nme" not in output.read_text() and process.poll() is None:
                time.sleep(0.01)
            start_up = time.monotonic() - started
            time.sleep(rng.uniform(0, 2))
        assert process.poll() is None, "it ended before it was killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        if newest and not early:
            assert f"resumes at step {newest}\n" in output.read_text()
        names = os.listdir(run / "checkpoints")
        complete = [int(name) for name in names if name.isdecimal()]
        incomplete += len(complete) < len(names)
        # A checkpoint is started when the one before it is complete.
        done = [row["step"] for row in read_rows(run / "metrics.jsonl")]
        now = max(complete, default=0)
        assert now >= max(newest, max(done, default=0) - 2)
        newest = now
    assert incomplete > KILLS / 4, "too few kills were during the writing of a checkpoint"

    end = newest + 3
    for folder in (run, tmp_path / "uninterrupted"):
        assert start(folder, "--stop-after", str(end)).wait() == 0
    states = []
    for folder in (run, tmp_path / "uninterrupted"):
        # An older checkpoint whose deletion was interrupted is set aside, as STEP.damaged.
        names = os.listdir(folder / "checkpoints")
        assert max(int(name) for name in names if name.isdecimal()) == end
        with Checkpoints(folder / "checkpoints", keep=2) as checkpoints:
            like = jax.eval_shape(lambda: initial_train_state(short))
            states.append(checkpoints.load(end, like))
    assert_same(states[0][0], states[1][0])
    assert states[0][1] == states[1][1]
    assert rows(run) == rows(tmp_path / "uninterrupted")
    assert (run / "best.safetensors").read_bytes() == (
        tmp_path / "uninterrupted" / "best.safetensors"
    ).read_bytes()
