"""`bench torch` on a narrow network: rows of all runtimes, and the check of equal outputs."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from rednet_jax.bench import pytorch, training_step
from rednet_jax.bench.machine import Timing
from rednet_jax.bench.pytorch import bench_torch
from rednet_jax.errors import RednetError
from rednet_jax.model.rednet import init

pytest.importorskip("torch", reason="torch is not installed: the extra [torch]")

pytestmark = pytest.mark.extras

QUICK = Timing(rounds=1, seconds=0.0)
SMALL = {"timing": QUICK, "compiled": False, "training_batch": 2}


@pytest.fixture(scope="module")
def moved(narrow):
    """A network with re-crops, and with feedback and regression off their initial values."""
    config = narrow("compact", recrop="similarity", context=1.5)
    variables = init(config, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf) + 0.02 * rng.standard_normal(leaf.shape, np.float32),
        variables["params"],
    )
    return config, {**variables, "params": params}


def test_rows_of_all_runtimes(moved):
    result = bench_torch(moved, batches=(2,), feedback_steps=(2,), training_steps=(2,), **SMALL)
    names = ["jax", "torch, eager", "torch, eager, channels_last"]
    rows = [(row["batch"], row["feedback_steps"], row["runtime"]) for row in result["inference"]]
    assert rows == [(2, 2, name) for name in names]
    assert all(row["difference_px"] <= 0.01 for row in result["inference"])
    # At K = 2, so that the gradient through two passes is compared.
    trained = [(row["feedback_steps"], row["runtime"]) for row in result["training"]]
    both = ["jax", "jax, passes unrolled", *names[1:], "jax, train_step"]
    assert trained == [(2, name) for name in both]
    for row in result["inference"] + result["training"]:
        assert row["ms"] > 0 and row["of_product"] > 0
        assert (row["over_jax"] == 1) == (row["runtime"] == "jax")
    others = [row["runtime"] for row in result["other_tools"] + result["left_out"]]
    assert sorted(others) == ["dlib", "mediapipe"]
    assert result["provenance"]["versions"]["torch"]
    command = "rednet bench torch --checkpoint CHECKPOINT --batch 2 --feedback-steps 2"
    assert result["provenance"]["command"] == command


def test_different_points_are_refused(moved, monkeypatch):
    predict = pytorch.predict_crops
    monkeypatch.setattr(
        pytorch, "predict_crops", lambda *args: (predict(*args)[0] + 0.02, predict(*args)[1])
    )
    with pytest.raises(RednetError, match=r"torch, eager: points differ from JAX's by 0\.02"):
        bench_torch(moved, batches=(2,), feedback_steps=(2,), training_steps=(), **SMALL)


def test_a_different_gradient_is_refused(moved, monkeypatch):
    monkeypatch.setattr(
        training_step,
        "_torch_step",
        lambda *args, **options: lambda: (np.float32(1), np.float32(1)),
    )
    with pytest.raises(RednetError, match="torch, eager: loss and gradient norm differ"):
        bench_torch(moved, batches=(), feedback_steps=(), training_steps=(2,), **SMALL)


def test_a_failing_compilation_is_left_out(moved, monkeypatch):
    import torch

    def refuse(*args, **options):
        def call(crops):
            raise RuntimeError("no compiler here\nbut a long tale")

        return call

    monkeypatch.setattr(torch, "compile", refuse)
    result = bench_torch(
        moved,
        batches=(2,),
        feedback_steps=(1, 2),
        training_steps=(),
        **{**SMALL, "compiled": True},
    )
    assert {"runtime": "torch.compile", "left_out": "no compiler here"} in result["left_out"]
    assert len(result["inference"]) == 6


def test_training_of_ijcv_resnet_is_left_out(narrow):
    config = narrow("ijcv_resnet")
    result = bench_torch(
        (config, init(config, jax.random.key(0))), batches=(), feedback_steps=(), **SMALL
    )
    assert result["training"] == []
    assert "training" in [row["runtime"] for row in result["left_out"]]
