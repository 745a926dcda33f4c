"""Everything that training carries from step to step, and how it begins."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from rednet_jax.errors import RednetError
from rednet_jax.fields import shown
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.rednet import by_path, mismatch, shapes_of
from rednet_jax.train.experiment import Experiment, OptimiserConfig, Stage
from rednet_jax.train.streams import Stream, root
from rednet_jax.weights import store

Tree = Any


class TrainState(NamedTuple):
    """A pytree; all of it goes into a checkpoint, and nothing else is needed to resume.

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


def learning_rate(config: OptimiserConfig, steps: int) -> optax.Schedule:
    """Returns the schedule: from the steps done in a stage to the next one's learning rate.

    Args:
        config: the numbers.
        steps: where the cosine reaches 0.
    """
    return optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, config.warmup_steps, steps)


Norm = Callable[[Tree], Array]
"""The l2 norm of all arrays of a tree together, a scalar."""


def optimiser(
    config: OptimiserConfig, steps: int, norm: Norm = optax.tree.norm
) -> optax.GradientTransformation:
    """AdamW, or the config's own transformation, behind a clip of the gradient's norm.

    Its learning rate follows a warm-up and a cosine.

    Args:
        config: the numbers.
        steps: where the cosine reaches 0.
        norm: of a gradient.
    """

    def scale_by_part(updates: Tree, *, frozen_only: bool) -> Tree:
        """Zeroes the frozen parts, or multiplies each part by its factor."""
        factors = rates(config, updates)
        if frozen_only:
            factors = jax.tree.map(bool, factors)
        return jax.tree.map(jnp.multiply, updates, factors)

    def clip(updates: Tree) -> Tree:
        """`optax.clip_by_global_norm`, by the given norm."""
        length = norm(updates)
        return jax.tree.map(
            lambda x: lax.select(length < config.clip_norm, x, x / length * config.clip_norm),
            updates,
        )

    schedule = learning_rate(config, steps)
    if config.transformation is not None:
        moves = config.transformation(schedule)
    else:
        moves = optax.adamw(
            schedule,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            mask=lambda params: jax.tree.map(lambda x: x.ndim >= 2, params),
        )
    return optax.chain(
        # First of all: what does not move must not count in the norm that is clipped.
        optax.stateless(lambda updates, _: scale_by_part(updates, frozen_only=True)),
        optax.stateless(lambda updates, _: clip(updates)),
        moves,
        optax.stateless(lambda updates, _: scale_by_part(updates, frozen_only=False)),
    )


def rates(config: OptimiserConfig, tree: Tree) -> Tree:
    """Returns the factor on the learning rate of each array of a tree of the network's parts.

    Args:
        config: what is frozen (0), and what moves at another rate.
        tree: parameters or batch statistics, whole.
    """
    factors = config.factors()
    return jax.tree.map_with_path(
        lambda path, _: next((f for part, f in factors if _is_of(_path(path), part)), 1.0), tree
    )


def check_parts(experiment: Experiment) -> None:
    """Looks up the parts that the stages' optimisers name.

    Raises:
        RednetError: one is no part of the network.
    """
    params = jax.eval_shape(functools.partial(initial_train_state, experiment)).params
    paths = [_path(path) for path, _ in jax.tree.leaves_with_path(params)]
    for stage in experiment.stages:
        for part, _ in stage.optimiser.factors():
            if not any(_is_of(path, part) for path in paths):
                parts = ", ".join(sorted({path.split("/")[0] for path in paths}))
                raise RednetError(
                    f"{stage.name}: optimiser: '{part}' is no part of the network; known: {parts}"
                )


def _path(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _is_of(path: str, part: str) -> bool:
    return path == part or path.startswith(f"{part}/")


def stage_optimiser(stage: Stage, norm: Norm = optax.tree.norm) -> optax.GradientTransformation:
    """Returns the optimiser of a stage, which clips by a norm of gradients."""
    return optimiser(stage.optimiser, stage.steps, norm)


def initial_train_state(experiment: Experiment) -> TrainState:
    """Fresh weights from the experiment's seed."""
    variables = rednet.init(experiment.model, root(experiment.seed, Stream.PARAMS))
    opt_state = jax.device_put(initial_opt_state(experiment.stages[0], variables["params"]))
    # A copy: the step's buffers are donated, and one buffer cannot be given away twice.
    average = jax.device_put(variables, may_alias=False)
    return TrainState(jnp.int32(0), **variables, average=average, opt_state=opt_state)


def initial_opt_state(stage: Stage, params: Tree) -> Tree:
    """Returns the state of a stage's optimiser before its first step, as host arrays.

    AdamW's moments and counters begin as zeros, and zeros need no program of so many arrays
    compiled. Another transformation's beginning is computed.

    Args:
        stage: whose.
        params: of the network.
    """
    begin = stage_optimiser(stage).init
    if stage.optimiser.transformation is not None:
        return jax.jit(begin)(params)
    shapes = jax.eval_shape(begin, params)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def check_same_network(
    checkpoint: str,
    found: RedNetConfig,
    variables: Tree,
    config: RedNetConfig,
    fresh: Sequence[str] = (),
) -> None:
    """Refuses weights that do not fit a network.

    Args:
        checkpoint: where they are from.
        found: config of the checkpoint.
        variables: of the checkpoint.
        config: of the network.
        fresh: parts of the network that do not take the checkpoint's weights, or that only one of
            the two has.

    Raises:
        RednetError: they are of another network; names the fields in which the two differ.
    """
    known = {
        path.partition("/")[2] for tree in (shapes_of(config), variables) for path in by_path(tree)
    }
    for part in fresh:
        if not any(_is_of(path, part) for path in known):
            raise RednetError(f"fresh: '{part}' is no part of the network")
    if found.architecture == config.architecture and not mismatch(config, variables, fresh):
        return
    there, here = found.to_json(), config.to_json()
    differing = [name for name in here if there[name] != here[name]]

    def decides_arrays(name: str) -> bool:
        """Whether a network with this field changed, and no other, has other arrays."""
        try:
            changed = RedNetConfig.from_json({**there, name: here[name]})
        except RednetError:
            # It needs another field changed as well, which is then named if it decides arrays.
            return name == "architecture"
        return mismatch(changed, variables) is not None

    # Others, such as the crop's margin, may differ without harm.
    why = [name for name in differing if decides_arrays(name)] or differing
    told = "; ".join(
        f"model.{name} is {shown(there[name])} there, {shown(here[name])} here" for name in why
    )
    hint = ""
    if "scheme" in why:
        other = ",".join(_other_parts(variables, config))
        hint = f"; parts that differ can begin afresh: --fresh {other}"
    raise RednetError(f"{checkpoint}: holds another network than the experiment's: {told}{hint}")


def _other_parts(variables: Tree, config: RedNetConfig) -> list[str]:
    """Layers whose arrays a checkpoint has in other shapes, or not at all."""
    here, there = by_path(shapes_of(config)), by_path(variables)
    differing = [path for path, shape in here.items() if there.get(path) != shape]
    layers = {path.partition("/")[2].rpartition("/")[0] for path in differing}
    return sorted(layers)


def with_weights(
    state: TrainState,
    config: RedNetConfig,
    checkpoint: str,
    fingerprint: str,
    fresh: Sequence[str] = (),
) -> TrainState:
    """Returns a fresh state that begins with the weights of a checkpoint.

    Args:
        state: of `initial_train_state`.
        config: of its network.
        checkpoint: a released name, a safetensors file, or a run folder.
        fingerprint: that its weights must have.
        fresh: parts of the network that keep the weights of the state.

    Raises:
        RednetError: a checkpoint that cannot be read, of another network, or with other weights.
    """
    found, variables = store.load_with(config, checkpoint)
    check_same_network(checkpoint, found, variables, config, fresh)
    if store.fingerprint(variables) != fingerprint:
        raise RednetError(f"{checkpoint}: holds other weights than when the run started")
    if fresh:
        loaded = store.flat(variables)
        own = store.flat({"params": state.params, "batch_stats": state.batch_stats})
        variables = store.nested(
            {
                path: leaf
                if any(_is_of(path.partition("/")[2], part) for part in fresh)
                else loaded[path]
                for path, leaf in own.items()
            }
        )
    copies = [jax.tree.map(jnp.array, variables) for _ in range(2)]
    return state._replace(**copies[0], average=copies[1])


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
        passes: that the step ran over each image.
    """
    return jax.tree.map(lambda rows: rows.at[passes:].set(rows[:passes][-1]), batch_stats)
