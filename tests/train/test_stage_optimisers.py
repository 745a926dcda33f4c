"""Stages with optimisers of different states: layout on devices, checkpoints and resumption."""

from __future__ import annotations

import dataclasses

import jax
import optax
import pytest
from train.runs import assert_same, saved

from rednet_jax.train import sharding
from rednet_jax.train.experiment import Experiment, MeshConfig
from rednet_jax.train.loop import train
from rednet_jax.train.state import initial_opt_state

pytestmark = pytest.mark.usefixtures("without_report")


@pytest.fixture(scope="module")
def experiment(experiment, narrow) -> Experiment:
    """Two steps of AdamW, then two of Lion, which has one moment instead of two."""
    (stage,) = experiment.stages
    adamw = dataclasses.replace(stage.optimiser, warmup_steps=1)
    lion = dataclasses.replace(adamw, transformation=optax.lion)
    return dataclasses.replace(
        experiment,
        name="optimisers",
        model=narrow("compact", feedback_steps=1),
        stages=tuple(
            dataclasses.replace(stage, name=name, steps=2, one_pass_steps=2, optimiser=optimiser)
            for name, optimiser in (("adamw", adamw), ("lion", lion))
        ),
        evaluate_every=100,
    )


@pytest.mark.parametrize(
    ("parallel", "mesh"), [("jit", MeshConfig(fsdp=2)), ("pmap", MeshConfig(data=2))]
)
def test_a_run_trains_and_resumes_in_each_stage(
    experiment, data_dir, tmp_path, monkeypatch, parallel, mesh
):
    monkeypatch.setattr(sharding, "SMALLEST", 64)
    meshed = dataclasses.replace(experiment, mesh=mesh)
    whole = train(meshed, tmp_path / "whole", data_dir=data_dir, parallel=parallel)
    lion = initial_opt_state(meshed.stages[1], whole.params)
    assert jax.tree.structure(whole.opt_state) == jax.tree.structure(lion)
    # Within the first stage, at its end, and within the second.
    for stop in 1, 2, 3, 4:
        stopped = train(
            meshed, tmp_path / "run", data_dir=data_dir, parallel=parallel, stop_after=stop
        )
        assert int(stopped.step) == saved(tmp_path / "run")[-1] == stop
    assert_same(stopped, whole)
