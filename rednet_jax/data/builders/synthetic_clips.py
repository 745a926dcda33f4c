"""Generated clips of moving faces as a prepared data set: exact points in every frame."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from numpy.typing import NDArray

from rednet_jax.data.builders import synthetic
from rednet_jax.data.builders.base import FaceBuilder
from rednet_jax.data.builders.examples import Example, check_face, clip_features
from rednet_jax.data.builders.synthetic import encode_drawn, generator_digest
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.builtin import HEAD70

if TYPE_CHECKING:
    from rednet_jax.data.synthetic.generate import SyntheticConfig

# jax is imported only when a face is drawn: the other data sets do not need it.

FRAMES = 75
"""Frames of each clip: three seconds."""

FIRST_KEY = 2
"""Key of the first split. The images' splits have the keys 0 and 1, so no identity is in both."""

Draw = Callable[[int, int], tuple[NDArray[np.float32], NDArray[np.float32]]]


class RednetSyntheticClips(FaceBuilder):
    """Clips that `rednet_jax.data.synthetic` draws, each of one person before a still camera.

    The key of a clip comes from its split and its number, so it does not depend on their count.
    """

    name = "rednet_synthetic_clips"
    scheme = HEAD70
    splits: ClassVar = ("train", "validation")
    kind: ClassVar = "clip"
    tree: ClassVar = "generated: needs no folder"
    needs_source: ClassVar = False
    counts: ClassVar[dict[str, int]] = {"train": 36, "validation": 12}

    @classmethod
    def recipe(cls) -> bytes:
        """Returns the number of clips, the ranges of the draws, and a digest of the generator."""
        return f"{cls.counts} {FRAMES} {config()} {generator_digest()}\n".encode()

    def list_splits(self) -> dict[str, list[str]]:
        """Returns the names of each split's clips: the split and a number from 0."""
        return {
            split: [f"{split}_{i:05d}" for i in range(self.counts[split])] for split in self.splits
        }

    def read(self, name: str) -> Example:
        """Draws and returns one clip."""
        split, number = name.split("_")
        images, landmarks = _drawer(config())(self.splits.index(split), int(number))
        labelled = np.ones(landmarks.shape[1], bool)
        for frame, points in enumerate(landmarks):
            size = images.shape[2], images.shape[1]
            check_face(f"{name}/{frame + 1}", points, labelled, size, self.scheme)
        return {
            "image": [encode_drawn(image).data for image in images],
            "landmarks": landmarks,
            "labelled": np.ones(landmarks.shape[:2], bool),
            "box": np.stack([landmark_box(points) for points in landmarks]),
            "valid": np.ones(len(landmarks), bool),
            "name": name,
            "identity": -1,
            "style": "300w",
        }

    def _features(self) -> tfds.features.FeaturesDict:
        return clip_features(self.scheme.count)


def config() -> SyntheticConfig:
    """Returns the ranges of the draws: those of the generated images, at a smaller size."""
    return dataclasses.replace(synthetic.config(), size=200)


@functools.cache
def _drawer(config: SyntheticConfig) -> Draw:
    """Returns a function of (split, clip) to images [T, S, S, 3] and landmarks [T, 70, 2]."""
    import jax

    from rednet_jax.data.synthetic.generate import generate_clip

    @jax.jit
    def drawn(split: int, clip: int) -> tuple[jax.Array, jax.Array]:
        key = jax.random.fold_in(jax.random.key(FIRST_KEY + split), clip)
        return generate_clip(config, key, FRAMES)

    def draw(split: int, clip: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        images, landmarks = drawn(split, clip)
        return np.asarray(images), np.asarray(landmarks)

    return draw
