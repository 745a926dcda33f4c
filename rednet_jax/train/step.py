"""The training step, a pure function of the state and a batch."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from rednet_jax.data.pipeline import Batch
from rednet_jax.model import rednet
from rednet_jax.model.layers import AxisName
from rednet_jax.train.draw import GeneratedFaces, draw
from rednet_jax.train.experiment import Experiment, Stage
from rednet_jax.train.losses import pass_losses
from rednet_jax.train.state import (
    Norm,
    TrainState,
    averaged,
    followed,
    rates,
    stage_optimiser,
)
from rednet_jax.train.terms import stability_loss

Tree = Any
Metrics = dict[str, Array]

Gradient = Callable[..., tuple[Tree, Tree, Metrics]]
"""Maps parameters, batch statistics, step and batch to the gradient of the mean loss, the updated
batch statistics, and the terms of each face; `axis_name` are the axes the batch is split over."""


def train_step(
    experiment: Experiment,
    stage: Stage,
    passes: int,
    state: TrainState,
    batch: Batch | GeneratedFaces,
    *,
    spread: Callable[[Gradient], Gradient] | None = None,
    norm: Norm = optax.tree.norm,
) -> tuple[TrainState, Metrics]:
    """Augments the batch on the device, runs forward and backward pass, and updates the weights.

    Args:
        experiment: the run.
        stage: of the experiment.
        passes: K of this step.
        state: before the step.
        batch: B faces or clips; under `jax.pmap` those of this device.
        spread: transforms the gradient function of a device's part of the batch into that of the
            whole batch.
        norm: of the gradient.

    Returns:
        The next state, and metrics: `loss`, its terms and `nme` (of the last pass), each a mean
        over faces, and `gradient_norm` (before clipping), all float32 []; `loss_of_face`
        float32 [B]. Loss and terms are means over passes and frames.
    """

    def trained_statistics(new: Tree, old: Tree) -> Tree:
        """Returns new statistics, with those of passes not yet run; old ones of frozen parts."""
        if stage.statistics == "batch":
            frames = 1 if stage.clips is None else stage.clips.frames
            new = followed(new, frames * (passes + experiment.model.passes_per_frame))
        factors = rates(stage.optimiser, new)
        return jax.tree.map(lambda a, b, factor: a if factor else b, new, old, factors)

    gradient: Gradient = functools.partial(_gradients, experiment, stage, passes)
    if spread is not None:
        gradient = spread(gradient)
    gradients, batch_stats, faces = gradient(state.params, state.batch_stats, state.step, batch)
    with jax.named_scope("optimiser"):
        optimiser = stage_optimiser(stage, norm)
        updates, opt_state = optimiser.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        batch_stats = trained_statistics(batch_stats, state.batch_stats)
        average = averaged(
            state.average,
            {"params": params, "batch_stats": batch_stats},
            state.step,
            stage.optimiser.average,
        )
        average["batch_stats"] = trained_statistics(average["batch_stats"], average["batch_stats"])
    metrics = {name: jnp.mean(value) for name, value in faces.items() if name != "total"}
    metrics |= {
        "loss": jnp.mean(faces["total"]),
        "nme": jnp.nanmean(faces["nme"]),
        "gradient_norm": norm(gradients),
        "loss_of_face": faces["total"],
    }
    return TrainState(state.step + 1, params, batch_stats, average, opt_state), metrics


def _gradients(
    experiment: Experiment,
    stage: Stage,
    passes: int,
    params: Tree,
    batch_stats: Tree,
    step: Array,
    batch: Batch | GeneratedFaces,
    *,
    axis_name: AxisName | None = None,
) -> tuple[Tree, Tree, Metrics]:
    """Returns the gradient of the mean loss, updated batch statistics, and terms [B] of faces."""

    def part_gradient(batch_stats: Tree, part: Batch | GeneratedFaces) -> tuple[Tree, Tree]:
        def loss_of(params: Tree) -> tuple[Array, tuple[Tree, Metrics]]:
            variables = {"params": params, "batch_stats": batch_stats}
            stats, terms = _losses(
                experiment, stage, passes, variables, step, part, axis_name=axis_name
            )
            return jnp.mean(terms["total"]), (stats, terms)

        gradients, (stats, terms) = jax.grad(loss_of, has_aux=True)(params)
        return stats, (gradients, terms)

    if stage.accumulate == 1:
        batch_stats, (gradients, faces) = part_gradient(batch_stats, batch)
        return gradients, batch_stats, faces

    # Part i has every row r with r % accumulate == i, so it is split over devices as the batch is.
    def split_into_parts(leaf: Array) -> Array:
        split = jnp.reshape(leaf, (-1, stage.accumulate, *leaf.shape[1:]))
        return jnp.swapaxes(split, 0, 1)

    def join_parts(leaf: Array) -> Array:
        return jnp.swapaxes(leaf, 0, 1).reshape(-1)

    def accumulate(carry: tuple[Tree, Tree], part: Tree) -> tuple[tuple[Tree, Tree], Metrics]:
        batch_stats, total = carry
        batch_stats, (gradients, terms) = part_gradient(batch_stats, part)
        return (batch_stats, jax.tree.map(jnp.add, total, gradients)), terms

    zero = jax.tree.map(jnp.zeros_like, params)
    (batch_stats, total), faces = lax.scan(
        accumulate, (batch_stats, zero), jax.tree.map(split_into_parts, batch)
    )
    gradients = jax.tree.map(lambda leaf: leaf / stage.accumulate, total)
    return gradients, batch_stats, jax.tree.map(join_parts, faces)


def _losses(
    experiment: Experiment,
    stage: Stage,
    passes: int,
    variables: dict[str, Tree],
    step: Array,
    batch: Batch | GeneratedFaces,
    *,
    axis_name: AxisName | None,
) -> tuple[Tree, Metrics]:
    """Returns updated batch statistics, and `total`, its terms and `nme`, each float32 [B]."""
    config = experiment.model
    with jax.named_scope("draw"):
        drawn = draw(experiment, stage, step, batch)
    images, targets = drawn.images.astype(experiment.compute), drawn.targets
    options = {
        "feedback_steps": passes,
        "train": stage.statistics == "batch",
        "loss": pass_losses(stage.losses, config, stage.extra_losses),
        "axis_name": axis_name,
        "parts": stage.accumulate,
    }
    if stage.clips is None:
        out, batch_stats = rednet.align_image(config, variables, images, targets=targets, **options)
    else:
        initial = rednet.initial_state(config, len(images), images.dtype)
        out, _, batch_stats = rednet.align_clip(
            config, variables, images, initial, drawn.warps, targets=targets, **options
        )
    per_pass = out.per_step.losses
    faces = drawn.images.shape[0]
    # Values are [K, B], or [K, T, B] for clips.
    terms = {name: jnp.mean(value.reshape(-1, faces), axis=0) for name, value in per_pass.items()}
    terms["nme"] = jnp.nanmean(per_pass["nme"][-1].reshape(-1, faces), axis=0)
    if stage.losses.stability:
        landmarks = out.per_step.landmarks.astype(jnp.float32)
        terms["stability"] = stability_loss(
            landmarks, targets, config.scheme, config.image_size / config.crop_margin
        )
        terms["total"] += stage.losses.stability * terms["stability"]
    return batch_stats, terms
