"""Generated faces as a data set, for what reads prepared ones: no photograph, exact points."""

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

# Nothing here may import jax before a face is drawn: the other data sets do not need it.

Draw = Callable[[int, int], tuple[NDArray[np.float32], NDArray[np.float32]]]


class RednetSynthetic(FaceBuilder):
    """Faces that `rednet_jax.data.synthetic` draws.

    The key of a face comes from its split and its number, so no face depends on how many there are.
    """

    name = "rednet_synthetic"
    scheme = HEAD70
    splits: ClassVar = ("train", "validation")
    tree: ClassVar = "generated: needs no folder"
    needs_source: ClassVar = False
    counts: ClassVar[dict[str, int]] = {"train": 2000, "validation": 200}

    @classmethod
    def recipe(cls) -> bytes:
        """Returns how many faces there are, how far the draws go, and a digest of the generator."""
        return f"{cls.counts} {config()} {generator_digest()}\n".encode()

    def list_splits(self) -> dict[str, list[str]]:
        """Returns the names of each split's faces: the split and a number from 0."""
        return {
            split: [f"{split}/{i:05d}" for i in range(self.counts[split])] for split in self.splits
        }

    def read(self, name: str) -> Example:
        """Returns one face, drawn."""
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
    """Returns the SHA-256 of the code that draws."""
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
    """Returns how far the draws go.

    The image holds what training cuts around the points, 1.6 times a network's crop of 1.25, and
    the head's drift. Readers displace crops themselves.
    """
    from rednet_jax.data.synthetic.generate import SyntheticConfig

    return SyntheticConfig(size=256, margin=2.15, shift=0.0, log_scale=0.0)


@functools.cache
def _drawer(config: SyntheticConfig) -> Draw:
    """Returns the image [S, S, 3] and the landmarks [70, 2] of (split, face) as a function."""
    import jax

    from rednet_jax.data.synthetic.generate import generate

    @jax.jit
    def drawn(split: int, face: int) -> tuple[jax.Array, jax.Array]:
        return generate(config, jax.random.fold_in(jax.random.key(split), face))

    def draw(split: int, face: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        image, landmarks = drawn(split, face)
        return np.asarray(image), np.asarray(landmarks)

    return draw
