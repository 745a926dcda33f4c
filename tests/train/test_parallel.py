"""A training step on many devices equals the step on one."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from train.miniature_300w import draw_face

from rednet_jax.data.pipeline import ClipConfig
from rednet_jax.data.synthetic.generate import SyntheticConfig
from rednet_jax.errors import RednetError
from rednet_jax.model import passes
from rednet_jax.train import sharding
from rednet_jax.train.draw import GeneratedFaces, GeneratedRows
from rednet_jax.train.experiment import (
    Experiment,
    GeneratedData,
    MeshConfig,
    OptimiserConfig,
    Stage,
)
from rednet_jax.train.load import load_experiment
from rednet_jax.train.parallel import devices
from rednet_jax.train.sharding import make_mesh, partition_spec
from rednet_jax.train.state import initial_train_state
from rednet_jax.train.step import train_step

STEPS = 3


@pytest.fixture(scope="module", autouse=True)
def without_unrolling():
    """Passes are not unrolled, so that there are half as many layers to compile; batches are split
    over devices in the same way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "_UNROLLED", 1)
        yield


@pytest.fixture(scope="module")
def experiment(narrow):
    stage = Stage(
        steps=10,
        data=GeneratedData(SyntheticConfig(size=64)),
        # With a smaller epsilon, Adam would make full steps in the direction of rounding errors
        # where gradients are 0.
        optimiser=OptimiserConfig(learning_rate=5e-3, warmup_steps=1, epsilon=1e-3),
        batch=8,
    )
    # No other test has 3 identities, so none has compiled unrolled passes for this experiment.
    return Experiment("miniature", narrow("compact", identities=3), (stage,))


@functools.cache
def faces(frames=None):
    """Eight faces in place of generated ones: the generator takes longer to compile than a step.

    With `frames`, eight clips of different faces.
    """
    images, landmarks = zip(*map(draw_face, range(8 * (frames or 1))), strict=True)
    batch = GeneratedFaces(np.stack(images).astype(np.float32) / 255, np.stack(landmarks))
    if frames is None:
        return batch
    return jax.tree.map(lambda leaf: leaf.reshape(8, frames, *leaf.shape[1:]), batch)


def faces_of(experiment):
    (stage,) = experiment.stages
    return faces(stage.clips and stage.clips.frames)


def after_some_steps(experiment, parallel="jit", passes=2):
    placed = devices(experiment, parallel)
    state = placed.place(initial_train_state(experiment))
    step = placed.step(0, passes)
    for _ in range(STEPS):
        state, metrics = step(state, faces_of(experiment))
    return jax.device_get(placed.gathered(state)), jax.device_get(metrics), state


@pytest.fixture(scope="module")
def alone(experiment):
    return after_some_steps(experiment)


def with_mesh(experiment, **axes):
    return dataclasses.replace(experiment, mesh=MeshConfig(**axes))


def assert_close(actual, expected):
    """Up to the rounding of sums in another order, which three steps amplify."""
    for (path, a), b in zip(
        jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True
    ):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("axes", "parallel"),
    [
        pytest.param({"data": 4}, "jit", marks=pytest.mark.slow),
        pytest.param({"fsdp": 4}, "jit", marks=pytest.mark.slow),
        ({"data": 2, "fsdp": 2}, "jit"),
        pytest.param({"data": 2, "fsdp": 4}, "jit", marks=pytest.mark.slow),
        ({"data": 4}, "pmap"),
        pytest.param({"data": 8}, "pmap", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_steps_on_many_devices_equal_those_on_one(experiment, alone, monkeypatch, axes, parallel):
    monkeypatch.setattr(sharding, "SMALLEST", 64)
    state, metrics, laid_out = after_some_steps(with_mesh(experiment, **axes), parallel)
    assert_close(state, alone[0])
    assert set(metrics) == set(alone[1])
    assert_close(metrics, alone[1])
    fsdp = axes.get("fsdp", 1)
    sharded = [leaf for leaf in jax.tree.leaves(laid_out) if not leaf.is_fully_replicated]
    if parallel == "jit":
        # Parameters, their average and both moments: four trees with the same shardings.
        assert len(sharded) % 4 == 0 and (len(sharded) > 40) == (fsdp > 1)
        for leaf in sharded:
            assert leaf.addressable_shards[0].data.size * fsdp == leaf.size


@pytest.mark.slow
def test_smoke_on_a_mesh_equals_smoke_on_one_device():
    smoke = load_experiment(Path(__file__).parents[2] / "experiments" / "smoke.py")
    states = []
    for mesh in (MeshConfig(), MeshConfig(2, 2)):
        placed = devices(dataclasses.replace(smoke, mesh=mesh), "jit")
        state, step = placed.place(initial_train_state(smoke)), placed.step(0, 2)
        for _ in range(8):
            state, _ = step(state, GeneratedRows(np.arange(16, dtype=np.int32)))
        states.append(jax.device_get(state.params))
    for single, meshed in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(meshed, single, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_the_moments_of_a_batch_are_global(experiment, alone):
    """Statistics of parts of two faces differ from those of the batch by far more than rounding."""
    (stage,) = experiment.stages
    small = dataclasses.replace(experiment, stages=(dataclasses.replace(stage, accumulate=4),))
    state, _, _ = after_some_steps(small)
    mean = jax.tree.leaves(alone[0].batch_stats)
    differences = [
        np.abs(a - b).max() for a, b in zip(jax.tree.leaves(state.batch_stats), mean, strict=True)
    ]
    assert max(differences) > 1e-2


def by_device(experiment, **changes):
    (stage,) = experiment.stages
    stage = dataclasses.replace(stage, batch_statistics="device", **changes)
    return dataclasses.replace(experiment, stages=(stage,))


def mean_of_quarters(gradient):
    """The mean gradient and statistics of four networks, each with a quarter of the batch."""

    def averaged(params, batch_stats, step, batch):
        quarters = jax.tree.map(lambda leaf: leaf.reshape(4, -1, *leaf.shape[1:]), batch)
        gradients, stats, faces = jax.lax.map(
            lambda quarter: gradient(params, batch_stats, step, quarter), quarters
        )
        mean = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), (gradients, stats))
        return *mean, jax.tree.map(lambda leaf: leaf.reshape(-1), faces)

    return averaged


def with_quarters(experiment):
    (stage,) = experiment.stages
    step = jax.jit(functools.partial(train_step, experiment, stage, 2, spread=mean_of_quarters))
    state = initial_train_state(experiment)
    for _ in range(STEPS):
        state, metrics = step(state, faces_of(experiment))
    return jax.device_get(state), jax.device_get(metrics)


def assert_equal_on_all_devices(state, devices):
    """Replicated arrays, and shards with copies on several devices, are equal bit for bit."""
    for leaf in jax.tree.leaves(state):
        copies = {}
        for shard in leaf.addressable_shards:
            # Under pmap the first axis is over devices.
            mapped = leaf.ndim and shard.data.shape[0] == 1 and leaf.shape[0] == devices
            copies.setdefault("" if mapped else str(shard.index), []).append(shard.data)
        assert sum(map(len, copies.values())) == devices
        for first, *rest in copies.values():
            for copy in rest:
                np.testing.assert_array_equal(first, copy)


@pytest.fixture(scope="module")
def quarters(experiment):
    return with_quarters(by_device(experiment))


@pytest.mark.parametrize(
    ("axes", "parallel"),
    [
        ({"data": 2, "fsdp": 2}, "jit"),
        pytest.param({"data": 4}, "jit", marks=pytest.mark.slow),
        ({"data": 4}, "pmap"),
    ],
    ids=str,
)
def test_statistics_of_devices_are_those_of_their_shares_of_the_batch(
    experiment, alone, quarters, monkeypatch, axes, parallel
):
    monkeypatch.setattr(sharding, "SMALLEST", 64)
    many = with_mesh(by_device(experiment), **axes)
    state, metrics, laid_out = after_some_steps(many, parallel)
    assert_close(state, quarters[0])
    assert_close(metrics, quarters[1])
    assert_equal_on_all_devices(laid_out, 4)
    # The moments of two faces differ from those of eight.
    whole = jax.tree.leaves(alone[0].batch_stats)
    pairs = zip(jax.tree.leaves(state.batch_stats), whole, strict=True)
    assert max(np.abs(a - b).max() for a, b in pairs) > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{"accumulate": 2}, {"clips": ClipConfig(frames=2)}, {"statistics": "running"}],
    ids=str,
)
def test_statistics_of_devices_with_accumulation_and_clips(experiment, monkeypatch, changes):
    monkeypatch.setattr(sharding, "SMALLEST", 64)
    # With seed 1, 5 of 576 weights of a kernel differ for clips: an activation is within rounding
    # of a kink.
    by_share = dataclasses.replace(by_device(experiment, **changes), seed=2)
    expected, expected_metrics = with_quarters(by_share)
    for axes, parallel in (({"data": 2, "fsdp": 2}, "jit"), ({"data": 4}, "pmap")):
        state, metrics, laid_out = after_some_steps(with_mesh(by_share, **axes), parallel)
        assert_close(state, expected)
        assert_close(metrics, expected_metrics)
        assert_equal_on_all_devices(laid_out, 4)


@pytest.mark.slow
@pytest.mark.parametrize("axes", [{"data": 4}, {"data": 2, "fsdp": 2}], ids=str)
def test_accumulated_gradients_equal_those_on_one_device(experiment, monkeypatch, axes):
    monkeypatch.setattr(sharding, "SMALLEST", 64)
    (stage,) = experiment.stages
    # With seed 0, 6 of 1,080 weights of a kernel differ: an activation is within rounding of a
    # kink.
    stages = (dataclasses.replace(stage, accumulate=2),)
    parts = dataclasses.replace(experiment, stages=stages, seed=1)
    expected, expected_metrics, _ = after_some_steps(parts)
    assert expected_metrics["loss_of_face"].shape == (8,)
    state, metrics, _ = after_some_steps(with_mesh(parts, **axes))
    assert_close(state, expected)
    assert_close(metrics, expected_metrics)


@pytest.mark.slow
def test_accumulation_is_the_mean_gradient_of_the_parts(experiment, alone):
    """The losses of faces are those of the parts alone, rows 0, 2, ... and rows 1, 3, ..."""
    (stage,) = experiment.stages
    parts = dataclasses.replace(stage, accumulate=2)
    half = dataclasses.replace(stage, batch=4)
    placed, small = (
        devices(dataclasses.replace(experiment, stages=(each,)), "jit") for each in (parts, half)
    )
    _, metrics = placed.step(0, 2)(initial_train_state(experiment), faces())
    for start in (0, 1):
        part = jax.tree.map(lambda leaf, first=start: leaf[first::2], faces())
        _, part_metrics = small.step(0, 2)(initial_train_state(experiment), part)
        np.testing.assert_allclose(
            metrics["loss_of_face"][start::2], part_metrics["loss_of_face"], rtol=1e-4
        )


@pytest.mark.slow
def test_with_bfloat16_state_and_metrics_are_float32(experiment, alone):
    half = dataclasses.replace(experiment, compute="bfloat16")
    state, metrics, _ = after_some_steps(half)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {
        np.dtype("float32"),
        np.dtype("int32"),
    }
    assert all(value.dtype == np.float32 for value in metrics.values())
    difference = abs(metrics["loss"] - alone[1]["loss"]) / alone[1]["loss"]
    assert 1e-5 < difference < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("axes", "parallel"), [({"data": 2, "fsdp": 2}, "jit"), ({"data": 4}, "pmap")], ids=str
)
def test_generated_faces_are_the_same_on_many_devices(experiment, axes, parallel):
    """Compared by the losses of faces in the first step, which are all different."""
    rows = GeneratedRows(np.arange(8, dtype=np.int32))
    losses = []
    for each, implementation in ((experiment, "jit"), (with_mesh(experiment, **axes), parallel)):
        placed = devices(each, implementation)
        state = placed.place(initial_train_state(each))
        losses.append(placed.step(0, 1)(state, rows)[1]["loss_of_face"])
    assert np.ptp(losses[0]) > 0.1
    np.testing.assert_allclose(*losses, rtol=1e-3)


def test_the_error_for_a_mesh_that_does_not_fit_has_the_numbers(experiment):
    with pytest.raises(RednetError, match="batch of 8 cannot be divided by mesh data=3,fsdp=1"):
        with_mesh(experiment, data=3)
    with pytest.raises(RednetError, match="data=8,fsdp=1 and accumulate=2"):
        stage = dataclasses.replace(experiment.stages[0], accumulate=2)
        dataclasses.replace(experiment, stages=(stage,), mesh=MeshConfig(8))
    stage = dataclasses.replace(experiment.stages[0], batch=64)
    large = dataclasses.replace(experiment, stages=(stage,), mesh=MeshConfig(8, 2))
    with pytest.raises(RednetError, match="data=8,fsdp=2 needs 16 devices, and there are 8"):
        make_mesh(large.mesh)
    with pytest.raises(RednetError, match="pmap has the axis data alone, not fsdp=2"):
        devices(with_mesh(experiment, fsdp=2), "pmap")


@pytest.mark.parametrize(
    ("path", "shape", "fsdp", "spec"),
    [
        ("params/encoder/conv/kernel", (3, 3, 64, 128), 4, P(None, None, None, "fsdp")),
        ("opt_state/1/0/mu/encoder/conv/kernel", (3, 3, 64, 128), 4, P(None, None, None, "fsdp")),
        ("params/identity/logits/kernel", (256, 300), 4, P(None, "fsdp")),
        ("params/identity/logits/kernel", (256, 301), 4, P()),
        ("params/encoder/conv/kernel", (3, 3, 3, 64), 4, P()),
        ("params/encoder/norm/scale", (2**15,), 4, P()),
        ("batch_stats/encoder/norm/mean", (2, 2**15), 4, P()),
        ("step", (), 4, P()),
    ],
)
def test_the_table_of_partition_specs(path, shape, fsdp, spec):
    assert partition_spec(path, shape, fsdp) == spec


def test_a_step_donates_its_state(experiment):
    placed = devices(experiment, "jit")
    state = placed.place(initial_train_state(experiment))
    placed.step(0, 2)(state, faces())
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
