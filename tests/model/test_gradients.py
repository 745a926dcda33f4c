"""Gradients through the two scans: against plain loops and finite differences, and their cost."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array
from model.loops import SCANS, SLOW_DEEP, SLOW_JOURNAL, Problem

from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig

Tree = Any
Compile = Callable[..., tuple[Problem, Any]]


@pytest.fixture(scope="module")
def gradients(shallow: Callable[..., RedNetConfig]) -> Compile:
    """A problem with an open loop and its compiled gradient, each compiled once for all tests."""

    @functools.cache
    def pose(preset: str, dtype: str, frames: int, passes: int, **changes: Any) -> Problem:
        # Its 68 maps are what most of the time of a step without optimisation goes to.
        points = 68 if preset == "ijcv_resnet" else 7
        config = shallow(preset, open_feedback_gradient=True, landmarks=points, **changes)
        return Problem(config, jnp.dtype(dtype), frames=frames, passes=passes)

    @functools.cache
    def compiled(form: str, remat: bool, *problem: Any, **changes: Any) -> tuple[Problem, Any]:
        posed = pose(*problem, **changes)
        params, stats = posed.variables["params"], posed.variables["batch_stats"]
        gradient = posed.gradient(SCANS[form], remat=remat)
        return posed, gradient.lower(params, stats).compile()

    def once(
        preset: str,
        dtype: str = "float64",
        form: str = "scan",
        *,
        remat: bool = False,
        frames: int = 2,
        passes: int = 2,
        **changes: Any,
    ) -> tuple[Problem, Any]:
        return compiled(form, remat, preset, dtype, frames, passes, **changes)

    return once


def distance(one: Tree, other: Tree) -> float:
    """Norm of the difference of two trees in units of the norm of the second."""
    pairs = list(zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
    apart = sum(np.sum(np.square(np.asarray(a) - np.asarray(b))) for a, b in pairs)
    return float(np.sqrt(apart / sum(np.sum(np.square(b)) for _, b in pairs)))


@jax.jit
def descend(params: Tree, gradient: Tree) -> Tree:
    """A step of at most 0.02 down the gradient."""
    rate = 0.02 / jnp.maximum(optax.tree.norm(gradient), 1)
    return jax.tree.map(lambda leaf, slope: leaf - rate * slope, params, gradient)


@pytest.mark.parametrize("preset", SLOW_JOURNAL)
def test_an_untrained_open_loop_shrinks_what_enters_it(
    shallow: Callable[..., RedNetConfig], preset: str
) -> None:
    """Else gradients grow with every pass and frame, until they are no numbers."""
    with jax.enable_x64(True):
        config = shallow(preset, open_feedback_gradient=True, recurrence="none")
        problem = Problem(config, jnp.float64, passes=1)

        @jax.jit
        def after_clip(z: Array) -> Array:
            _, state, _ = rednet.align_clip(
                config,
                problem.variables,
                problem.clips,
                problem.state._replace(feedback=z, passes=jnp.ones(problem.batch, jnp.int32)),
                feedback_steps=1,
                train=True,
            )
            return state.feedback

        keys = jax.random.split(jax.random.key(2))
        z = jax.random.uniform(keys[0], problem.state.feedback.shape, jnp.float64)
        change = 1e-6 * jax.random.normal(keys[1], z.shape, jnp.float64)
        moved = after_clip(z + change) - after_clip(z)
        assert 0 < float(jnp.linalg.norm(moved) / jnp.linalg.norm(change)) < 1


@pytest.mark.parametrize(
    ("preset", "dtype"),
    [
        pytest.param("compact", "float32", marks=pytest.mark.slow),
        ("compact", "float64"),
        pytest.param("eccv_vgg", "float64", marks=pytest.mark.slow),
        pytest.param("eccv_vgg", "float32", marks=pytest.mark.slow),
        pytest.param("ijcv_resnet", "float32", marks=pytest.mark.slow),
        pytest.param("ijcv_resnet", "float64", marks=pytest.mark.slow),
    ],
)
def test_scans_equal_a_plain_loop(gradients: Compile, preset: str, dtype: str) -> None:
    """Value, gradient and statistics, at initialisation and after 20 steps of training.

    Float64 leaves no room for another formula; in float32 a pooling or an arg-max may take the
    other side of a near-tie, which moves the gradient by more than rounding does.
    """
    with jax.enable_x64(dtype == "float64"):
        forms = {name: gradients(preset, dtype, name)[1] for name in SCANS}
        variables = gradients(preset, dtype)[0].variables
        params, stats = variables["params"], variables["batch_stats"]
        tolerance = 1e-11 if dtype == "float64" else 1e-3
        for steps in (20, 0):
            results = {name: form(params, stats) for name, form in forms.items()}
            (value, moved), gradient = results["python"]
            for name in ("scan", "unrolled scan"):
                (other_value, other_moved), other_gradient = results[name]
                assert distance(other_value, value) < tolerance, name
                assert distance(other_moved, moved) < tolerance, name
                assert distance(other_gradient, gradient) < tolerance, name
            for _ in range(steps):
                (_, stats), gradient = forms["scan"](params, stats)
                params = descend(params, gradient)


@pytest.mark.parametrize("preset", SLOW_DEEP)
def test_remat_changes_nothing(gradients: Compile, preset: str) -> None:
    with jax.enable_x64(True):
        problem, kept = gradients(preset)
        _, again = gradients(preset, remat=True)
        params, stats = problem.variables["params"], problem.variables["batch_stats"]
        assert distance(again(params, stats), kept(params, stats)) < 1e-11


@pytest.mark.parametrize("preset", SLOW_JOURNAL)
def test_gradient_agrees_with_finite_differences(gradients: Compile, preset: str) -> None:
    """Along random directions through both scans; the loop must be open, or z would stand still.

    In steps so small that no ReLU and no pooling changes sides: the loss has kinks there, and jumps
    where unpooling follows. Steps of 1e-6 meet some in every direction, of 1e-8 in a few.
    """
    with jax.enable_x64(True):
        problem, gradient_of = gradients(preset)
        params, stats = problem.variables["params"], problem.variables["batch_stats"]
        if preset == "ijcv_resnet":
            # Its confidence takes the peaks under stop_gradient, which differences cannot see.
            params = {**params, "readout": jax.tree.map(jnp.zeros_like, params["readout"])}
        (_, _), gradient = gradient_of(params, stats)
        value = jax.jit(lambda p: problem.loss(p, stats)[0])
        along = jax.jit(lambda p, d, s: jax.tree.map(lambda one, way: one + s * way, p, d))
        for seed in range(3):
            rng, size = np.random.default_rng(seed), 2e-9
            # NumPy compiles nothing for each of so many shapes.
            direction = jax.tree.map(
                lambda leaf, r=rng: 0.1 * r.standard_normal(leaf.shape), params
            )
            ahead, behind = (value(along(params, direction, s)) for s in (size, -size))
            products = jax.tree.map(np.vdot, gradient, direction)
            slope = sum(jax.tree.leaves(products))
            np.testing.assert_allclose((ahead - behind) / (2 * size), slope, rtol=1e-5)


@pytest.mark.parametrize("preset", SLOW_DEEP)
def test_memory_of_a_training_step_is_flat(gradients: Compile, preset: str) -> None:
    """With `remat`: what is needed beside the carried states of T frames and K passes.

    K is counted from 2: with one pass there is no inner loop, which costs its own set of gradient
    accumulators and one more copy of what it carries, once, however often it runs.
    """

    def temporaries(frames: int, passes: int) -> float:
        problem, compiled = gradients(preset, remat=True, frames=frames, passes=passes)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(problem.state))
        memory: int = compiled.memory_analysis().temp_size_in_bytes
        return memory - (frames + passes) * size

    with jax.enable_x64(True):
        few = temporaries(2, 2)
        assert temporaries(2, 4) < 1.15 * few
        assert temporaries(8, 2) < 1.15 * few


@pytest.mark.parametrize("preset", SLOW_DEEP)
def test_compiled_loops_hold_no_slow_convolution(gradients: Compile, preset: str) -> None:
    """On the CPU every convolution of the gradient has the one layout that is fast in a loop.

    At 128 px, where the smallest maps are larger than a kernel: below, XLA swaps the two.
    """
    text = gradients(preset, "float32", passes=1, image_size=128)[1].as_text()
    assert "while(" in text
    assert set(re.findall(r"dim_labels=(\S+?)[,\s]", text)) == {"b01f_01io->b01f"}
