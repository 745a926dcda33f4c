"""Programs with XLA's optimisation agree with the same programs without it, except for rounding.

A fusion of XLA's CPU backend has given wrong numbers in the augmentation before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model.loops import PRESETS, Problem

from rednet_jax.data.augment import Augmentation, augment
from rednet_jax.data.synthetic.generate import SyntheticConfig, generate
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.model import rednet

Tree = Any

UNOPTIMISED = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


def both(function: Callable[..., Tree], *arguments: Tree) -> tuple[Tree, Tree]:
    """Returns the outputs of a function compiled with and without optimisation."""
    lowered = jax.jit(function).lower(*arguments)
    programs = lowered.compile(), lowered.compile(compiler_options=UNOPTIMISED)
    assert programs[0].as_text() != programs[1].as_text()
    optimised, reference = (program(*arguments) for program in programs)
    return optimised, reference


def max_difference(first: Tree, second: Tree) -> float:
    """Returns the largest absolute difference of two trees."""
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return max(float(np.abs(np.asarray(a, float) - np.asarray(b, float)).max()) for a, b in pairs)


def test_augmentation() -> None:
    rng = np.random.default_rng(0)
    coarse = jax.random.uniform(jax.random.key(0), (4, 12, 12, 3))
    images = jax.image.resize(255 * coarse, (4, 80, 80, 3), "cubic").clip(0, 255).astype(jnp.uint8)
    points = 20 + 40 * IBUG68.shape + rng.normal(size=(4, 68, 2))
    draw = functools.partial(augment, Augmentation(), scheme=IBUG68, cover=1.3, margin=1.3, size=64)
    known = jnp.ones((4, 68), bool)
    keys = jax.random.split(jax.random.key(1), 4)
    optimised, reference = both(draw, keys, images, jnp.asarray(points, jnp.float32), known)
    assert max_difference(optimised[1:], reference[1:]) < 1e-3
    # Rounding can move the edge of a shadow or an occluder by a pixel.
    difference = jnp.abs(optimised[0] - reference[0])
    assert float((difference > 1e-3).mean()) < 1e-3


def test_generation_of_faces() -> None:
    draw = functools.partial(generate, SyntheticConfig(size=32))
    optimised, reference = both(jax.vmap(draw), jax.random.split(jax.random.key(0), 2))
    assert max_difference(optimised[1], reference[1]) < 1e-3
    assert float((jnp.abs(optimised[0] - reference[0]) > 1e-3).mean()) < 1e-2


@pytest.mark.parametrize("preset", PRESETS)
def test_a_step_of_the_network(shallow: Callable[..., Any], preset: str) -> None:
    problem = Problem(shallow(preset), frames=1)

    def step(variables: Tree, frames: jax.Array) -> Tree:
        out, state = rednet.step(problem.config, variables, problem.state, frames, feedback_steps=2)
        return out.response_maps, out.confidence, state.memory

    optimised, reference = both(step, problem.variables, problem.clips[:, 0])
    assert max_difference(optimised, reference) < 1e-3


def test_gradients(narrow: Callable[..., Any]) -> None:
    problem = Problem(narrow("compact"), frames=1)
    params, stats = (problem.variables[name] for name in ("params", "batch_stats"))
    gradient = jax.value_and_grad(problem.loss, has_aux=True)
    (optimised, reference) = both(gradient, params, stats)
    ((loss, _), gradients), ((expected_loss, _), expected) = optimised, reference
    assert abs(loss - expected_loss) < 1e-4 * abs(expected_loss)
    # Compared by norm, since max pooling at a near-tie may pass its gradient to another pixel.
    norms = [
        float(np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(tree))))
        for tree in (jax.tree.map(jnp.subtract, gradients, expected), expected)
    ]
    assert norms[0] < 1e-3 * norms[1]
