"""A small run: drawn faces, a narrow network, ten steps with one pass and ten with two."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from train.miniature_300w import prepare_300w

from rednet_jax.train import loop
from rednet_jax.train.experiment import DataConfig, Experiment, OptimiserConfig, Stage
from rednet_jax.train.loop import train
from rednet_jax.train.parallel import _sharded_step
from rednet_jax.train.sharding import make_mesh
from rednet_jax.train.state import TrainState


def compilations(experiment: Experiment) -> int:
    """Number of compilations of steps of the first stage so far."""
    mesh = make_mesh(experiment.mesh)
    return sum(_sharded_step(experiment, mesh, 0, passes)._cache_size() for passes in (1, 2))


class Run(NamedTuple):
    folder: Path
    state: TrainState
    compilations: int
    """Of training steps, during the run."""


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    return prepare_300w(tmp_path_factory.mktemp("300w"), train=6, validation=3)


@pytest.fixture(scope="session")
def experiment(narrow) -> Experiment:
    return Experiment(
        name="miniature",
        model=narrow("compact"),
        stages=(
            Stage(
                data=DataConfig(cached_size=80, cover=1.3),
                optimiser=OptimiserConfig(learning_rate=5e-3, warmup_steps=3),
                steps=20,
                one_pass_steps=10,
                batch=4,
            ),
        ),
        evaluate_every=5,
        log_every=2,
        keep=1,
    )


@pytest.fixture
def without_report(monkeypatch) -> None:
    """Skips the report: its plots take as long as twenty steps.

    The uninterrupted run and the runs of several stages write it.
    """
    monkeypatch.setattr(loop, "write_report", lambda run_dir: run_dir)


@pytest.fixture(scope="session")
def finished(experiment, data_dir, tmp_path_factory) -> Run:
    """The uninterrupted run."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    before = compilations(experiment)
    state = train(experiment, folder, data_dir=data_dir)
    return Run(folder, state, compilations(experiment) - before)
