"""The training step on many devices: one program over a mesh (`jax.jit`), or `jax.pmap`.

In both, each device runs the loop on its own part of the batch, and all collectives are explicit.
If XLA inserted them, it would gather every kernel again in every backward pass, and all-reduce the
gradients of every pass before adding them up.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, Protocol

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from rednet_jax.compiler_options import generation_options, training_options
from rednet_jax.data.synthetic.generate import SyntheticConfig
from rednet_jax.errors import RednetError
from rednet_jax.train.collectives import (
    average_gradients,
    gather_batch,
    gather_params,
    sharded_norm,
)
from rednet_jax.train.draw import (
    GeneratedFaces,
    GeneratedRows,
    generate_batch,
    generator,
)
from rednet_jax.train.experiment import Experiment, Stage
from rednet_jax.train.sharding import P, batch_sharding, make_mesh, replicated, shardings
from rednet_jax.train.state import TrainState, state_shapes
from rednet_jax.train.step import Gradient, Metrics, train_step

Parallel = Literal["jit", "pmap"]
Step = Callable[[TrainState, Any], tuple[TrainState, Metrics]]
Generator = Callable[[Array, GeneratedRows], GeneratedFaces]
"""Maps the number of steps done before, and the rows of a batch, to its faces."""

_AXES = ("data",)

_NAME_BYTES = 256
"""Names of faces are cut to this length when they are gathered from all processes."""


class Devices(Protocol):
    """The layout of a state on devices, and the step over them."""

    def abstract(self, stage: int) -> TrainState:
        """Returns shapes, types and shardings of a state of a stage as it is in checkpoints."""
        ...

    def place(self, state: TrainState) -> TrainState:
        """Returns a state of `abstract`'s form in the layout of the step."""
        ...

    def gathered(self, state: TrainState) -> TrainState:
        """Returns a state in the layout of the step in `abstract`'s form."""
        ...

    def step(self, stage: int, passes: int) -> Step:
        """Returns the compiled step of a stage with K passes.

        It takes this process's batch: `Batch`, `GeneratedFaces`, or `GeneratedRows`.
        """
        ...

    def names(self, names: list[str]) -> list[str]:
        """Returns the names of the faces of all processes' batches, in the order of `loss_of_face`.

        All processes must call this, each with the names of its batch.
        """
        ...


def devices(experiment: Experiment, parallel: Parallel) -> Devices:
    """Returns the devices of an experiment's mesh.

    Raises:
        RednetError: there are fewer devices than the mesh needs, or pmap with `fsdp`.
    """
    return Mapped(experiment) if parallel == "pmap" else Sharded(experiment)


class Sharded:
    """`jax.jit` over the mesh: large parameters are sharded over `fsdp`, gathered once a step."""

    def __init__(self, experiment: Experiment) -> None:
        """Makes the mesh of the experiment."""
        self._experiment = experiment
        self._mesh = make_mesh(experiment.mesh)

    def abstract(self, stage: int) -> TrainState:
        """See `Devices`."""
        shapes = state_shapes(self._experiment, stage)
        abstract: TrainState = jax.tree.map(
            lambda leaf, layout: leaf.update(sharding=layout),
            shapes,
            shardings(self._mesh, shapes),
        )
        return abstract

    def place(self, state: TrainState) -> TrainState:
        """See `Devices`."""
        placed: TrainState = jax.device_put(state, shardings(self._mesh, state))
        return placed

    def gathered(self, state: TrainState) -> TrainState:
        """See `Devices`."""
        return state

    def step(self, stage: int, passes: int) -> Step:
        """See `Devices`."""
        compiled = _sharded_step(self._experiment, self._mesh, stage, passes)
        generated = _sharded_generator(self._experiment, self._mesh, stage)
        rows = batch_sharding(self._mesh)

        def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
            laid_out = jax.tree.map(
                functools.partial(jax.make_array_from_process_local_data, rows), batch
            )
            if isinstance(batch, GeneratedRows):
                laid_out = generated(state.step, laid_out)
            after: tuple[TrainState, Metrics] = compiled(state, laid_out)
            return after

        return step

    def lowered(self, stage: int, passes: int, batch: Any) -> jax.stages.Lowered:
        """Returns the lowered step of `step`.

        Args:
            stage: of the experiment.
            passes: K.
            batch: of all processes, or its shapes and types.
        """
        step = _sharded_step(self._experiment, self._mesh, stage, passes)
        return step.lower(self.abstract(stage), batch)

    def names(self, names: list[str]) -> list[str]:
        """See `Devices`."""
        return _names_on(self._mesh, names)


@functools.cache
def _sharded_step(
    experiment: Experiment, mesh: Mesh, stage: int, passes: int
) -> jax.stages.Wrapped:
    layout = shardings(mesh, state_shapes(experiment, stage))
    trained = experiment.stages[stage]
    step = functools.partial(train_step, experiment, trained, passes)
    # One device needs no collectives.
    if mesh.size > 1:
        specs = jax.tree.map(lambda sharding: sharding.spec, layout.params)
        step = functools.partial(
            step,
            spread=functools.partial(_over_mesh, mesh, specs, trained),
            norm=jax.shard_map(
                functools.partial(sharded_norm, specs=specs),
                mesh=mesh,
                in_specs=(specs,),
                out_specs=P(),
            ),
        )
    return jax.jit(
        step,
        in_shardings=(layout, batch_sharding(mesh)),
        out_shardings=(layout, replicated(mesh)),
        donate_argnums=0,
        compiler_options=training_options(),
    )


@functools.cache
def _sharded_generator(experiment: Experiment, mesh: Mesh, stage: int) -> Generator:
    """Returns a function with which each device generates its own rows of the batch."""
    generated = functools.partial(generate_batch, experiment, experiment.stages[stage])
    if mesh.size == 1:

        def on_one_device(step: Array, batch: GeneratedRows) -> GeneratedFaces:
            # Without the mesh's sharding, to share the program of the validation faces.
            step, batch = jax.tree.map(lambda leaf: leaf.addressable_data(0), (step, batch))
            return generated(step, batch, of_keys=_compiled_on_one_device)

        return on_one_device
    rows = batch_sharding(mesh).spec
    return jax.jit(
        # For `check_vma` see `_over_mesh`.
        jax.shard_map(generated, mesh=mesh, in_specs=(P(), rows), out_specs=rows, check_vma=False),
        compiler_options=generation_options(),
    )


def _compiled_on_one_device(
    faces: SyntheticConfig, frames: int | None, keys: Array
) -> GeneratedFaces:
    return generator(faces, frames)(keys)


def _over_mesh(mesh: Mesh, specs: Any, stage: Stage, gradient: Gradient) -> Gradient:
    """Returns a function that averages the gradients of all devices' shares of the batch.

    Args:
        mesh: of the devices.
        specs: `PartitionSpec` of each parameter.
        stage: of the experiment.
        gradient: of a share of the batch.
    """
    # The initial carry of the loop is the same on all devices and later ones are not, which JAX's
    # check of varying manual axes reports as an error.
    return jax.shard_map(
        functools.partial(_averaged_gradient, stage, gradient, specs, mesh.axis_names),
        mesh=mesh,
        in_specs=(specs, P(), P(), batch_sharding(mesh).spec),
        out_specs=(specs, P(), P()),
        check_vma=False,
    )


def _averaged_gradient(
    stage: Stage,
    gradient: Gradient,
    specs: Any,
    axes: tuple[str, ...],
    params: Any,
    batch_stats: Any,
    step: Array,
    batch: Any,
) -> tuple[Any, Any, Metrics]:
    """Runs on each device: the gradient of its share of the batch, averaged over `axes`.

    Parameters are gathered once a step, and the sum of the gradients of all passes is reduced once.
    """
    # With moments of each device's share, running averages differ and must be averaged.
    own = stage.statistics == "batch" and stage.batch_statistics == "device"
    gradients, moved, faces = gradient(
        gather_params(params, specs), batch_stats, step, batch, axis_name=None if own else axes
    )
    gradients, averaged = average_gradients(gradients, specs, moved if own else (), axes)
    return gradients, averaged if own else moved, gather_batch(faces, axes)


class Mapped:
    """`jax.pmap`: the same program on every device, with its own copy of the state."""

    def __init__(self, experiment: Experiment) -> None:
        """Makes the mesh of the experiment.

        Raises:
            RednetError: the mesh has an axis `fsdp`.
        """
        if experiment.mesh.fsdp > 1:
            raise RednetError(
                f"--parallel pmap has the axis data alone, not fsdp={experiment.mesh.fsdp}"
            )
        self._experiment = experiment
        self._mesh = make_mesh(experiment.mesh)
        self._local = tuple(self._mesh.local_devices)
        self._whole = replicated(self._mesh)

    def abstract(self, stage: int) -> TrainState:
        """See `Devices`."""
        abstract: TrainState = jax.tree.map(
            lambda leaf: leaf.update(sharding=self._whole), state_shapes(self._experiment, stage)
        )
        return abstract

    def place(self, state: TrainState) -> TrainState:
        """See `Devices`."""
        copies = jax.tree.map(lambda leaf: np.stack([leaf] * len(self._local)), state)
        placed: TrainState = jax.pmap(lambda leaf: leaf, devices=self._local)(copies)
        return placed

    def gathered(self, state: TrainState) -> TrainState:
        """See `Devices`."""
        gathered: TrainState = jax.tree.map(
            lambda leaf: jax.make_array_from_process_local_data(self._whole, np.asarray(leaf[0])),
            state,
        )
        return gathered

    def step(self, stage: int, passes: int) -> Step:
        """See `Devices`."""
        compiled = _mapped_step(self._experiment, self._local, stage, passes)
        generated = _mapped_generator(self._experiment, self._local, stage)

        def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
            split = jax.tree.map(
                lambda leaf: leaf.reshape(len(self._local), -1, *leaf.shape[1:]), batch
            )
            if isinstance(batch, GeneratedRows):
                split = generated(state.step, split)
            state, metrics = compiled(state, split)
            return state, jax.tree.map(lambda leaf: leaf[0], metrics)

        return step

    def names(self, names: list[str]) -> list[str]:
        """See `Devices`."""
        return _names_on(self._mesh, names)


@functools.cache
def _mapped_step(
    experiment: Experiment, local: tuple[jax.Device, ...], stage: int, passes: int
) -> Step:
    trained = experiment.stages[stage]
    compiled: Step = jax.pmap(
        functools.partial(
            train_step, experiment, trained, passes, spread=functools.partial(_over_axis, trained)
        ),
        axis_name=_AXES[0],
        devices=_mapped_devices(local),
        donate_argnums=0,
    )
    return compiled


def _mapped_devices(local: tuple[jax.Device, ...]) -> tuple[jax.Device, ...] | None:
    # With many processes, each maps over its own devices.
    return None if jax.process_count() > 1 else local


@functools.cache
def _mapped_generator(
    experiment: Experiment, local: tuple[jax.Device, ...], stage: int
) -> Generator:
    mapped: Generator = jax.pmap(
        functools.partial(generate_batch, experiment, experiment.stages[stage]),
        devices=_mapped_devices(local),
    )
    return mapped


def _over_axis(stage: Stage, gradient: Gradient) -> Gradient:
    def averaged(
        params: Any, batch_stats: Any, step: Array, batch: Any
    ) -> tuple[Any, Any, Metrics]:
        specs = jax.tree.map(lambda _: P(), params)
        return _averaged_gradient(stage, gradient, specs, _AXES, params, batch_stats, step, batch)

    return averaged


def _names_on(mesh: Mesh, names: list[str]) -> list[str]:
    """Returns the names of all processes in the order of the rows on the devices of a mesh."""
    if jax.process_count() == 1:
        return names
    cut = np.array([name.encode() for name in names], f"S{_NAME_BYTES}")
    gathered = multihost_utils.process_allgather(cut.view(np.uint8)).view(cut.dtype)
    # All devices have equally many rows; those of a process are in the order of its devices.
    remaining = [iter(row) for row in gathered.reshape(jax.process_count(), -1)]
    owners = [device.process_index for device in mesh.devices.flat]
    each = len(names) * jax.process_count() // len(owners)
    return [
        next(remaining[owner]).decode(errors="replace") for owner in owners for _ in range(each)
    ]
