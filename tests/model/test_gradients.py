"""Gradients through the two scans: against Python loops and finite differences, and their cost."""

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
    """A problem with a gradient through z and its compiled gradient, cached for all tests."""

    @functools.cache
    def problem_of(preset: str, dtype: str, frames: int, passes: int, **changes: Any) -> Problem:
        # Without XLA's optimisation, most of the time of a step is spent on the 68 maps.
        points = 68 if preset == "ijcv_resnet" else 7
        config = shallow(preset, open_feedback_gradient=True, landmarks=points, **changes)
        return Problem(config, jnp.dtype(dtype), frames=frames, passes=passes)

    @functools.cache
    def compiled(form: str, remat: bool, *arguments: Any, **changes: Any) -> tuple[Problem, Any]:
        problem = problem_of(*arguments, **changes)
        params, stats = problem.variables["params"], problem.variables["batch_stats"]
        gradient = problem.gradient(SCANS[form], remat=remat)
        return problem, gradient.lower(params, stats).compile()

    def with_defaults(
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

    return with_defaults


def distance(actual: Tree, expected: Tree) -> float:
    """Norm of the difference of two trees, relative to the norm of the second."""
    pairs = list(zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True))
    squares = sum(np.sum(np.square(np.asarray(a) - np.asarray(b))) for a, b in pairs)
    return float(np.sqrt(squares / sum(np.sum(np.square(b)) for _, b in pairs)))


@jax.jit
def descend(params: Tree, gradient: Tree) -> Tree:
    """A step of gradient descent of length at most 0.02."""
    rate = 0.02 / jnp.maximum(optax.tree.norm(gradient), 1)
    return jax.tree.map(lambda leaf, slope: leaf - rate * slope, params, gradient)


@pytest.mark.parametrize("preset", SLOW_JOURNAL)
def test_an_untrained_open_loop_is_a_contraction(
    shallow: Callable[..., RedNetConfig], preset: str
) -> None:
    """Otherwise gradients grow with every pass and frame until they overflow."""
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
def test_scans_equal_python_loops(gradients: Compile, preset: str, dtype: str) -> None:
    """Value, gradient and statistics, at initialisation and after 20 steps of training.

    In float32 rounding can change the maximum of a pooling or an arg-max, which changes the
    gradient by more than rounding errors; so the tolerance for float32 is larger.
    """
    with jax.enable_x64(dtype == "float64"):
        forms = {name: gradients(preset, dtype, name)[1] for name in SCANS}
        variables = gradients(preset, dtype)[0].variables
        params, stats = variables["params"], variables["batch_stats"]
        tolerance = 1e-11 if dtype == "float64" else 1e-3
        for steps in (20, 0):
            results = {name: form(params, stats) for name, form in forms.items()}
            (value, new_stats), gradient = results["python"]
            for name in ("scan", "unrolled scan"):
                (scan_value, scan_stats), scan_gradient = results[name]
                assert distance(scan_value, value) < tolerance, name
                assert distance(scan_stats, new_stats) < tolerance, name
                assert distance(scan_gradient, gradient) < tolerance, name
            for _ in range(steps):
                (_, stats), gradient = forms["scan"](params, stats)
                params = descend(params, gradient)


@pytest.mark.parametrize("preset", SLOW_DEEP)
def test_remat_gives_the_same_gradient(gradients: Compile, preset: str) -> None:
    with jax.enable_x64(True):
        problem, without_remat = gradients(preset)
        _, with_remat = gradients(preset, remat=True)
        params, stats = problem.variables["params"], problem.variables["batch_stats"]
        assert distance(with_remat(params, stats), without_remat(params, stats)) < 1e-11


@pytest.mark.parametrize("preset", SLOW_JOURNAL)
def test_gradient_agrees_with_finite_differences(gradients: Compile, preset: str) -> None:
    """Along random directions through both scans, with gradients through z.

    Steps are so small that no ReLU and no pooling changes its branch: the loss has kinks there, and
    jumps where unpooling follows. Steps of 1e-6 cross some in every direction, of 1e-8 in a few.
    """
    with jax.enable_x64(True):
        problem, gradient_of = gradients(preset)
        params, stats = problem.variables["params"], problem.variables["batch_stats"]
        if preset == "ijcv_resnet":
            # Its confidence is a function of peaks under stop_gradient.
            params = {**params, "readout": jax.tree.map(jnp.zeros_like, params["readout"])}
        (_, _), gradient = gradient_of(params, stats)
        value = jax.jit(lambda p: problem.loss(p, stats)[0])
        step = jax.jit(lambda p, d, s: jax.tree.map(lambda leaf, way: leaf + s * way, p, d))
        for seed in range(3):
            rng, size = np.random.default_rng(seed), 2e-9
            # JAX would compile a program for each shape.
            direction = jax.tree.map(
                lambda leaf, r=rng: 0.1 * r.standard_normal(leaf.shape), params
            )
            ahead, behind = (value(step(params, direction, s)) for s in (size, -size))
            products = jax.tree.map(np.vdot, gradient, direction)
            slope = sum(jax.tree.leaves(products))
            np.testing.assert_allclose((ahead - behind) / (2 * size), slope, rtol=1e-5)


@pytest.mark.parametrize("preset", SLOW_DEEP)
def test_memory_of_a_training_step_is_flat(gradients: Compile, preset: str) -> None:
    """With `remat`, without the carried states of T frames and K passes.

    From K = 2: with one pass there is no inner loop, which takes one set of gradient accumulators
    and one more copy of its carry, for any K.
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
def test_compiled_loops_have_no_slow_convolution(gradients: Compile, preset: str) -> None:
    """On the CPU every convolution of the gradient has the one layout that is fast in a loop.

    At 128 px, where the smallest maps are larger than a kernel: for smaller maps XLA swaps the two.
    """
    text = gradients(preset, "float32", passes=1, image_size=128)[1].as_text()
    assert "while(" in text
    assert set(re.findall(r"dim_labels=(\S+?)[,\s]", text)) == {"b01f_01io->b01f"}
