"""Average, schedule and statistics of passes not run yet."""

import functools
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rednet_jax.train import sharding
from rednet_jax.train.experiment import OptimiserConfig
from rednet_jax.train.load import load_experiment
from rednet_jax.train.parallel import devices
from rednet_jax.train.state import (
    averaged,
    followed,
    initial_opt_state,
    initial_train_state,
    optimiser,
    stage_optimiser,
)

SMOKE = Path(__file__).parents[2] / "experiments" / "smoke.py"


def test_the_average_of_the_same_is_the_same():
    tree = {"a": jnp.full(3, 2.0)}
    for step in (0, 5, 10_000):
        np.testing.assert_array_equal(averaged(tree, tree, jnp.int32(step), 0.999)["a"], tree["a"])


def test_the_average_decays_as_told_and_faster_at_first():
    values = np.random.default_rng(0).normal(size=2_000)
    average, expected = {"a": jnp.float32(7.0)}, 7.0
    step_fn = jax.jit(averaged, static_argnums=3)
    for step, value in enumerate(values):
        average = step_fn(average, {"a": jnp.float32(value)}, jnp.int32(step), 0.99)
        decay = min(0.99, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert float(average["a"]) == pytest.approx(expected, abs=1e-5)
    # Nine tenths of the start are gone after the first step.
    first = averaged({"a": jnp.float32(1.0)}, {"a": jnp.float32(0.0)}, jnp.int32(0), 0.99)
    assert float(first["a"]) == pytest.approx(0.1)


def moves(config, steps):
    """How far AdamW moves a weight and a scale whose gradient is 1 at every step."""
    params = {"kernel": jnp.ones((1, 1)), "scale": jnp.ones(1)}
    transform = optimiser(config, steps)
    state = transform.init(params)
    taken = []
    for _ in range(steps + 1):
        gradients = jax.tree.map(jnp.ones_like, params)
        updates, state = transform.update(gradients, state, params)
        taken.append({name: float(value.ravel()[0]) for name, value in updates.items()})
    return taken


def test_the_schedule_warms_up_and_ends_at_zero():
    config = OptimiserConfig(learning_rate=0.1, warmup_steps=4, weight_decay=0, clip_norm=10)
    sizes = [-move["scale"] for move in moves(config, 20)]
    np.testing.assert_allclose(sizes[:5], [0, 0.025, 0.05, 0.075, 0.1], rtol=1e-4)
    assert all(a > b for a, b in itertools.pairwise(sizes[4:]))
    assert sizes[12] == pytest.approx(0.05, rel=1e-4), "half-way down a cosine is half the rate"
    assert sizes[20] == 0


def test_weight_decay_is_for_kernels_alone():
    config = OptimiserConfig(learning_rate=0.1, warmup_steps=1, weight_decay=0.5, clip_norm=10)
    at_peak = moves(config, 10)[1]
    assert at_peak["kernel"] == pytest.approx(-0.1 * (1 + 0.5), rel=1e-4)
    assert at_peak["scale"] == pytest.approx(-0.1, rel=1e-4)


def test_passes_not_run_yet_have_the_statistics_of_the_last_that_was():
    stats = {
        "stem": jnp.asarray([[1.0, 2.0]]),
        "loop": jnp.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
    }
    for passes, rows in ((1, [0, 0, 0]), (2, [0, 1, 1]), (3, [0, 1, 2]), (5, [0, 1, 2])):
        after = followed(stats, passes)
        np.testing.assert_array_equal(after["stem"], stats["stem"])
        np.testing.assert_array_equal(after["loop"], stats["loop"][jnp.asarray(rows)])


def test_the_optimisers_state_begins_as_optax_begins_it():
    experiment = load_experiment(SMOKE)
    params = {"stem": {"kernel": jnp.ones((3, 3, 4, 5))}, "norm": {"scale": jnp.ones(5)}}
    ours = initial_opt_state(experiment.stages[0], params)
    optaxs = stage_optimiser(experiment.stages[0]).init(params)
    assert jax.tree.structure(ours) == jax.tree.structure(optaxs)
    jax.tree.map(np.testing.assert_array_equal, ours, optaxs)
    assert all(
        a.dtype == b.dtype for a, b in zip(*map(jax.tree.leaves, (ours, optaxs)), strict=True)
    )


def test_the_state_begins_the_same_on_a_mesh_and_no_buffer_is_shared(monkeypatch):
    monkeypatch.setattr(sharding, "SMALLEST", 0)
    alone = load_experiment(SMOKE)
    state = initial_train_state(alone)
    meshed = load_experiment(SMOKE, {"mesh.data": "2", "mesh.fsdp": "2"})
    placed = devices(meshed, "jit")
    laid_out = placed.place(initial_train_state(meshed))
    jax.tree.map(np.testing.assert_array_equal, state, jax.device_get(laid_out))
    kernel = laid_out.params["regression"]["points"]["dense"]["kernel"]
    assert not kernel.sharding.is_fully_replicated
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(pointers)) == len(pointers), "each is donated to the step"


def test_shapes_of_the_state_are_those_of_the_state():
    experiment = load_experiment(SMOKE)
    shapes = jax.eval_shape(functools.partial(initial_train_state, experiment))
    state = initial_train_state(experiment)
    assert jax.tree.structure(shapes) == jax.tree.structure(state)
    described = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)]
    assert [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(shapes)] == described
