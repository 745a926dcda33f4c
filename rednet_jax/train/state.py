"""Everything that training carries from step to step, and how it begins."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from rednet_jax.model import rednet
from rednet_jax.train.experiment import Experiment, OptimiserConfig

Tree = Any


class TrainState(NamedTuple):
    """A pytree; all of it goes into a checkpoint, and nothing else is needed to go on.

    Attributes:
        step: int32 [], optimiser steps done.
        params: of the network.
        batch_stats: running statistics of the network.
        average: {'params', 'batch_stats'}, the averaged network that is evaluated and released.
        opt_state: optax's.
    """

    step: Array
    params: Tree
    batch_stats: Tree
    average: dict[str, Tree]
    opt_state: Tree


def optimiser(config: OptimiserConfig, steps: int) -> optax.GradientTransformation:
    """AdamW behind a clip of the gradient's norm, on a warm-up and a cosine.

    Args:
        config: the numbers.
        steps: where the cosine reaches 0.
    """
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.warmup_steps, steps
    )
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            schedule,
            weight_decay=config.weight_decay,
            mask=lambda params: jax.tree.map(lambda x: x.ndim >= 2, params),
        ),
    )


@functools.partial(jax.jit, static_argnums=0)
def initial_train_state(experiment: Experiment) -> TrainState:
    """Fresh weights from the experiment's seed."""
    variables = rednet.init(experiment.model, jax.random.key(experiment.seed))
    params = variables["params"]
    opt_state = optimiser(experiment.optimiser, experiment.steps).init(params)
    # A copy: the step's buffers are donated, and one buffer cannot be given away twice.
    average = jax.tree.map(jnp.copy, {"params": params, "batch_stats": variables["batch_stats"]})
    return TrainState(jnp.int32(0), params, variables["batch_stats"], average, opt_state)


def averaged(average: Tree, current: Tree, step: Array, decay: float) -> Tree:
    """One step of the exponential average; early steps follow faster, so the start is forgotten.

    Batch statistics are averaged at the same pace as the weights: they then describe the weights
    of the same stretch of steps, where the plain running ones would describe the newest only.
    """
    decay_now = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: old + (1 - decay_now) * (new - old), average, current)


def followed(batch_stats: Tree, passes: int) -> Tree:
    """Statistics [rows, C] where passes not run yet have those of the last one that was.

    Left alone they would be an untrained network's, 0 and 1, and an average that begins there needs
    thousands of steps of the longer loop to forget them.

    Args:
        batch_stats: of the network.
        passes: that the step ran over each picture.
    """
    return jax.tree.map(lambda rows: rows.at[passes:].set(rows[:passes][-1]), batch_stats)
