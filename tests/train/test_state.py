"""Averaged weights, learning rate, optimiser state, and statistics of passes not yet run."""

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


def test_the_average_of_a_constant_is_constant():
    tree = {"a": jnp.full(3, 2.0)}
    for step in (0, 5, 10_000):
        np.testing.assert_array_equal(averaged(tree, tree, jnp.int32(step), 0.999)["a"], tree["a"])


def test_the_decay_of_the_average_is_smaller_in_the_first_steps():
    values = np.random.default_rng(0).normal(size=2_000)
    average, expected = {"a": jnp.float32(7.0)}, 7.0
    step_fn = jax.jit(averaged, static_argnums=3)
    for step, value in enumerate(values):
        average = step_fn(average, {"a": jnp.float32(value)}, jnp.int32(step), 0.99)
        decay = min(0.99, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert float(average["a"]) == pytest.approx(expected, abs=1e-5)
    # After the first step a tenth of the initial value remains.
    first = averaged({"a": jnp.float32(1.0)}, {"a": jnp.float32(0.0)}, jnp.int32(0), 0.99)
    assert float(first["a"]) == pytest.approx(0.1)


def updates_of(config, steps):
    """AdamW's updates of a weight and a scale whose gradient is 1 in every step."""
    params = {"kernel": jnp.ones((1, 1)), "scale": jnp.ones(1)}
    transform = optimiser(config, steps)
    state = transform.init(params)
    rows = []
    for _ in range(steps + 1):
        gradients = jax.tree.map(jnp.ones_like, params)
        updates, state = transform.update(gradients, state, params)
        rows.append({name: float(value.ravel()[0]) for name, value in updates.items()})
    return rows


def test_the_schedule_warms_up_and_ends_at_zero():
    config = OptimiserConfig(learning_rate=0.1, warmup_steps=4, weight_decay=0, clip_norm=10)
    sizes = [-update["scale"] for update in updates_of(config, 20)]
    np.testing.assert_allclose(sizes[:5], [0, 0.025, 0.05, 0.075, 0.1], rtol=1e-4)
    assert all(a > b for a, b in itertools.pairwise(sizes[4:]))
    assert sizes[12] == pytest.approx(0.05, rel=1e-4), "half the rate half-way"
    assert sizes[20] == 0


def test_weight_decay_applies_to_kernels_alone():
    config = OptimiserConfig(learning_rate=0.1, warmup_steps=1, weight_decay=0.5, clip_norm=10)
    at_peak = updates_of(config, 10)[1]
    assert at_peak["kernel"] == pytest.approx(-0.1 * (1 + 0.5), rel=1e-4)
    assert at_peak["scale"] == pytest.approx(-0.1, rel=1e-4)


def test_passes_not_yet_run_have_the_statistics_of_the_last_pass():
    stats = {
        "stem": jnp.asarray([[1.0, 2.0]]),
        "loop": jnp.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
    }
    for passes, rows in ((1, [0, 0, 0]), (2, [0, 1, 1]), (3, [0, 1, 2]), (5, [0, 1, 2])):
        after = followed(stats, passes)
        np.testing.assert_array_equal(after["stem"], stats["stem"])
        np.testing.assert_array_equal(after["loop"], stats["loop"][jnp.asarray(rows)])


def test_the_initial_optimiser_state_equals_that_of_optax():
    experiment = load_experiment(SMOKE)
    params = {"stem": {"kernel": jnp.ones((3, 3, 4, 5))}, "norm": {"scale": jnp.ones(5)}}
    ours = initial_opt_state(experiment.stages[0], params)
    expected = stage_optimiser(experiment.stages[0]).init(params)
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, ours, expected)
    assert all(
        a.dtype == b.dtype for a, b in zip(*map(jax.tree.leaves, (ours, expected)), strict=True)
    )


def test_the_initial_state_is_the_same_on_a_mesh_and_shares_no_buffers(monkeypatch):
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
    assert len(set(pointers)) == len(pointers), "each buffer is donated to the step"


def test_eval_shape_gives_the_shapes_of_the_initial_state():
    experiment = load_experiment(SMOKE)
    shapes = jax.eval_shape(functools.partial(initial_train_state, experiment))
    state = initial_train_state(experiment)
    assert jax.tree.structure(shapes) == jax.tree.structure(state)
    expected = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)]
    assert [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(shapes)] == expected
