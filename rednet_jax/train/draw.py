"""The images of a training step, made on the device: augmented or generated faces and clips."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from rednet_jax.compiler_options import generation_options
from rednet_jax.data.augment import add_bursts, augment, augment_clips
from rednet_jax.data.pipeline import Batch
from rednet_jax.data.synthetic.generate import SyntheticConfig, generate, generate_clip
from rednet_jax.landmarks.builtin import HEAD70
from rednet_jax.landmarks.convert import convert
from rednet_jax.train.experiment import Experiment, GeneratedData, Stage
from rednet_jax.train.streams import Stream, root, row_keys
from rednet_jax.train.terms import Targets


class GeneratedRows(NamedTuple):
    """The rows of a batch of faces that are still to be generated; a pytree.

    Attributes:
        row: int32 [B], row in the batch of all processes, from which the random keys are derived.
    """

    row: NDArray[np.int32]


class GeneratedFaces(NamedTuple):
    """A batch of generated faces; a pytree.

    Attributes:
        images: float32 [B, S, S, 3] in [0, 1], or clips [B, T, S, S, 3].
        landmarks: float32 [B, 70, 2], or [B, T, 70, 2], of `head70`; pixels of the images.
    """

    images: Array
    landmarks: Array


class Drawn(NamedTuple):
    """Input images of the network, and the targets of the losses.

    Attributes:
        images: float32 [B, S, S, 3] in [0, 1], or clips [B, T, S, S, 3].
        targets: of the images.
        warps: float32 [B, T, 2, 3], pixels of each frame's crop to pixels of the crop before it;
            None for images, and for clips with one crop for all frames.
    """

    images: Array
    targets: Targets
    warps: Array | None


def generate_faces(faces: SyntheticConfig, frames: int | None, keys: Array) -> GeneratedFaces:
    """Generates a face, or a clip of T frames, for each key [B]."""
    generate_one = functools.partial(generate, faces)
    if frames is not None:
        generate_one = functools.partial(generate_clip, faces, frames=frames)
    # One face fits the cache of a processor, and `map` traces once where `vmap` traces twice.
    if jax.default_backend() == "cpu":
        return GeneratedFaces(*jax.lax.map(generate_one, keys))
    return GeneratedFaces(*jax.vmap(generate_one)(keys))


@functools.cache
def generator(faces: SyntheticConfig, frames: int | None) -> Callable[[Array], GeneratedFaces]:
    """Returns `generate_faces`, compiled for one device.

    It is a separate program because it takes as long to compile as the network: steps with any
    number of passes share it with the validation faces.
    """
    compiled: Callable[[Array], GeneratedFaces] = jax.jit(
        functools.partial(generate_faces, faces, frames), compiler_options=generation_options()
    )
    return compiled


def generate_batch(
    experiment: Experiment,
    stage: Stage,
    step: Array,
    batch: GeneratedRows,
    of_keys: Callable[[SyntheticConfig, int | None, Array], GeneratedFaces] = generate_faces,
) -> GeneratedFaces:
    """Generates the faces or clips of a step.

    Random keys depend on (seed, step, row of the batch), not on the device.

    Args:
        experiment: the run.
        stage: of the experiment, with generated data.
        step: int32 [], steps done before.
        batch: B rows.
        of_keys: implementation of `generate_faces`.
    """
    assert isinstance(stage.data, GeneratedData)
    frames = None if stage.clips is None else stage.clips.frames
    keys = _step_keys(experiment.seed, step, batch.row)
    return of_keys(stage.data.faces, frames, keys)


@jax.jit
def _step_keys(seed: int, step: Array, row: Array) -> Array:
    return row_keys(root(seed, Stream.DRAWS), step, row)


def draw(experiment: Experiment, stage: Stage, step: Array, batch: Batch | GeneratedFaces) -> Drawn:
    """Augments the faces or clips of a step; generated ones are returned with their targets.

    Random keys depend on (seed, step, row of the batch), not on the device.

    Args:
        experiment: the run.
        stage: of the experiment.
        step: int32 [], steps done before.
        batch: B faces or clips.
    """
    model = experiment.model
    if isinstance(batch, GeneratedFaces):
        landmarks = convert(batch.landmarks, HEAD70, model.scheme)
        labelled = jnp.ones(landmarks.shape[:-1], bool)
        unknown = jnp.full(landmarks.shape[:-2], -1, jnp.int32)
        return Drawn(batch.images, Targets(landmarks, labelled, unknown), None)
    assert not isinstance(stage.data, GeneratedData)
    keys = row_keys(root(experiment.seed, Stream.DRAWS), step, jnp.asarray(batch.row))
    images, landmarks, labelled = map(jnp.asarray, (batch.images, batch.landmarks, batch.labelled))
    size, margin = model.input_size, model.input_margin
    cover = stage.data.cover / model.context
    warps = None
    if stage.clips is None:
        images, landmarks, labelled = augment(
            stage.augmentation,
            keys,
            images,
            landmarks,
            labelled,
            scheme=model.scheme,
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
            scheme=model.scheme,
            cover=cover,
            margin=margin,
            size=size,
        )
        if stage.bursts.probability:
            bursts = row_keys(root(experiment.seed, Stream.BURSTS), step, jnp.asarray(batch.row))
            images = add_bursts(stage.bursts, bursts, images, warps, margin=margin)
    return Drawn(images, Targets(landmarks, labelled, jnp.asarray(batch.identity)), warps)
