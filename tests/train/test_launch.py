"""The place of a process, from options or the environment, and the launch files."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from jax._src.clusters import cloud_tpu_cluster, cluster

from rednet_jax import cli
from rednet_jax.cli import values
from rednet_jax.errors import RednetError
from rednet_jax.train.distributed import find_place
from rednet_jax.train.load import load_experiment
from rednet_jax.train.peers import Place

LAUNCH = Path(__file__).parents[2] / "experiments" / "launch"

SLURM = {
    "SLURM_JOB_ID": "4099",
    "SLURM_STEP_NODELIST": "node[3-4]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}

TPU = {
    "TPU_WORKER_HOSTNAMES": "localhost,other",
    "TPU_WORKER_ID": "1",
    # JAX would query the machine's metadata for unset variables.
    "MEGASCALE_COORDINATOR_ADDRESS": "",
    "MEGASCALE_NUM_SLICES": "",
    "MEGASCALE_SLICE_ID": "",
}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch):
    """Removes the variables of a cluster that the tests may run on."""
    for name in (*SLURM, *TPU, "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "arguments", "place"),
    [
        ({}, (None, None, None), None),
        ({}, ("host:1234", 2, 1), Place("host", 1234, 2, 1)),
        ({}, ("[::1]:1234", 2, 0), Place("::1", 1234, 2, 0)),
        ({}, ("host:1234", 1, 0), None),
        # The shell of an allocation, where JAX itself would wait for three other processes.
        (SLURM, (None, None, None), None),
        (
            SLURM | {"SLURM_STEP_NUM_TASKS": "4"},
            (None, None, None),
            Place("node3", 61443, 4, 3, [1]),
        ),
        (SLURM, ("auto", None, None), Place("node3", 61443, 4, 3, [1])),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "4"}, (None, 1, None), None),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "4"}, ("host:1234", 2, 1), Place("host", 1234, 2, 1)),
        (
            SLURM | {"SLURM_STEP_NUM_TASKS": "4", "JAX_LOCAL_DEVICE_IDS": "0,1"},
            (None, None, None),
            Place("node3", 61443, 4, 3),
        ),
        (TPU, (None, None, None), Place("localhost", 8482, 2, 1)),
        (TPU | {"TPU_WORKER_HOSTNAMES": "localhost"}, (None, None, None), None),
    ],
)
def test_the_place_of_a_process(monkeypatch, environment, arguments, place):
    for module in (cluster, cloud_tpu_cluster):
        monkeypatch.setattr(module, "running_in_cloud_tpu_vm", environment.keys() >= TPU.keys())
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert find_place(*arguments) == place


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("host", 2, 0), "'host' is neither HOST:PORT nor auto"),
        ((":1234", 2, 0), "':1234' is neither"),
        (("host:70000", 2, 0), "'host:70000' is neither"),
        (("host:1234", None, 0), "host:1234 needs --processes and --process-id"),
        (("host:1234", 2, None), "host:1234 needs --processes and --process-id"),
        (("host:1234", 2, 2), "--process-id must be from 0 to 1, not 2"),
        (("host:1234", 0, 0), "--processes must be at least 1, not 0"),
        ((None, 2, None), "need --coordinator HOST:PORT"),
        (("auto", None, 1), "need --coordinator HOST:PORT"),
        (("auto", None, None), "JAX detects no SLURM, Open MPI, TPU or Kubernetes job"),
    ],
)
def test_invalid_arguments_are_one_line_errors(arguments, message):
    with pytest.raises(RednetError, match=re.escape(message)) as caught:
        find_place(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", sorted(path.name for path in LAUNCH.iterdir()))
def test_the_commands_of_launch_files_are_valid(file, monkeypatch):
    monkeypatch.chdir(LAUNCH.parents[1])
    text = (LAUNCH / file).read_text().replace("\\\n", " ").replace("$JOB_COMPLETION_INDEX", "1")
    ends = r'(?="|```|resources:|rednet train|\Z)'
    commands = re.findall(rf"rednet train (experiments/.*?){ends}", text, re.DOTALL)
    assert commands
    mounted = re.findall(r"mountPath: (\S+)", text)
    for command in commands:
        args, rest = cli.parser().parse_known_args(["train", *shlex.split(command)])
        load_experiment(args.experiment, {**args.mesh, **values.fields_of(rest)})
        if mounted:
            for folder in (args.run_dir, args.data_dir):
                assert any(folder.is_relative_to(mount) for mount in mounted)
        if args.coordinator != "auto":
            find_place(args.coordinator, args.processes, args.process_id)
