"""Crops of clips follow the face as a tracker does, share one draw, and have exact warps."""

from __future__ import annotations

import dataclasses
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data.dots import draw_dot, find_dot
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage import data

from rednet_jax.data.augment import Augmentation, Drift, augment_clips
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.crops import (
    apply_affine,
    compose_affine,
    crop_image,
    crop_transform,
    invert_affine,
)

CLIPS, FRAMES, CACHED, SIZE = 32, 5, 96, 64
COVER, MARGIN = 1.6, 1.25
NOSE = 30
DEFAULTS = {**dataclasses.asdict(Augmentation()), "occlusion": 0.0}
OFF = dict.fromkeys(DEFAULTS, 0.0)
DRIFT = dataclasses.asdict(Drift())
STILL = dict.fromkeys(DRIFT, 0.0)

seeds = st.integers(0, 2**31 - 1)
few = settings(max_examples=4, deadline=None)


@jax.jit
def program(
    options: dict[str, float], drift: dict[str, float], keys: jax.Array, *clips: jax.Array
) -> tuple[jax.Array, ...]:
    """`augment_clips` with traced options and drift, so that all share one compiled program."""
    return augment_clips(
        types.SimpleNamespace(**options),
        types.SimpleNamespace(**drift),
        keys,
        *clips,
        scheme=IBUG68,
        cover=COVER,
        margin=MARGIN,
        size=SIZE,
    )


def run(
    options: dict[str, float], drift: dict[str, float], *clips: NDArray, seed: int = 0
) -> list[NDArray]:
    """Returns images, landmarks, labelled and warps of CLIPS clips."""
    keys = jax.random.split(jax.random.key(seed), CLIPS)
    return [np.asarray(part) for part in program(options, drift, keys, *clips)]


def moving_boxes(seed: int, pace: float = 1.0) -> NDArray[np.float64]:
    """Returns boxes [CLIPS, FRAMES, 4] of faces that move and change size."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(100, 300, (CLIPS, 1, 2))
    side = rng.uniform(50, 90, (CLIPS, 1, 1))
    walk = pace * np.cumsum(rng.normal(0, [0.04, 0.04, 0.02], (CLIPS, FRAMES, 3)), axis=1)
    centre, half = start + side * walk[..., :2], side * np.exp(walk[..., 2:]) / 2
    return np.concatenate([centre - half, centre + half], -1)


def cached(boxes: NDArray) -> NDArray[np.float32]:
    """Returns the affines of frames cached around boxes."""
    return crop_transform(boxes, margin=COVER * MARGIN, size=CACHED).astype(np.float32)


def with_dots(boxes: NDArray, places: NDArray, landmark: NDArray) -> tuple[NDArray, ...]:
    """Returns clips with one dot per frame, at places [CLIPS, FRAMES, 2] of the video's image.

    The dot is the landmark of that index, the only labelled one of the clip.
    """
    affines = cached(boxes)
    points = apply_affine(invert_affine(affines), places[..., None, :])
    labelled = np.broadcast_to((np.arange(68) == landmark[:, None])[:, None], (CLIPS, FRAMES, 68))
    landmarks = np.where(labelled[..., None], points, 0).astype(np.float32)
    return draw_dot(points[..., 0, :], CACHED), landmarks, labelled, affines


def check_dots(images: NDArray, points: NDArray) -> None:
    inside = ((points > 6) & (points < SIZE - 7)).all(-1)
    assert inside.mean() > 0.5
    dots = np.stack([find_dot(image) for image in images[inside]])
    assert np.abs(dots - points[inside]).max() < 0.6


@few
@given(seed=seeds)
def test_a_dot_on_a_landmark_stays_on_it_in_every_frame(seed: int) -> None:
    boxes = moving_boxes(seed)
    which = np.random.default_rng(seed).integers(0, 68, CLIPS)
    middle, side = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    places = middle + IBUG68.shape[which][:, None] * side
    clips = with_dots(boxes, places, which)
    images, landmarks, labelled, _ = run(DEFAULTS, DRIFT, *clips, seed=seed)
    assert (labelled.sum(-1) == 1).all() and (landmarks[~labelled] == 0).all()
    mirrored = (labelled != clips[2]).any((1, 2))
    np.testing.assert_array_equal(labelled[mirrored], clips[2][mirrored][..., list(IBUG68.mirror)])
    check_dots(images, landmarks[labelled].reshape(CLIPS, FRAMES, 2))


@few
@given(seed=seeds)
def test_warps_map_a_fixed_dot_to_its_position_in_the_crop_before(seed: int) -> None:
    boxes = moving_boxes(seed)
    place = boxes[:, :1, :2] + np.random.default_rng(seed).uniform(20, 40, (CLIPS, 1, 2))
    clips = with_dots(boxes, np.repeat(place, FRAMES, 1), np.full(CLIPS, NOSE))
    images, landmarks, _, warps = run(DEFAULTS, DRIFT, *clips, seed=seed)
    points = landmarks[:, :, NOSE]
    check_dots(images, points)
    before = apply_affine(warps, points[:, :, None])[:, :, 0]
    np.testing.assert_allclose(before[:, 0], points[:, 0])
    np.testing.assert_allclose(before[:, 1:], points[:, :-1], atol=2e-3)
    assert np.abs(before - points).max() > 2


def test_all_options_disabled_give_the_crops_of_a_tracker() -> None:
    boxes = moving_boxes(0)
    affines, portrait = cached(boxes), data.astronaut()
    images = np.stack([[crop_image(portrait, a, CACHED) for a in clip] for clip in affines])
    rng = np.random.default_rng(0)
    places = boxes[:, :, None, :2] + rng.uniform(0, 60, (CLIPS, FRAMES, 68, 2))
    landmarks = apply_affine(invert_affine(affines), places).astype(np.float32)
    labelled = rng.random((CLIPS, FRAMES, 68)) < 0.5
    crops, points, known, warps = run(OFF, STILL, images, landmarks, labelled, affines)
    followed = np.concatenate([boxes[:, :1], boxes[:, :-1]], axis=1)
    plain = crop_transform(followed, margin=MARGIN, size=SIZE)
    np.testing.assert_array_equal(known, labelled)
    expected = np.where(known[..., None], apply_affine(invert_affine(plain), places), 0)
    np.testing.assert_allclose(points, expected, atol=2e-3)
    moves = compose_affine(invert_affine(plain[:, :-1]), plain[:, 1:])
    np.testing.assert_array_equal(warps[:, 0], np.tile(np.eye(2, 3), (CLIPS, 1, 1)))
    np.testing.assert_allclose(warps[:, 1:], moves, atol=2e-3)
    for crop, affine in zip(crops[:4], plain[:4], strict=True):
        for frame in range(FRAMES):
            shown = crop_image(portrait, affine[frame], SIZE) / 255
            assert np.abs(crop[frame] - shown).mean() < 0.03


def test_crops_after_an_unlabelled_frame() -> None:
    """They use the latest labelled frame before it, else the first labelled one."""
    boxes = moving_boxes(1)
    patterns = np.asarray(list(itertools.product([False, True], repeat=FRAMES)))
    labelled = np.repeat(patterns[..., None], 68, -1)
    blank = np.zeros((CLIPS, FRAMES, CACHED, CACHED, 3), np.uint8)
    points = np.zeros((CLIPS, FRAMES, 68, 2), np.float32)
    *_, warps = run(OFF, STILL, blank, points, labelled, cached(boxes))
    for box, pattern, moves in zip(boxes, patterns, warps, strict=True):
        known = np.flatnonzero(pattern) if pattern.any() else np.zeros(1, int)
        followed = []
        for last in (0, *range(FRAMES - 1)):
            earlier = known[known <= last]
            followed.append(earlier[-1] if len(earlier) else known[0])
        crops = crop_transform(box[followed], margin=MARGIN, size=SIZE)
        expected = compose_affine(invert_affine(crops[:-1]), crops[1:])
        np.testing.assert_allclose(moves[1:], expected, atol=2e-3)


def still_faces() -> tuple[NDArray, ...]:
    """Returns clips of identical frames, cached around the same box, with all landmarks."""
    boxes = moving_boxes(2, pace=0.0)
    image = crop_image(data.astronaut(), cached(np.asarray([178.0, 68, 270, 160])), CACHED)
    points = IBUG68.shape * CACHED / (COVER * MARGIN) + (CACHED - 1) / 2
    parts = (image, points.astype(np.float32), np.ones(68, bool))
    tiled = (np.broadcast_to(part, (CLIPS, FRAMES, *part.shape)) for part in parts)
    return (*tiled, cached(boxes))


def test_all_frames_share_one_draw() -> None:
    """Without noise, a still face is the same in all frames of a clip, but differs among clips."""
    images, points, _, warps = run({**DEFAULTS, "noise": 0.0}, STILL, *still_faces())
    assert np.abs(images - images[:, :1]).max() < 1e-3
    np.testing.assert_allclose(points, np.broadcast_to(points[:, :1], points.shape), atol=1e-3)
    np.testing.assert_allclose(warps, np.broadcast_to(np.eye(2, 3), warps.shape), atol=1e-3)
    for a, b in itertools.pairwise(range(CLIPS)):
        assert np.abs(images[a, 0] - images[b, 0]).max() > 0.05
        assert np.abs(points[a, 0] - points[b, 0]).max() > 0.1


def test_occluders_do_not_move() -> None:
    plain, *_ = run(OFF, STILL, *still_faces())
    hidden, *_ = run({**OFF, "occlusion": 1.0, "occlusion_side": 0.4}, STILL, *still_faces())
    where = (hidden != plain).any(-1)
    assert (where.mean((1, 2, 3)) > 0.001).all()
    np.testing.assert_array_equal(where, np.broadcast_to(where[:, :1], where.shape))


def test_noise_is_independent_in_each_frame_and_of_equal_strength() -> None:
    plain, *_ = run(OFF, STILL, *still_faces())
    noisy, *_ = run({**OFF, "noise": 0.04}, STILL, *still_faces())
    unclipped = (plain > 0.15) & (plain < 0.85)
    noise = np.where(unclipped, noisy - plain, 0).reshape(CLIPS, FRAMES, -1)
    strength = noise.std(-1)
    np.testing.assert_allclose(strength, np.tile(strength[:, :1], FRAMES), rtol=0.05, atol=1e-6)
    assert strength[:, 0].std() > 0.005
    for clip in noise[strength[:, 0] > 1e-3]:
        assert np.abs(np.corrcoef(clip) - np.eye(FRAMES)).max() < 0.06


@pytest.mark.parametrize("option", DRIFT)
def test_drift_is_autoregressive(option: str) -> None:
    """Its deviation is that of x <- 0.9 x + draw, from x = 0."""
    amount = {"shift": 0.02, "log_scale": 0.02, "rotation": 2.0}[option]
    clips, drifts = still_faces(), []
    for seed in range(4):
        _, points, _, _ = run(OFF, {**STILL, option: amount}, *clips, seed=seed)
        first, last = (points[:, :, i] - (SIZE - 1) / 2 for i in (0, 16))
        across = (last - first) @ [1, 1j]
        across /= across[:, :1]
        turn, growth = np.degrees(np.angle(across)), np.log(abs(across))
        moved = (points.mean(2) - points[:, :1].mean(2)) / (SIZE / MARGIN)
        draws = {"shift": moved, "log_scale": growth[..., None], "rotation": turn[..., None]}
        drifts.append(draws.pop(option))
        if option == "shift":
            assert all(np.abs(rest).max() < 1e-3 for rest in draws.values())
    drift = np.concatenate(drifts)
    assert np.abs(drift[:, 0]).max() < 1e-6
    variance = np.cumsum(0.9 ** (2 * np.arange(FRAMES - 1)))
    expected = 0.954 * amount * np.sqrt(variance)
    np.testing.assert_allclose(drift[:, 1:].std((0, 2)), expected, rtol=0.2)
    assert np.abs(drift[:, 1]).max() <= 2.51 * amount


def test_a_mirrored_clip_moves_the_other_way() -> None:
    boxes = moving_boxes(3)
    images, landmarks, labelled, _ = still_faces()
    clips = (images, landmarks, labelled, cached(boxes))
    options = {**DEFAULTS, "noise": 0.0, "blocks": 0.0, "mirror": 0.0}
    plain, points, _, warps = run(options, DRIFT, *clips)
    mirrored, mirrored_points, _, mirrored_warps = run({**options, "mirror": 1.0}, DRIFT, *clips)
    assert np.abs(mirrored - plain[:, :, :, ::-1]).max() < 0.02
    expected = points[:, :, list(IBUG68.mirror)] * [-1, 1] + [SIZE - 1, 0]
    np.testing.assert_allclose(mirrored_points, expected, atol=2e-3)
    flip = np.asarray([[-1, 0, SIZE - 1], [0, 1, 0]], np.float32)
    conjugated = compose_affine(flip, compose_affine(warps, flip))
    np.testing.assert_allclose(mirrored_warps, conjugated, atol=2e-3)


def test_a_clip_depends_on_its_own_key_only() -> None:
    clips = still_faces()
    keys = jax.random.split(jax.random.key(0), CLIPS)
    drawn = program(DEFAULTS, DRIFT, keys, *clips)
    turned = program(DEFAULTS, DRIFT, keys[::-1], *(jnp.flip(part, 0) for part in clips))
    for part, reversed_part in zip(drawn, turned, strict=True):
        np.testing.assert_array_equal(part, reversed_part[::-1])
