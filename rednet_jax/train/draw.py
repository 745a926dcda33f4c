"""The pictures of a step, drawn on the device: augmented faces and clips, or generated ones."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from rednet_jax.data.augment import augment, augment_clips
from rednet_jax.data.pipeline import Batch
from rednet_jax.data.synthetic.generate import generate, generate_clip
from rednet_jax.landmarks.schemes import Scheme, scheme
from rednet_jax.train.experiment import Experiment, GeneratedData, Stage
from rednet_jax.train.streams import Stream, root, row_keys
from rednet_jax.train.terms import Targets


class GeneratedBatch(NamedTuple):
    """A batch that the step draws itself; a pytree.

    Attributes:
        row: int32 [B], place in the batch of all processes: what random draws come from.
    """

    row: NDArray[np.int32]


class Drawn(NamedTuple):
    """What the network sees, and what should come of it.

    Attributes:
        images: float32 [B, S, S, 3] in [0, 1], or clips [B, T, S, S, 3].
        targets: of them.
        warps: float32 [B, T, 2, 3], pixels of each frame's crop to pixels of the crop before it;
            None for pictures, and for clips whose crop stands still.
    """

    images: Array
    targets: Targets
    warps: Array | None


def draw(experiment: Experiment, stage: Stage, step: Array, batch: Batch | GeneratedBatch) -> Drawn:
    """Draws the pictures or clips of a step.

    Every draw comes from (seed, step, row of the batch), never from a device.

    Args:
        experiment: the run.
        stage: of it.
        step: int32 [], steps done before.
        batch: B faces or clips.
    """
    keys = row_keys(root(experiment.seed, Stream.DRAWS), step, jnp.asarray(batch.row))
    model = experiment.model
    points = scheme(model.landmarks)
    if isinstance(stage.data, GeneratedData):
        return _generated(stage.data, stage, keys, points)
    assert isinstance(batch, Batch)
    images, landmarks, labelled = map(jnp.asarray, (batch.images, batch.landmarks, batch.labelled))
    size, margin = model.picture_size, model.picture_margin
    cover = stage.data.cover / model.context
    warps = None
    if stage.clips is None:
        images, landmarks, labelled = augment(
            stage.augmentation,
            keys,
            images,
            landmarks,
            labelled,
            scheme=points,
            cover=cover,
            margin=margin,
            size=size,
        )
    else:
        images, landmarks, labelled, warps = augment_clips(
            stage.augmentation,
            stage.drift,
            keys,
            images,
            landmarks,
            labelled,
            jnp.asarray(batch.affines),
            scheme=points,
            cover=cover,
            margin=margin,
            size=size,
        )
    return Drawn(images, Targets(landmarks, labelled, jnp.asarray(batch.identity)), warps)


def _generated(data: GeneratedData, stage: Stage, keys: Array, points: Scheme) -> Drawn:
    one = functools.partial(generate, data.faces)
    if stage.clips is not None:
        one = functools.partial(generate_clip, data.faces, frames=stage.clips.frames)
    images, landmarks = jax.vmap(one)(keys)
    landmarks = landmarks[..., points.from_68, :]
    nobody = jnp.full(landmarks.shape[:-2], -1, jnp.int32)
    return Drawn(images, Targets(landmarks, jnp.ones(landmarks.shape[:-1], bool), nobody), None)
