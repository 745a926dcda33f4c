"""One optimiser step as a pure function of the state and a batch."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from rednet_jax.data.augment import augment
from rednet_jax.data.pipeline import Batch
from rednet_jax.data.synthetic.generate import generate
from rednet_jax.landmarks.schemes import scheme
from rednet_jax.model import rednet
from rednet_jax.train.experiment import Experiment, GeneratedData
from rednet_jax.train.inputs import GeneratedBatch
from rednet_jax.train.losses import Targets, pass_losses
from rednet_jax.train.state import TrainState, averaged, followed, optimiser


def draw(
    experiment: Experiment, step: Array, batch: Batch | GeneratedBatch
) -> tuple[Array, Targets]:
    """Draws the pictures of a step: augmented faces of a batch, or generated ones.

    Every draw comes from (seed, step, row of the batch), never from a device.

    Args:
        experiment: the run.
        step: int32 [], steps done before.
        batch: B faces.

    Returns:
        Pictures float32 [B, S, S, 3] in [0, 1], and what they should come out as.
    """
    # 1 keeps the draws apart from those of the initial weights.
    run = jax.random.fold_in(jax.random.key(experiment.seed), 1)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(run, step), batch.row)
    config = experiment.model
    points = scheme(config.landmarks)
    if isinstance(experiment.data, GeneratedData):
        images, landmarks = jax.vmap(functools.partial(generate, experiment.data.faces))(keys)
        landmarks = landmarks[:, points.from_68]
        return images, Targets(landmarks, jnp.ones(landmarks.shape[:2], bool))
    assert isinstance(batch, Batch)
    images, landmarks, labelled = augment(
        experiment.augmentation,
        keys,
        jnp.asarray(batch.images),
        jnp.asarray(batch.landmarks),
        jnp.asarray(batch.labelled),
        scheme=points,
        cover=experiment.data.cover,
        margin=config.crop_margin,
        size=config.image_size,
    )
    return images, Targets(landmarks, labelled)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def train_step(
    experiment: Experiment, feedback_steps: int, state: TrainState, batch: Batch | GeneratedBatch
) -> tuple[TrainState, dict[str, Array]]:
    """Draws the batch on the device, runs all passes forward and back, and moves the weights.

    Compiled once for each K.

    Args:
        experiment: the run.
        feedback_steps: K of this step.
        state: donated; its arrays are gone after the call.
        batch: B faces; of host arrays, or on the device.

    Returns:
        The next state, and metrics: `loss`, its terms and `nme` (of the last pass), each a mean
        over faces, and `gradient_norm` (before the clip), all float32 []; `loss_of_face`
        float32 [B]. Loss and terms are means over the passes.
    """
    config = experiment.model
    losses_of = pass_losses(experiment.losses, scheme(config.landmarks), config.image_size)
    images, targets = draw(experiment, state.step, batch)

    def loss_of(params: Any) -> tuple[Array, tuple[Any, dict[str, Array]]]:
        out, batch_stats = rednet.align_image(
            config,
            {"params": params, "batch_stats": state.batch_stats},
            images,
            feedback_steps=feedback_steps,
            train=True,
            loss=losses_of,
            targets=targets,
        )
        losses = out.per_step.losses
        return jnp.mean(losses["total"]), (batch_stats, losses)

    (loss, (batch_stats, losses)), gradients = jax.value_and_grad(loss_of, has_aux=True)(
        state.params
    )
    updates, opt_state = optimiser(experiment.optimiser, experiment.steps).update(
        gradients, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    average = averaged(
        state.average,
        {"params": params, "batch_stats": batch_stats},
        state.step,
        experiment.optimiser.average,
    )
    batch_stats, average["batch_stats"] = (
        followed(rows, feedback_steps + config.passes_per_frame)
        for rows in (batch_stats, average["batch_stats"])
    )
    terms = {name: jnp.mean(value) for name, value in losses.items() if name != "total"}
    metrics = {
        **terms,
        "loss": loss,
        "nme": jnp.nanmean(losses["nme"][-1]),
        "gradient_norm": optax.tree.norm(gradients),
        "loss_of_face": jnp.mean(losses["total"], axis=0),
    }
    return TrainState(state.step + 1, params, batch_stats, average, opt_state), metrics
