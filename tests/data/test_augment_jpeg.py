"""JPEG artefacts equal those of libjpeg."""

from __future__ import annotations

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import fft
from skimage import data

from rednet_jax.data.augment.jpeg import _cosines, _quantisation, compress

IMAGE = data.astronaut()[:61, 190:257]
squeeze = jax.jit(compress)


def compressed(
    image: NDArray[np.uint8], quality: float, corner: tuple[int, int] = (0, 0)
) -> NDArray[np.floating]:
    """Returns `compress` of an image, with values of 0 to 255."""
    images = jnp.asarray(image, jnp.float32) / 255
    return np.asarray(squeeze(images, jnp.float32(quality), jnp.asarray(corner))) * 255


def saved(image: NDArray[np.uint8], quality: int) -> Image.Image:
    """Returns the image after Pillow has written and read it without chroma subsampling."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=0)
    return Image.open(file)


def decibels(a: NDArray, b: NDArray) -> float:
    """Peak signal to noise ratio."""
    return 20 * np.log10(255) - 10 * np.log10(((a - b) ** 2).mean())


@pytest.mark.parametrize("quality", [1, 10, 30, 49, 50, 75, 90, 100])
def test_steps_and_images_are_those_of_libjpeg(quality: int) -> None:
    """At 61 x 67 pixels the last blocks are incomplete. libjpeg's integer transform rounds more."""
    file = saved(IMAGE, quality)
    tables = np.asarray(list(file.quantization.values()))
    steps = np.asarray(_quantisation(jnp.float32(quality)))
    np.testing.assert_array_equal(steps, tables[[0, 1, 1]])
    ours, theirs = compressed(IMAGE, quality), np.asarray(file, np.float64)
    assert decibels(ours, theirs) > 47
    assert decibels(theirs, IMAGE) < 38 or quality == 100
    assert np.abs(ours - theirs).mean() < 0.6
    assert abs((ours - theirs).mean()) < 0.1


def test_the_transform_is_the_cosine_transform() -> None:
    block = np.random.default_rng(0).uniform(-128, 127, (8, 8))
    np.testing.assert_allclose(
        (_cosines() @ block.ravel()).reshape(8, 8), fft.dctn(block, norm="ortho"), atol=1e-9
    )


def test_the_corner_moves_the_blocks() -> None:
    """The result is that of an image with padding before its first row and column."""
    before = np.pad(IMAGE, ((3, 0), (6, 0), (0, 0)), mode="edge")
    whole = compressed(before, 20)[3:, 6:]
    np.testing.assert_allclose(compressed(IMAGE, 20, (3, 6)), whole, atol=1e-3)
    assert np.abs(compressed(IMAGE, 20) - whole).max() > 5


def test_frames_are_compressed_as_single_images() -> None:
    frames = np.stack([IMAGE, IMAGE[::-1], IMAGE[:, ::-1]])
    together = compressed(frames, 30, (2, 5))
    for frame, result in zip(frames, together, strict=True):
        np.testing.assert_allclose(compressed(frame, 30, (2, 5)), result, atol=1e-3)
