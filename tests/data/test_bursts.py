"""Bursts of corrupted frames in training clips."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rednet_jax.data.augment import Bursts, add_bursts, bursts
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.crops import warp

CLIPS, FRAMES, SIZE, MARGIN = 64, 8, 32, 1.25


@pytest.fixture(scope="module")
def clips() -> jax.Array:
    """Noise; each frame is other noise."""
    return jax.random.uniform(jax.random.key(0), (CLIPS, FRAMES, SIZE, SIZE, 3))


@pytest.fixture(scope="module")
def warps() -> jax.Array:
    """Each crop lies half a pixel to the right of the one before."""
    move = jnp.eye(2, 3).at[0, 2].set(0.5)
    return jnp.tile(move, (CLIPS, FRAMES, 1, 1)).at[:, 0].set(jnp.eye(2, 3))


def run(config: Bursts, clips: jax.Array, warps: jax.Array, seed: int = 0) -> np.ndarray:
    keys = jax.random.split(jax.random.key(seed), len(clips))
    return np.asarray(add_bursts(config, keys, clips, warps, margin=MARGIN))


@pytest.fixture(scope="module")
def always(clips: jax.Array, warps: jax.Array) -> np.ndarray:
    return run(Bursts(1.0, 2, 4), clips, warps)


def test_a_burst_is_one_run_of_frames_and_leaves_the_others(clips, always) -> None:
    changed = (always != np.asarray(clips)).any((2, 3, 4))
    lengths = changed.sum(1)
    # A burst of dropped frames that begins before the clip changes nothing.
    assert (lengths > 0).mean() > 0.8 and lengths.max() == 4
    for row in changed:
        places = np.flatnonzero(row)
        assert len(places) == 0 or places[-1] - places[0] == len(places) - 1
    # At both ends of the clip bursts are cut off.
    assert changed[:, 0].any() and changed[:, -1].any()
    assert np.isfinite(always).all() and always.min() >= 0 and always.max() <= 1


def test_draws_depend_on_the_key_of_the_clip_alone(clips, warps, always) -> None:
    keys = jax.random.split(jax.random.key(0), CLIPS)[3:5]
    some = add_bursts(Bursts(1.0, 2, 4), keys, clips[3:5], warps[3:5], margin=MARGIN)
    np.testing.assert_allclose(some, always[3:5], atol=1e-6)
    assert (run(Bursts(1.0, 2, 4), clips, warps, seed=1) != always).any()


def test_the_share_of_clips_with_a_burst_is_the_probability(clips, warps) -> None:
    some = run(Bursts(0.5, 2, 4), clips, warps)
    share = (some != np.asarray(clips)).any((1, 2, 3, 4)).mean()
    assert 0.25 < share < 0.6
    np.testing.assert_array_equal(run(Bursts(0.0, 2, 4), clips, warps), clips)


def test_dropped_frames_show_the_frame_before_in_their_own_crop(clips, warps) -> None:
    held = bursts._held(clips[0], warps[0], jnp.int32(3))
    for frame in (3, 5):
        move = jnp.eye(2, 3).at[0, 2].set(0.5 * (frame - 2))
        np.testing.assert_allclose(held[frame], warp(clips[0, 2], move, (SIZE, SIZE)), atol=1e-5)
    # There is no frame before the first one.
    np.testing.assert_array_equal(bursts._held(clips[0], warps[0], jnp.int32(0)), clips[0])


def test_the_occluder_crosses_the_middle_and_is_the_same_bar_in_all_frames() -> None:
    frames = jnp.zeros((5, SIZE, SIZE, 3))
    side = SIZE / MARGIN
    passed = jnp.array([0, 0.25, 0.5, 0.75, 1])
    covered = np.asarray(bursts._occluded(jax.random.key(3), frames, passed, side)) > 0
    assert covered[2, SIZE // 2, SIZE // 2].all()
    share = covered.any(-1).mean((1, 2))
    assert share[2] == share.max() and 0.05 < share[2] < 0.5
    centre = np.stack([np.argwhere(one.any(-1)).mean(0) for one in covered])
    # At right angles to its length, as far as the face is wide.
    steps = np.diff(centre, axis=0)
    assert np.linalg.norm(steps.sum(0)) == pytest.approx(side, rel=0.35)


def test_blur_keeps_the_mean_and_darkness_and_low_resolution_lose_detail() -> None:
    frames = jnp.broadcast_to(
        jax.random.uniform(jax.random.key(1), (1, SIZE, SIZE, 3)), (2, SIZE, SIZE, 3)
    )
    key, side = jax.random.key(5), SIZE / MARGIN
    flat = jnp.full_like(frames, 0.5)
    np.testing.assert_allclose(bursts._blurred(key, flat, side), flat, atol=1e-6)
    blurred = bursts._blurred(key, frames, side)
    assert blurred.std() < frames.std()
    assert bursts._darkened(key, flat).mean() < 0.3
    np.testing.assert_allclose(bursts._reduced(key, flat, side), flat, atol=1e-5)
    # A face of 100 px that is reduced to 40 or fewer.
    large = jax.random.uniform(key, (1, 128, 128, 3))
    reduced = bursts._reduced(key, large, 100.0)
    assert reduced.shape == large.shape and reduced.std() < 0.7 * large.std()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"probability": 1.5}, r"bursts.probability must be in \[0, 1\], not 1.5"),
        ({"shortest": 0}, "1 <= shortest <= longest frames, not 0 and 15"),
        ({"shortest": 9, "longest": 8}, "not 9 and 8"),
    ],
)
def test_numbers_out_of_range_are_refused(fields, message) -> None:
    with pytest.raises(RednetError, match=message):
        Bursts(**fields)
