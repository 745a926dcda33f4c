"""Training in two processes: joining, shared work, errors, and resumption."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
from data.miniature_300vw import prepare_300vw
from train.miniature_300w import prepare_300w
from train.validating import figures

from rednet_jax.train import loop
from rednet_jax.train.checkpoints import Checkpoints
from rednet_jax.train.experiment import (
    DataConfig,
    Experiment,
    MeshConfig,
    OptimiserConfig,
    Stage,
)
from rednet_jax.train.inputs import Inputs
from rednet_jax.train.load import load_experiment
from rednet_jax.train.peers import LOST
from rednet_jax.train.state import TrainState, initial_train_state
from rednet_jax.train.validation import share

SOON = 30
"""Seconds within which processes must end after one of them was killed."""

STEPS = 24


class Processes:
    """Two processes with two devices each; killed at the end of the block."""

    def __init__(self, folder: Path, command: Callable[[int, int], Sequence[object]]) -> None:
        """Starts the processes.

        Args:
            folder: of the files with their output.
            command: from a port and the number of a process to its command.
        """
        with socket.create_server(("", 0)) as server:
            self.port = server.getsockname()[1]
        flags = re.sub(r"(device_count)=\d+", r"\1=2", os.environ["XLA_FLAGS"])
        environment = os.environ | {"XLA_FLAGS": flags, "TF_CPP_MIN_LOG_LEVEL": "3"}
        folder.mkdir(exist_ok=True)
        self._files = [folder / f"process{number}" for number in (0, 1)]
        self.all = []
        for number, path in enumerate(self._files):
            words = [str(word) for word in command(self.port, number)]
            out, errors = path.with_suffix(".out"), path.with_suffix(".err")
            with out.open("w") as stdout, errors.open("w") as stderr:
                self.all.append(
                    subprocess.Popen(words, stdout=stdout, stderr=stderr, env=environment)
                )

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 280
        while not condition():
            assert time.monotonic() < deadline
            assert all(process.poll() is None for process in self.all), "a process has ended"
            time.sleep(0.05)

    def statuses(self, within: float = 280) -> list[int]:
        deadline = time.monotonic() + within
        return [process.wait(max(deadline - time.monotonic(), 0.1)) for process in self.all]

    def out(self, number: int) -> str:
        return self._files[number].with_suffix(".out").read_text()

    def errors(self, number: int) -> list[str]:
        return self._files[number].with_suffix(".err").read_text().splitlines()

    def kill(self, number: int, how: signal.Signals = signal.SIGKILL) -> None:
        self.all[number].send_signal(how)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.all:
            process.kill()
            process.wait()


def assert_error(errors: Sequence[str], line: str) -> None:
    assert len(errors) == 1 and errors[0].startswith(f"rednet: {line}"), errors


COLLECTIVES = """
import pathlib, sys, jax, numpy
from jax.experimental import multihost_utils
from rednet_jax.errors import RednetError
from rednet_jax.train.distributed import after_the_first, check_alike, check_shared, joined
from rednet_jax.train.parallel import _names_on
from rednet_jax.train.sharding import batch_sharding

port, process, folder = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
with joined(f"localhost:{port}", 2, process):
    # Not in the order of processes, as on a mesh of TPUs.
    devices = numpy.array(jax.devices())[[3, 0, 1, 2]].reshape(2, 2)
    mesh = jax.sharding.Mesh(devices, ("data", "fsdp"))
    mine = numpy.arange(4) + 10 * process
    rows = jax.make_array_from_process_local_data(batch_sharding(mesh), mine)
    rows = multihost_utils.process_allgather(rows, tiled=True)
    print("rows", *rows, "names", *_names_on(mesh, list(map(str, mine))))
    config = folder / "config.json"
    print("existed", after_the_first(lambda: config.exists() or config.touch()))
    check_shared(folder, 7)
    for mine, step in ((folder / ("elsewhere" if process else ""), 7), (folder, process)):
        try:
            check_shared(mine, step)
        except RednetError as error:
            print("error", error)
    check_alike({"a": [1, {"b": 2}], "c": "same"})
    try:
        check_alike({"a": [1, {"b": 2 + process}], "c": "same"})
    except RednetError as error:
        print("differs", error)
"""

LOOP = """
import itertools, sys, numpy
from jax.experimental import multihost_utils
from rednet_jax.errors import RednetError
from rednet_jax.train.distributed import joined

port, process, fails = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "fails"
with joined(f"localhost:{port}", 2, process):
    for turn in itertools.count():
        multihost_utils.process_allgather(numpy.float32(process))
        print("turn", turn, flush=True)
        if fails and process:
            raise RednetError("the label of face 7 is broken")
"""


def together(script: str, folder: Path, word: object) -> Processes:
    return Processes(
        folder, lambda port, number: [sys.executable, "-c", script, port, number, word]
    )


def test_processes_join_compute_and_end(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with together(COLLECTIVES, tmp_path, folder) as processes:
        assert processes.statuses(120) == [0, 0]
        first, second = (
            re.findall("2 processes at .*|rows .*|existed .*|error .*", processes.out(number))
            for number in (0, 1)
        )
        assert first.pop(0) == f"2 processes at localhost:{processes.port}, 4 cpu devices"
        rows = "10 11 0 1 2 3 12 13"
        assert first[0] == second[0] == f"rows {rows} names {rows}"
        assert (first[1], second[1]) == ("existed None", "existed True")
        message = "processes 0 and 1 see different folders there"
        assert first[2:] == 2 * [f"error {folder}: {message}"]
        assert second[2:] == [f"error {folder}/elsewhere: {message}", first[3]]
        message = "differs process 1 differs from process 0: a[1].b is 3, not 2\n"
        assert all(message in processes.out(number) for number in (0, 1))
        assert processes.errors(0) == processes.errors(1) == []


@pytest.mark.parametrize("victim", [0, 1])
def test_if_one_is_killed_the_other_ends(tmp_path, victim):
    other = 1 - victim
    with together(LOOP, tmp_path, "lasts") as processes:
        processes.wait_until(lambda: "turn 2" in processes.out(other))
        processes.kill(victim)
        statuses = processes.statuses(SOON)
        assert (statuses[victim], statuses[other]) == (-signal.SIGKILL, LOST)
        message = f"process {other} of 2: process {victim} has ended; restart all"
        assert_error(processes.errors(other), message)


def test_if_one_fails_it_prints_its_error_and_the_other_ends(tmp_path):
    with together(LOOP, tmp_path, "fails") as processes:
        assert processes.statuses(120) == [LOST, 2]
        assert_error(processes.errors(0), "process 0 of 2: process 1 has ended")
        assert_error(processes.errors(1), "the label of face 7 is broken")


def test_validation_in_two_processes_equals_validation_in_one(tmp_path):
    data_dir = prepare_300vw(tmp_path / "data")
    script = Path(__file__).with_name("validating.py")
    with Processes(
        tmp_path, lambda port, number: [sys.executable, script, port, number, data_dir]
    ) as processes:
        expected = figures(data_dir)
        assert processes.statuses() == [0, 0], processes.errors(0) + processes.errors(1)
        results = [json.loads(re.search("figures (.*)", processes.out(i))[1]) for i in (0, 1)]
    assert [result.pop("ran") for result in results] == [[3, 1], [3, 1]]
    assert expected.pop("ran") == [5, 2]
    assert results[0] == results[1]
    for shown, expected_faces in zip(results[0].pop("shown"), expected.pop("shown"), strict=True):
        assert shown == pytest.approx(expected_faces, rel=1e-4)
    # A batch of another size rounds differently, and crops of clips are rounded to whole levels.
    for name, values in expected.items():
        np.testing.assert_allclose(
            np.hstack(results[0][name]), np.hstack(values), rtol=2e-3, err_msg=name
        )


@pytest.mark.parametrize(("count", "processes"), [(5, 2), (2, 2), (1, 4), (7, 3), (50, 8)])
def test_shares_of_validation_are_all_faces_in_order(count, processes):
    shares = [share(count, process, processes) for process in range(processes)]
    assert len({len(indices) for indices in shares}) == 1
    assert len(shares[0]) == -(-count // processes)
    np.testing.assert_array_equal(np.concatenate(shares)[:count], np.arange(count))
    assert np.concatenate(shares).max() < count


@pytest.fixture(scope="module")
def path(tmp_path_factory, narrow) -> Path:
    """Path of an experiment's file."""
    stage = Stage(
        data=DataConfig(cached_size=80, cover=1.3),
        # Small steps, so that rounding errors grow slowly.
        optimiser=OptimiserConfig(learning_rate=2e-4, warmup_steps=1, epsilon=1e-3),
        steps=STEPS,
        batch=8,
    )
    experiment = Experiment(
        name="together",
        model=narrow("compact", feedback_steps=1),
        stages=(stage,),
        evaluate_every=4,
        log_every=2,
        keep=1,
    )
    path = tmp_path_factory.mktemp("experiment") / "together.py"
    path.write_text(
        "from rednet_jax.train.experiment import *\n"
        "from rednet_jax.train.losses import *\n"
        "from rednet_jax.data.augment import *\n"
        "from rednet_jax.landmarks.schemes import *\n"
        f"experiment = {experiment!r}\n"
    )
    return path


def rednet_train(path: Path, run: Path, data: Path, *options: str) -> Processes:
    """Starts the command; the processes' output is in files beside the run's folder."""
    command = [sys.executable, "-m", "rednet_jax", "train", path, *options]
    folders = "--run-dir", run, "--data-dir", data, "--processes", 2
    return Processes(
        run.parent,
        lambda port, number: [
            *(*command, *folders, "--coordinator", f"localhost:{port}", "--process-id", number)
        ],
    )


@pytest.mark.parametrize("what", ["options", "data"])
def test_processes_with_different_options_or_data_do_not_train(path, data_dir, tmp_path, what):
    """Both end with one line that names all differences, and no run folder is created."""
    run, other = tmp_path / "run", tmp_path / "other"
    options: list[Sequence[object]] = [["--data-dir", data_dir], ["--data-dir", data_dir]]
    if what == "options":
        options[1] = [
            *options[1],
            "--batch",
            12,
            "--optimiser.learning_rate",
            0.1,
            "--stop-after",
            4,
        ]
        named = [
            "stages[0].optimiser.learning_rate is 0.1, not 0.0002",
            "stages[0].batch is 12, not 8",
            "--stop-after is 4, not None",
        ]
    else:
        options[1] = ["--data-dir", prepare_300w(other, train=5, validation=3)]
        named = [
            f"data.images.{split} is '"
            for split in ("train 300w/train", "validation 300w/validation")
        ]
    command = [sys.executable, "-m", "rednet_jax", "train", path, "--mesh", "data=4"]
    command += ["--run-dir", run, "--processes", 2]
    with Processes(
        tmp_path,
        lambda port, number: [
            *(*command, *options[number]),
            *("--coordinator", f"localhost:{port}", "--process-id", number),
        ],
    ) as processes:
        assert processes.statuses() == [2, 2]
        for number in (0, 1):
            assert_error(processes.errors(number), "process 1 differs from process 0: ")
            (line,) = processes.errors(number)
            assert all(text in line for text in named) and line.count(" is ") == len(named)
    assert not run.exists()


def state_at(path: Path, run: Path, step: int) -> TrainState:
    """The newest checkpoint, which must be of this step, on one device of this process."""
    single_device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(functools.partial(initial_train_state, load_experiment(path)))
    with Checkpoints(run / "checkpoints", keep=1) as checkpoints:
        assert checkpoints.latest == step
        like = jax.tree.map(lambda leaf: leaf.update(sharding=single_device), shapes)
        return checkpoints.load(step, like)[0]


def losses(run: Path) -> dict[int, float]:
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


@pytest.mark.slow
def test_a_run_of_two_processes_that_is_killed_and_preempted_ends_bit_for_bit_the_same(
    path, data_dir, tmp_path
):
    train = functools.partial(rednet_train, path)
    mesh = "--mesh", "data=2,fsdp=2"
    whole, run = tmp_path / "whole" / "run", tmp_path / "stopped" / "run"
    with train(whole, data_dir, *mesh) as processes:
        assert processes.statuses() == [0, 0]
        assert "step" in processes.out(0) and "step" not in processes.out(1)

    with train(run, data_dir, *mesh) as processes:
        processes.wait_until((run / "checkpoints" / "4").exists)
        processes.kill(0)
        assert processes.statuses(SOON) == [-signal.SIGKILL, LOST]
        assert_error(processes.errors(1), "process 1 of 2: process 0 has ended")

    single = tmp_path / "single"
    shutil.copytree(run, single)

    with train(run, data_dir, *mesh) as processes:
        # Before the first step, when JAX could miss a signal.
        processes.wait_until(lambda: "compiling" in processes.out(0))
        processes.kill(1, signal.SIGTERM)
        assert processes.statuses() == [0, 0]
        begun, stopped = (
            int(re.search(pattern, processes.out(0))[1])
            for pattern in (r"resumes at step (\d+)", r"step (\d+): stopped")
        )
        assert begun < stopped < STEPS
        state_at(path, run, stopped)

    with train(run, data_dir, *mesh) as processes:
        assert processes.statuses() == [0, 0]
        assert f"resumes at step {stopped}" in processes.out(0)
    both = (jax.tree.leaves(state_at(path, folder, STEPS)) for folder in (run, whole))
    assert all(map(np.array_equal, *both)), "differs from the uninterrupted run"

    # A single process resumes the run of two; sums in another order round differently.
    experiment = dataclasses.replace(load_experiment(path), mesh=MeshConfig(data=4))
    loop.train(experiment, single, data_dir=data_dir, stop_after=begun + 4)
    actual, expected = (losses(folder) for folder in (single, whole))
    assert max(actual) == begun + 4
    np.testing.assert_allclose(
        [actual[step] for step in actual], [expected[step] for step in actual], rtol=1e-5
    )


@pytest.mark.slow
def test_a_face_with_a_label_of_nan_is_named_by_all_processes(path, data_dir, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(data_dir, data)
    Inputs(load_experiment(path), data)
    (labels,) = (data / "crops").glob("300w-train-*/labels.npz")
    arrays = dict(np.load(labels))
    arrays["landmarks"][list(arrays["names"]).index("helen/trainset/face4"), 30] = np.nan
    np.savez(labels, **arrays)
    with rednet_train(path, tmp_path / "run", data, "--mesh", "data=4") as processes:
        assert processes.statuses() == [2, 2]
        for number in (0, 1):
            (line,) = processes.errors(number)
            named = re.search(r"not finite at step \d, faces: (.*); no checkpoint yet", line)[1]
            assert set(named.split(", ")) == {"helen/trainset/face4"}
