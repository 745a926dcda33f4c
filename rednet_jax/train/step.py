"""One optimiser step as a pure function of state, cached faces and indices."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from rednet_jax.data.augment import augment
from rednet_jax.data.cache import FaceCache
from rednet_jax.landmarks.schemes import scheme
from rednet_jax.model import rednet
from rednet_jax.train.experiment import Experiment
from rednet_jax.train.losses import Targets, pass_losses
from rednet_jax.train.state import TrainState, averaged, followed, optimiser


def batch_indices(seed: int, step: int, *, batch: int, faces: int) -> np.ndarray:
    """Faces of a step: the next `batch` places in an endless row of seeded permutations.

    A function of its arguments alone, so a run that resumes at a step needs nothing but the step.

    Args:
        seed: of the order.
        step: counted from 0.
        batch: faces a step; may exceed `faces`.
        faces: in the training split.

    Returns:
        int32 [batch].
    """
    places = np.arange(step * batch, (step + 1) * batch)
    epochs, within = np.divmod(places, faces)
    order = {epoch: _permutation(seed, int(epoch), faces) for epoch in np.unique(epochs)}
    return np.array(
        [order[epoch][place] for epoch, place in zip(epochs, within, strict=True)], np.int32
    )


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, faces: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(faces)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def train_step(
    experiment: Experiment, feedback_steps: int, state: TrainState, faces: FaceCache, indices: Array
) -> tuple[TrainState, dict[str, Array]]:
    """Draws the batch on the device, runs all passes forward and back, and moves the weights.

    Faces stay on the device, and only the indices (4 bytes a face) come from the host, without
    anything waiting for them. Compiled once for each K.

    Args:
        experiment: the run.
        feedback_steps: K of this step.
        state: donated; its arrays are gone after the call.
        faces: the whole training split.
        indices: int32 [B].

    Returns:
        The next state, and metrics: `loss`, its terms and `nme` (of the last pass), each a mean
        over faces, and `gradient_norm` (before the clip), all float32 []; `loss_of_face`
        float32 [B]. Loss and terms are means over the passes.
    """
    config = experiment.model
    points = scheme(config.landmarks)
    # Sample by sample from (seed, step, sample); 1 keeps the draws apart from the initial weights.
    run = jax.random.fold_in(jax.random.key(experiment.seed), 1)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(run, state.step), indices)
    images, landmarks, labelled = augment(
        experiment.augmentation,
        keys,
        jnp.asarray(faces.images)[indices],
        jnp.asarray(faces.landmarks)[indices],
        jnp.asarray(faces.labelled)[indices],
        scheme=points,
        cover=experiment.data.cover,
        margin=config.crop_margin,
        size=config.image_size,
    )

    def loss_of(params: Any) -> tuple[Array, tuple[Any, dict[str, Array]]]:
        out, batch_stats = rednet.align_image(
            config,
            {"params": params, "batch_stats": state.batch_stats},
            images,
            feedback_steps=feedback_steps,
            train=True,
            loss=pass_losses(experiment.losses, points, config.image_size),
            targets=Targets(landmarks, labelled),
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
