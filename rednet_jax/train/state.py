"""The training state, its initial values, and the optimiser."""

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
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.variables import by_path, init, mismatch, shapes_of
from rednet_jax.train.experiment import Experiment, OptimiserConfig, Stage
from rednet_jax.train.streams import Stream, root
from rednet_jax.weights import store

Tree = Any


class TrainState(NamedTuple):
    """The training state, a pytree. A checkpoint holds it and the position of the batch reader.

    Attributes:
        step: int32 [], optimiser steps done.
        params: of the network.
        batch_stats: running statistics of the network.
        average: {'params', 'batch_stats'}, the averaged network that is evaluated and released.
        opt_state: of optax.
    """

    step: Array
    params: Tree
    batch_stats: Tree
    average: dict[str, Tree]
    opt_state: Tree


def learning_rate(config: OptimiserConfig, steps: int) -> optax.Schedule:
    """Returns the schedule, from the steps done in a stage to the learning rate of the next step.

    Args:
        config: of the stage.
        steps: of the stage, at which the cosine reaches 0.
    """
    return optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, config.warmup_steps, steps)


Norm = Callable[[Tree], Array]
"""Returns the l2 norm of all arrays of a tree, a scalar."""


def optimiser(
    config: OptimiserConfig, steps: int, norm: Norm = optax.tree.norm
) -> optax.GradientTransformation:
    """Returns AdamW, or the config's transformation, after clipping by the gradient's global norm.

    Args:
        config: of the stage.
        steps: of the stage, at which the learning rate reaches 0.
        norm: of a gradient.
    """

    def scale_by_part(updates: Tree, *, frozen_only: bool) -> Tree:
        """Multiplies each part by its factor; with `frozen_only`, only frozen parts, by 0."""
        factors = rates(config, updates)
        if frozen_only:
            factors = jax.tree.map(bool, factors)
        return jax.tree.map(jnp.multiply, updates, factors)

    def clip(updates: Tree) -> Tree:
        """`optax.clip_by_global_norm` with the given norm."""
        global_norm = norm(updates)
        return jax.tree.map(
            lambda x: lax.select(
                global_norm < config.clip_norm, x, x / global_norm * config.clip_norm
            ),
            updates,
        )

    schedule = learning_rate(config, steps)
    if config.transformation is not None:
        transformation = config.transformation(schedule)
    else:
        transformation = optax.adamw(
            schedule,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            mask=lambda params: jax.tree.map(lambda x: x.ndim >= 2, params),
        )
    return optax.chain(
        # First, so that gradients of frozen parts do not count in the norm that is clipped.
        optax.stateless(lambda updates, _: scale_by_part(updates, frozen_only=True)),
        optax.stateless(lambda updates, _: clip(updates)),
        transformation,
        optax.stateless(lambda updates, _: scale_by_part(updates, frozen_only=False)),
    )


def rates(config: OptimiserConfig, tree: Tree) -> Tree:
    """Returns the factor on the learning rate of each array of a tree; 0 for frozen parts.

    Args:
        config: of the stage.
        tree: all parameters, or all batch statistics.
    """
    factors = config.factors()
    return jax.tree.map_with_path(
        lambda path, _: next((f for part, f in factors if _is_of(_path(path), part)), 1.0), tree
    )


def check_parts(experiment: Experiment) -> None:
    """Checks the names of parts in the stages' optimisers.

    Raises:
        RednetError: a name is not that of a part of the network.
    """
    params = state_shapes(experiment, 0).params
    paths = [_path(path) for path, _ in jax.tree.leaves_with_path(params)]
    for stage in experiment.stages:
        for part, _ in stage.optimiser.factors():
            if not any(_is_of(path, part) for path in paths):
                parts = ", ".join(sorted({path.split("/")[0] for path in paths}))
                raise RednetError(
                    f"{stage.name}: optimiser: '{part}' is not a part of the network; known: "
                    f"{parts}"
                )


def _path(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _is_of(path: str, part: str) -> bool:
    return path == part or path.startswith(f"{part}/")


def stage_optimiser(stage: Stage, norm: Norm = optax.tree.norm) -> optax.GradientTransformation:
    """Returns the optimiser of a stage; it clips gradients by `norm`."""
    return optimiser(stage.optimiser, stage.steps, norm)


def initial_train_state(experiment: Experiment, stage: int = 0) -> TrainState:
    """Returns the state before the first step, with weights drawn from the experiment's seed.

    Args:
        experiment: of the run.
        stage: number of the stage that the state of the optimiser is for.
    """
    variables = init(experiment.model, root(experiment.seed, Stream.PARAMS))
    opt_state = jax.device_put(initial_opt_state(experiment.stages[stage], variables["params"]))
    # A copy: the state's buffers are donated to the step, and one buffer cannot be donated twice.
    average = jax.device_put(variables, may_alias=False)
    return TrainState(jnp.int32(0), **variables, average=average, opt_state=opt_state)


@functools.cache
def state_shapes(experiment: Experiment, stage: int) -> TrainState:
    """Returns shapes and types (`jax.ShapeDtypeStruct`) of the state in a stage.

    Args:
        experiment: of the run.
        stage: number of the stage; the states of two stages' optimisers may differ.
    """
    shapes: TrainState = jax.eval_shape(functools.partial(initial_train_state, experiment, stage))
    return shapes


def initial_opt_state(stage: Stage, params: Tree) -> Tree:
    """Returns the initial state of a stage's optimiser.

    AdamW's moments and counters are zeros, which are created on the host without compiling a
    program. The state of another transformation is computed.

    Args:
        stage: of the experiment.
        params: of the network.
    """
    init_optimiser = stage_optimiser(stage).init
    if stage.optimiser.transformation is not None:
        return jax.jit(init_optimiser)(params)
    shapes = jax.eval_shape(init_optimiser, params)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def check_same_network(
    checkpoint: str,
    checkpoint_config: RedNetConfig,
    variables: Tree,
    config: RedNetConfig,
    fresh: Sequence[str] = (),
) -> None:
    """Checks that the weights of a checkpoint fit a network.

    Args:
        checkpoint: its name, for messages.
        checkpoint_config: of the checkpoint.
        variables: of the checkpoint.
        config: of the network.
        fresh: parts of the network that do not take the checkpoint's weights, or that only one of
            the two has.

    Raises:
        RednetError: they are of another network; the error names the fields that differ.
    """
    known = {
        path.partition("/")[2] for tree in (shapes_of(config), variables) for path in by_path(tree)
    }
    for part in fresh:
        if not any(_is_of(path, part) for path in known):
            raise RednetError(f"fresh: '{part}' is not a part of the network")
    if checkpoint_config.architecture == config.architecture and not mismatch(
        config, variables, fresh
    ):
        return
    theirs, ours = checkpoint_config.to_json(), config.to_json()
    differing = [name for name in ours if theirs[name] != ours[name]]

    def changes_shapes(name: str) -> bool:
        """Returns whether changing this field alone changes the shapes of variables."""
        try:
            changed = RedNetConfig.from_json({**theirs, name: ours[name]})
        except RednetError:
            # It cannot change without another field, which is named if it changes shapes.
            return name == "architecture"
        return mismatch(changed, variables) is not None

    # Fields such as the crop's margin may differ.
    named = [name for name in differing if changes_shapes(name)] or differing
    fields = "; ".join(
        f"model.{name} is {shown(ours[name])}, not {shown(theirs[name])} as in the checkpoint"
        for name in named
    )
    hint = ""
    if "scheme" in named:
        layers = ",".join(_differing_layers(variables, config))
        hint = f"; layers that differ can be initialised: --fresh {layers}"
    raise RednetError(f"{checkpoint}: holds another network than the experiment's: {fields}{hint}")


def _differing_layers(variables: Tree, config: RedNetConfig) -> list[str]:
    """Returns the layers with arrays that have other shapes, or are missing, in a checkpoint."""
    ours, theirs = by_path(shapes_of(config)), by_path(variables)
    differing = [path for path, shape in ours.items() if theirs.get(path) != shape]
    layers = {path.partition("/")[2].rpartition("/")[0] for path in differing}
    return sorted(layers)


def with_weights(
    state: TrainState,
    config: RedNetConfig,
    checkpoint: str,
    fingerprint: str,
    fresh: Sequence[str] = (),
) -> TrainState:
    """Returns an initial state with the weights of a checkpoint.

    Args:
        state: of `initial_train_state`.
        config: of its network.
        checkpoint: a released name, a safetensors file, or a run folder.
        fingerprint: expected fingerprint of its weights.
        fresh: parts of the network that keep the weights of the state.

    Raises:
        RednetError: the checkpoint cannot be read, is of another network, or has other weights.
    """
    checkpoint_config, variables = store.load_with(config, checkpoint)
    check_same_network(checkpoint, checkpoint_config, variables, config, fresh)
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
    """Returns the exponential average after a step.

    The decay is smaller in the first steps, so that initial weights have little influence. Batch
    statistics are averaged with the same decay, so that they are those of the averaged weights; the
    running statistics are those of the newest weights.
    """
    decay_now = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: old + (1 - decay_now) * (new - old), average, current)


def followed(batch_stats: Tree, passes: int) -> Tree:
    """Returns statistics [rows, C] with the row of the last pass copied to passes not yet run.

    Otherwise these rows would keep their initial values 0 and 1, and after an increase of the
    number of passes the averages would need thousands of steps to converge.

    Args:
        batch_stats: of the network.
        passes: number of passes that the step ran over each image.
    """
    return jax.tree.map(lambda rows: rows.at[passes:].set(rows[:passes][-1]), batch_stats)
