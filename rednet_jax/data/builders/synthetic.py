"""Generated faces as a prepared data set: no photographs, exact points."""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rednet_jax.data.builders.base import FaceBuilder
from rednet_jax.data.builders.examples import Example, StoredImage, face_example
from rednet_jax.landmarks.builtin import HEAD70

if TYPE_CHECKING:
    from rednet_jax.data.synthetic.generate import SyntheticConfig

# jax is imported only when a face is drawn: the other data sets do not need it.

Draw = Callable[[int, int], tuple[NDArray[np.float32], NDArray[np.float32]]]


class RednetSynthetic(FaceBuilder):
    """Faces that `rednet_jax.data.synthetic` draws.

    The key of a face comes from its split and its number, so it does not depend on their count.
    """

    name = "rednet_synthetic"
    scheme = HEAD70
    splits: ClassVar = ("train", "validation")
    tree: ClassVar = "generated: needs no folder"
    needs_source: ClassVar = False
    counts: ClassVar[dict[str, int]] = {"train": 2000, "validation": 200}

    @classmethod
    def recipe(cls) -> bytes:
        """Returns the number of faces, the ranges of the draws, and a digest of the generator."""
        return f"{cls.counts} {config()} {generator_digest()}\n".encode()

    def list_splits(self) -> dict[str, list[str]]:
        """Returns the names of each split's faces: the split and a number from 0."""
        return {
            split: [f"{split}/{i:05d}" for i in range(self.counts[split])] for split in self.splits
        }

    def read(self, name: str) -> Example:
        """Draws and returns one face."""
        split, number = name.split("/")
        image, landmarks = _drawer(config())(self.splits.index(split), int(number))
        labelled = np.ones(len(landmarks), bool)
        return face_example(
            name,
            encode_drawn(image),
            landmarks,
            labelled,
            scheme=self.scheme,
        )


def generator_digest() -> str:
    """Returns the SHA-256 of the generator's source code."""
    digest = hashlib.sha256()
    generator = resources.files("rednet_jax.data").joinpath("synthetic")
    for file in sorted(generator.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".py"):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def encode_drawn(image: NDArray[np.floating]) -> StoredImage:
    """Returns a drawn image [H, W, 3], values in [0, 1], as JPEG."""
    pixels = Image.fromarray(np.rint(image * 255).astype(np.uint8))
    file = io.BytesIO()
    # A third of the size of a PNG, since noise does not compress.
    pixels.save(file, "JPEG", quality=95, subsampling=0)
    return StoredImage(file.getvalue(), pixels.size)


def config() -> SyntheticConfig:
    """Returns the ranges of the draws.

    The image contains the crop that training caches, 1.6 times a network's crop of 1.25, plus the
    head's drift. The face is centred, since augmentation displaces the crop.
    """
    from rednet_jax.data.synthetic.generate import SyntheticConfig

    return SyntheticConfig(size=256, margin=2.15, shift=0.0, log_scale=0.0)


@functools.cache
def _drawer(config: SyntheticConfig) -> Draw:
    """Returns a function of (split, face) to the image [S, S, 3] and the landmarks [70, 2]."""
    import jax

    from rednet_jax.data.synthetic.generate import generate

    @jax.jit
    def drawn(split: int, face: int) -> tuple[jax.Array, jax.Array]:
        return generate(config, jax.random.fold_in(jax.random.key(split), face))

    def draw(split: int, face: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        image, landmarks = drawn(split, face)
        return np.asarray(image), np.asarray(landmarks)

    return draw
