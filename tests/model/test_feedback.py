"""The feedback map, and its resampling into another crop."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rednet_jax.landmarks.builtin import IBUG68, REDNET7
from rednet_jax.landmarks.convert import indices_in
from rednet_jax.landmarks.crops import crop_transform, warp
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.feedback import feedback_map, label_map, move

Narrow = Callable[..., RedNetConfig]
draw = jax.jit(label_map)
resample = jax.jit(move, static_argnums=2, static_argnames="nearest")


def maps_of(owners: np.ndarray, classes: int) -> jax.Array:
    """Response maps [1, H, W, classes] with the largest response at each pixel for its owner."""
    return jnp.asarray(np.eye(classes, dtype=np.float32)[owners][None])


def test_squares_of_the_label_map_shrink_with_the_passes() -> None:
    owners = np.zeros((16, 16), int)
    owners[4:7, 4:7] = 1  # centre (5, 5)
    owners[12, 10] = 2
    maps = jnp.concatenate([maps_of(owners, 4)] * 3)
    drawn = np.asarray(draw(maps, jnp.asarray([0, 1, 5])))[..., 0]
    for sample, side in zip(drawn, (7, 5, 3), strict=True):
        half = side // 2
        expected = np.zeros((16, 16))
        expected[5 - half : 6 + half, 5 - half : 6 + half] = 1
        expected[12 - half : 13 + half, 10 - half : 11 + half] = 2
        np.testing.assert_array_equal(sample, expected)


def test_squares_centred_between_pixels_have_the_same_width_and_the_larger_label_wins() -> None:
    owners = np.zeros((16, 16), int)
    owners[5, 5:7] = 1  # centre (5.5, 5)
    owners[5, 8] = 2
    drawn = np.asarray(draw(maps_of(owners, 3), jnp.asarray([2])))[0, :, :, 0]
    assert (drawn == 1).sum() + (drawn == 2).sum() == 2 * 9 - 3 * (7 - 6)
    assert (drawn == 2).sum() == 9


def test_a_landmark_without_pixels_has_no_square() -> None:
    drawn = draw(maps_of(np.zeros((8, 8), int), 3), jnp.asarray([0]))
    assert not np.any(drawn)


def test_kinds_of_feedback(narrow: Narrow) -> None:
    maps = jax.random.uniform(jax.random.key(0), (1, 16, 16, 69))
    passes = jnp.zeros(1, jnp.int32)
    np.testing.assert_array_equal(feedback_map(narrow("compact"), maps, passes), maps)
    assert feedback_map(narrow("compact", feedback="none"), maps, passes).shape[-1] == 0
    journal = feedback_map(narrow("ijcv_resnet"), maps[..., 1:], passes)
    seven = np.asarray(maps)[..., 1:][..., list(indices_in(IBUG68, REDNET7) or ())]
    np.testing.assert_allclose(journal[0, 0, 0], seven[0, :2, :2].mean((0, 1)), rtol=1e-6)


def test_the_identity_does_not_change_maps() -> None:
    maps = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3))
    warps = jnp.broadcast_to(jnp.eye(2, 3), (2, 2, 3))
    np.testing.assert_allclose(resample(maps, warps, 32), maps, atol=1e-6)
    np.testing.assert_array_equal(resample(maps, warps, 32, nearest=True), maps)


def test_a_shift_by_whole_map_pixels() -> None:
    """If the crop moves right by 2 map pixels, old column x + 2 is at x, with zeros beyond."""
    maps = jax.random.uniform(jax.random.key(0), (1, 8, 8, 3))
    warps = jnp.asarray([[[1.0, 0, 8], [0, 1, 0]]])
    for nearest in (False, True):
        shifted = resample(maps, warps, 32, nearest=nearest)
        np.testing.assert_allclose(shifted[:, :, :6], maps[:, :, 2:], atol=1e-5)
        np.testing.assert_array_equal(shifted[:, :, 6:], 0)


def test_resampled_maps_equal_maps_of_the_new_crop() -> None:
    """A smooth image, cropped and resampled, against the image in the new crop."""
    grid = np.linspace(0, 1, 64, dtype=np.float32)
    image = jnp.asarray(np.sin(4 * grid)[:, None] * np.cos(3 * grid)[None])[..., None]
    old = crop_transform(np.array([12.0, 12, 44, 44]), margin=1.5, size=32).astype(np.float32)
    new = crop_transform(np.array([16.0, 14, 40, 42]), margin=1.2, size=32).astype(np.float32)
    cut = jax.jit(warp, static_argnums=2)
    crops = [cut(image, jnp.asarray(affine), (32, 32)) for affine in (old, new)]
    to_old = np.linalg.inv(np.vstack([old, [0, 0, 1]])) @ np.vstack([new, [0, 0, 1]])
    resampled = resample(crops[0][None], jnp.asarray(to_old[None, :2], jnp.float32), 32)
    np.testing.assert_allclose(resampled[0], crops[1], atol=2e-3)
