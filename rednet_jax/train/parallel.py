"""A step on many devices: one program over a mesh (`jax.jit`), or one a device (`jax.pmap`).

Either way each device runs the loop on its own part of the batch, and says itself what it needs of
the others. Left to find that out, XLA gathers every kernel again at every backward pass, and sums
the gradients of every pass over all devices before it adds them up.
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
    quick_to_compile,
)
from rednet_jax.train.experiment import Experiment, Stage
from rednet_jax.train.sharding import P, batch_sharding, make_mesh, replicated, shardings
from rednet_jax.train.state import TrainState, initial_train_state
from rednet_jax.train.step import Gradient, Metrics, train_step

Parallel = Literal["jit", "pmap"]
Step = Callable[[TrainState, Any], tuple[TrainState, Metrics]]
Generator = Callable[[Array, GeneratedRows], GeneratedFaces]
"""From the number of steps done before and a batch's rows to its faces."""

_AXES = ("data",)

_NAME_BYTES = 256
"""Longer names of faces are cut where processes tell them each other."""


class Devices(Protocol):
    """How a state lies on devices, and the step over them."""

    def abstract(self) -> TrainState:
        """Returns shapes, types and shardings of a state as checkpoints hold it."""
        ...

    def place(self, state: TrainState) -> TrainState:
        """Lays a state of `abstract`'s form out for the step."""
        ...

    def gathered(self, state: TrainState) -> TrainState:
        """Returns a state of `abstract`'s form of one that was laid out."""
        ...

    def step(self, stage: int, passes: int) -> Step:
        """Returns the compiled step of a stage with K passes.

        It takes a process's batch: `Batch`, `GeneratedFaces`, or `GeneratedRows` to draw them.
        """
        ...

    def names(self, names: list[str]) -> list[str]:
        """Returns the names of the faces of all processes' batches, as `loss_of_face` has them.

        All processes call this at the same time, each with the names of its batch.
        """
        ...


def devices(experiment: Experiment, parallel: Parallel) -> Devices:
    """Opens the devices of an experiment's mesh.

    Raises:
        RednetError: fewer devices than the mesh needs, or a mesh with `fsdp` under pmap.
    """
    return Mapped(experiment) if parallel == "pmap" else Sharded(experiment)


class Sharded:
    """`jax.jit` over the mesh: large parameters are sharded over `fsdp`, gathered once a step."""

    def __init__(self, experiment: Experiment) -> None:
        """Of the experiment's mesh."""
        self._experiment = experiment
        self._mesh = make_mesh(experiment.mesh)
        shapes = jax.eval_shape(functools.partial(initial_train_state, experiment))
        self._layout = shardings(self._mesh, shapes)
        self._abstract: TrainState = jax.tree.map(
            lambda leaf, layout: leaf.update(sharding=layout), shapes, self._layout
        )

    def abstract(self) -> TrainState:
        """See `Devices`."""
        return self._abstract

    def place(self, state: TrainState) -> TrainState:
        """See `Devices`."""
        placed: TrainState = jax.device_put(state, self._layout)
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
        """Returns the step of `step` before it is compiled.

        Args:
            stage: of the experiment.
            passes: K.
            batch: of all processes, or its shapes and types alone.
        """
        step = _sharded_step(self._experiment, self._mesh, stage, passes)
        return step.lower(self._abstract, batch)

    def names(self, names: list[str]) -> list[str]:
        """See `Devices`."""
        return _names_on(self._mesh, names)


@functools.cache
def _sharded_step(
    experiment: Experiment, mesh: Mesh, stage: int, passes: int
) -> jax.stages.Wrapped:
    shapes = jax.eval_shape(functools.partial(initial_train_state, experiment))
    layout = shardings(mesh, shapes)
    of = experiment.stages[stage]
    step = functools.partial(train_step, experiment, of, passes)
    # One device gathers and reduces nothing.
    if mesh.size > 1:
        specs = jax.tree.map(lambda one: one.spec, layout.params)
        step = functools.partial(
            step,
            spread=functools.partial(_over_mesh, mesh, specs, of),
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
    )


@functools.cache
def _sharded_generator(experiment: Experiment, mesh: Mesh, stage: int) -> Generator:
    """Each device generates its own rows of the batch."""
    generated = functools.partial(generate_batch, experiment, experiment.stages[stage])
    if mesh.size == 1:

        def on_one_device(step: Array, batch: GeneratedRows) -> GeneratedFaces:
            # Off the mesh, as the validation faces are: programs for other shardings are others.
            step, batch = jax.tree.map(lambda leaf: leaf.addressable_data(0), (step, batch))
            return generated(step, batch, of_keys=_compiled_on_one_device)

        return on_one_device
    rows = batch_sharding(mesh).spec
    return jax.jit(
        # As in `_over_mesh`, loops begin with what is the same on all devices.
        jax.shard_map(generated, mesh=mesh, in_specs=(P(), rows), out_specs=rows, check_vma=False),
        compiler_options=quick_to_compile(),
    )


def _compiled_on_one_device(
    faces: SyntheticConfig, frames: int | None, keys: Array
) -> GeneratedFaces:
    return generator(faces, frames)(keys)


def _over_mesh(mesh: Mesh, specs: Any, stage: Stage, gradient: Gradient) -> Gradient:
    """Each device computes the gradient of its share of the batch, and all average them.

    Args:
        mesh: of the devices.
        specs: `PartitionSpec` of each parameter.
        stage: of the experiment.
        gradient: of a share of the batch.
    """
    # The loop's carry begins the same on all devices and does not stay so, which JAX's check of
    # what varies over the mesh takes for an error.
    return jax.shard_map(
        functools.partial(_of_all_devices, stage, gradient, specs, mesh.axis_names),
        mesh=mesh,
        in_specs=(specs, P(), P(), batch_sharding(mesh).spec),
        out_specs=(specs, P(), P()),
        check_vma=False,
    )


def _of_all_devices(
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

    Parameters are gathered once a step, and the gradients of all passes reduced once.
    """
    # Moments of a device's own share, and running averages that must be averaged in turn.
    own = stage.statistics == "batch" and stage.batch_statistics == "device"
    gradients, moved, faces = gradient(
        gather_params(params, specs), batch_stats, step, batch, axis_name=None if own else axes
    )
    gradients, averaged = average_gradients(gradients, specs, moved if own else (), axes)
    return gradients, averaged if own else moved, gather_batch(faces, axes)


class Mapped:
    """`jax.pmap`: the same program on every device, with its own copy of the state."""

    def __init__(self, experiment: Experiment) -> None:
        """Of the experiment's mesh."""
        if experiment.mesh.fsdp > 1:
            raise RednetError(
                f"--parallel pmap has the axis data alone, not fsdp={experiment.mesh.fsdp}"
            )
        self._experiment = experiment
        self._mesh = make_mesh(experiment.mesh)
        self._local = tuple(self._mesh.local_devices)
        self._whole = replicated(self._mesh)
        shapes = jax.eval_shape(functools.partial(initial_train_state, experiment))
        self._abstract: TrainState = jax.tree.map(
            lambda leaf: leaf.update(sharding=self._whole), shapes
        )

    def abstract(self) -> TrainState:
        """See `Devices`."""
        return self._abstract

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
    of = experiment.stages[stage]
    compiled: Step = jax.pmap(
        functools.partial(
            train_step, experiment, of, passes, spread=functools.partial(_over_axis, of)
        ),
        axis_name=_AXES[0],
        devices=_mapped_devices(local),
        donate_argnums=0,
    )
    return compiled


def _mapped_devices(local: tuple[jax.Device, ...]) -> tuple[jax.Device, ...] | None:
    # Of many processes each maps its own devices of the one axis.
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
    def part(params: Any, batch_stats: Any, step: Array, batch: Any) -> tuple[Any, Any, Metrics]:
        specs = jax.tree.map(lambda _: P(), params)
        return _of_all_devices(stage, gradient, specs, _AXES, params, batch_stats, step, batch)

    return part


def _names_on(mesh: Mesh, names: list[str]) -> list[str]:
    """Names of a batch in the order in which its rows lie on the devices of a mesh."""
    if jax.process_count() == 1:
        return names
    cut = np.array([name.encode() for name in names], f"S{_NAME_BYTES}")
    told = multihost_utils.process_allgather(cut.view(np.uint8)).view(cut.dtype)
    # Every device has as many rows as the others, and a process's rows are its devices' in turn.
    left = [iter(row) for row in told.reshape(jax.process_count(), -1)]
    owners = [device.process_index for device in mesh.devices.flat]
    each = len(names) * jax.process_count() // len(owners)
    return [next(left[owner]).decode(errors="replace") for owner in owners for _ in range(each)]
