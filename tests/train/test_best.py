"""The best weights of a run that is taken back to a step."""

from __future__ import annotations

import shutil

import jax
import pytest
from train.runs import assert_same

from rednet_jax.train import loop, validation
from rednet_jax.train.checkpoints import Checkpoints
from rednet_jax.train.loop import train
from rednet_jax.weights.store import load

pytestmark = pytest.mark.usefixtures("without_report")


def test_best_weights_of_a_step_that_runs_again_are_replaced(
    finished, experiment, data_dir, tmp_path, monkeypatch, capsys
):
    nmes = iter([[3.0], [3.5], [9.0, 2.5], [9.0, 4.0]])
    monkeypatch.setattr(validation, "validation_nme", lambda *_: next(nmes))
    monkeypatch.setattr(loop, "Checkpoints", lambda folder, keep: Checkpoints(folder, 9))
    run, other = tmp_path / "run", tmp_path / "other"
    train(experiment, run, data_dir=data_dir, stop_after=15)
    with Checkpoints(run / "checkpoints", 9) as checkpoints:
        state, _ = checkpoints.load(5, jax.eval_shape(lambda: finished.state))
    shutil.copytree(run, other)
    shutil.rmtree(other / "checkpoints" / "5")
    capsys.readouterr()

    train(experiment, run, data_dir=data_dir, from_step=10, stop_after=11)
    assert_same(load(str(run))[1], state.average)
    best = run / "best.safetensors"
    line = f"{best}: now has the weights of step 5, because step 15 runs again\n"
    assert line in capsys.readouterr().out

    # Without the checkpoint of step 5, there are no weights with an NME of 3.0 or less.
    best = other / "best.safetensors"
    superseded = best.read_bytes()
    train(experiment, other, data_dir=data_dir, from_step=10, stop_after=15)
    assert not best.exists()
    assert best.with_name("best.safetensors.superseded").read_bytes() == superseded
    reason = "step 15 runs again, and there is no intact checkpoint of the best step before, 5"
    line = f"{best}: renamed to best.safetensors.superseded, because {reason}\n"
    assert line in capsys.readouterr().out
