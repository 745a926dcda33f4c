"""Average, schedule and statistics of passes not run yet."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rednet_jax.train.experiment import OptimiserConfig
from rednet_jax.train.state import averaged, followed, optimiser


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
