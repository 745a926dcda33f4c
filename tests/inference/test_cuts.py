"""Another image is a cut; motion, brightness and grain are not."""

from __future__ import annotations

import numpy as np

from rednet_jax.inference.cuts import CutFinder


def cuts(*frames) -> list[bool]:
    finder = CutFinder()
    return [finder.update(frame) for frame in frames]


def blocks(seed: int, size=(240, 320)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    grey = np.kron(rng.integers(256, size=(12, 16)), np.ones((size[0] // 12, size[1] // 16)))
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


def test_another_image_is_a_cut_and_the_same_image_is_none():
    a, b = blocks(0), blocks(1)
    assert cuts(a, a, b, b, a) == [False, False, True, False, True]


def test_motion_light_and_grain_are_no_cuts(portrait):
    grain = np.random.default_rng(0).normal(0, 25, portrait.shape)
    frames = [portrait[8 * n : 8 * n + 300, 6 * n : 6 * n + 400] for n in range(5)]
    frames.append((frames[-1] * 0.5 + 10).astype(np.uint8))
    frames.append(np.clip(frames[-1] + grain[:300, :400], 0, 255).astype(np.uint8))
    assert not any(cuts(*frames))


def test_an_object_that_moves_through_the_image_is_no_cut():
    """It is so bright that the correlation of the whole images is small."""
    background = blocks(0) // 4
    frames = [background]
    for left in range(0, 160, 20):
        frames.append(background.copy())
        frames[-1][40:160, left : left + 60] = 255
    assert not any(cuts(*frames, background))


def test_the_noise_of_dark_frames_is_no_cut(portrait):
    """Noise of three times the contrast, independent in each frame and pixel."""
    image = np.kron(portrait, np.ones((3, 3, 1))) * 0.1 + 100
    rng = np.random.default_rng(0)
    noisy = [image + rng.normal(0, 3 * image.std(), image.shape) for _ in range(3)]
    assert not any(cuts(*(np.clip(frame, 0, 255).astype(np.uint8) for frame in noisy)))


def test_black_between_two_shots_is_a_cut():
    black = np.zeros((240, 320, 3), np.uint8)
    assert cuts(blocks(0), black)[1]
    assert cuts(black, blocks(0))[1]


def test_images_of_any_size():
    for size in ((12, 16), (1200, 1600), (24, 160)):
        a, b = blocks(0, size), blocks(1, size)
        assert cuts(a, a, b) == [False, False, True]
