"""Corrupted clips: bursts are reproducible, and only their frames change."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rednet_jax.data.samples import ClipSample
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.corrupt import (
    AFTER,
    BURST_KINDS,
    DARK_FACE,
    LEAST_CLEAN,
    LONGEST,
    SHORTEST,
    Corruption,
    burst_parts,
    bursts,
    corrupted,
    darken,
    motion_blur,
    occlude,
    parse_corruption,
    reduce_resolution,
)
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.builtin import IBUG68

FRAMES = 60
FACE = 48.0
KINDS = [Corruption(kind) for kind in (*BURST_KINDS, "mixed")]


@pytest.fixture(scope="module")
def clip() -> ClipSample:
    """A face of 48 px on noise that moves by a pixel per frame; every second frame is labelled."""
    rng = np.random.default_rng(0)
    images = rng.integers(30, 226, (FRAMES, 90, 160, 3), np.uint8)
    shift = np.arange(FRAMES)[:, None, None] * np.array([1.0, 0.0])
    shape = IBUG68.shape - IBUG68.shape.min(0)
    points = (shape / np.ptp(IBUG68.shape, axis=0).max() * FACE + [20, 20] + shift).astype("f4")
    valid = np.arange(FRAMES) % 2 == 0
    boxes = np.stack([landmark_box(frame) for frame in points])
    return ClipSample(
        images=list(images),
        landmarks=np.where(valid[:, None, None], points, 0),
        labelled=np.repeat(valid[:, None], 68, axis=1),
        box=np.where(valid[:, None], boxes, 0),
        valid=valid,
        name="clip",
    )


@given(
    st.sampled_from(KINDS),
    st.integers(0, 2**40),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.integers(0, 400),
    st.integers(0, 60),
)
def test_bursts_have_the_documented_lengths_and_gaps(corruption, seed, name, frames, more) -> None:
    corruption = dataclasses.replace(corruption, seed=seed)
    planned = bursts(corruption, name, frames)
    stop = 0
    for burst in planned:
        assert burst.start - stop >= LEAST_CLEAN
        assert SHORTEST <= burst.stop - burst.start <= LONGEST
        assert burst.kind == corruption.kind or corruption.kind == "mixed"
        stop = burst.stop
    assert stop <= frames
    longer = bursts(corruption, name, frames + more)
    assert longer[: len(planned)] == planned
    same_frames = bursts(Corruption("dropped", seed=seed), name, frames)
    assert [burst[:2] for burst in same_frames] == [burst[:2] for burst in planned]
    parts = burst_parts(corruption, name, frames)
    assert (sum(part.astype(int) for part in parts.values()) == 1).all()
    assert parts["within"].sum() == sum(burst.stop - burst.start for burst in planned)
    for burst in planned:
        assert parts["after"][burst.stop : burst.stop + AFTER].all()


def test_bursts_differ_by_seed_and_clip_and_mixtures_have_every_kind() -> None:
    plans = [
        bursts(Corruption("mixed", seed=seed), name, 1000) for seed in (0, 1) for name in ("a", "b")
    ]
    assert len({tuple(plan) for plan in plans}) == 4
    assert all({burst.kind for burst in plan} == set(BURST_KINDS) for plan in plans)
    # Pinned, since results of different machines must be comparable.
    assert plans[0][:3] == [
        (20, 30, "low-resolution"),
        (50, 57, "low-resolution"),
        (77, 82, "occluder"),
    ]


@pytest.mark.parametrize("corruption", KINDS, ids=str)
def test_only_frames_of_bursts_change_and_reproducibly(clip, corruption) -> None:
    within = burst_parts(corruption, clip.name, FRAMES)["within"]
    assert within.any()
    before = [image.copy() for image in clip.images]
    backwards = {frame: corrupted(corruption, clip, frame) for frame in reversed(range(FRAMES))}
    for frame in range(FRAMES):
        image = corrupted(corruption, clip, frame)
        assert image.dtype == np.uint8 and image.shape == clip.images[frame].shape
        np.testing.assert_array_equal(image, backwards[frame])
        assert np.array_equal(image, clip.images[frame]) != within[frame]
    np.testing.assert_array_equal(clip.images, before)
    reseeded = dataclasses.replace(corruption, seed=1)
    planned = bursts(reseeded, clip.name, FRAMES)
    assert planned != bursts(corruption, clip.name, FRAMES)


def test_clean_bursts_are_the_same_frames_unchanged(clip) -> None:
    clean = Corruption("clean")
    planned = bursts(clean, clip.name, FRAMES)
    assert [b[:2] for b in planned] == [b[:2] for b in bursts(KINDS[0], clip.name, FRAMES)]
    for frame in range(FRAMES):
        np.testing.assert_array_equal(corrupted(clean, clip, frame), clip.images[frame])


def test_dropped_frames_repeat_the_frame_before_the_burst(clip) -> None:
    dropped = Corruption("dropped")
    for burst in bursts(dropped, clip.name, FRAMES):
        for frame in range(burst.start, burst.stop):
            shown = corrupted(dropped, clip, frame)
            np.testing.assert_array_equal(shown, clip.images[burst.start - 1])


def test_an_occluder_crosses_the_face_from_border_to_border(clip) -> None:
    (burst, *_) = bursts(Corruption("occluder"), clip.name, FRAMES)
    covered = []
    for frame in range(burst.start, burst.stop):
        image = corrupted(Corruption("occluder"), clip, frame)
        hidden = (image != clip.images[frame]).any(-1)
        x0, y0 = 20 + frame, 20
        covered.append(hidden[y0 : y0 + 49, x0 : x0 + 49].mean())
    # A quarter of the box when the bar is in its middle; the bar may be oblique.
    assert max(covered) == pytest.approx(0.25, abs=0.1)
    assert covered.index(max(covered)) not in (0, len(covered) - 1)


def test_the_strength_scales_the_occluders_width() -> None:
    image = np.zeros((101, 101, 3), np.uint8)
    box = np.array([30.0, 30, 70, 70])
    for strength in (1.0, 2.0):
        shown = occlude(image, box, box, 0.5, np.random.default_rng(3), strength)
        area = (shown > 0).all(-1).sum()
        assert area == pytest.approx(strength * 10 * 80, rel=0.1)
        assert (shown[50, 50] > 0).all()


def test_blur_spreads_a_point_along_a_line_about_its_position() -> None:
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 255
    level = motion_blur(image, 10.0, 0.0)[..., 0].astype(float)
    assert (level[:20] == 0).all() and (level[21:] == 0).all()
    # 11 pixels, of which those at the ends have half the weight.
    np.testing.assert_allclose(level[20, 16:25], 25.5, atol=1.5)
    assert (level[20, :14] == 0).all() and (level[20, 27:] == 0).all()
    oblique = motion_blur(image, 9.0, np.pi / 3)[..., 0].astype(float)
    y, x = np.mgrid[:41, :41]
    np.testing.assert_allclose(
        [(oblique * x).sum() / oblique.sum(), (oblique * y).sum() / oblique.sum()], 20, atol=0.1
    )
    spread = np.array([[(oblique * (x - 20) ** 2).sum(), 0], [0, (oblique * (y - 20) ** 2).sum()]])
    assert spread[1, 1] > 2 * spread[0, 0]
    flat = np.full((30, 30, 3), 77, np.uint8)
    np.testing.assert_array_equal(motion_blur(flat, 20.0, 1.0), flat)


def test_dark_images_have_the_requested_light_and_noise() -> None:
    grey = np.full((300, 300, 3), 200, np.uint8)
    light = 1000 * 0.25 * (200 / 255) ** 2.2
    for noise in (1.0, 2.0):
        dark = darken(grey, 0.25, noise, np.random.default_rng(0))
        electrons = 1000 * (dark / 255.0) ** 2.2
        assert electrons.mean() == pytest.approx(light, rel=0.02)
        assert electrons.std() == pytest.approx(noise * np.sqrt(light + 9), rel=0.03)
    assert DARK_FACE == 100


def test_low_resolution_averages_without_a_shift() -> None:
    image = np.zeros((80, 120, 3), np.uint8)
    image[24:32, 40:48] = 200
    low = reduce_resolution(image, 1 / 8)[..., 0].astype(float)
    y, x = np.mgrid[:80, :120]
    assert (low * x).sum() / low.sum() == pytest.approx(43.5, abs=0.2)
    assert (low * y).sum() / low.sum() == pytest.approx(27.5, abs=0.2)
    assert low.max() == pytest.approx(200, abs=20)
    np.testing.assert_array_equal(reduce_resolution(image, 1.5), image)


def test_a_corruption_as_text() -> None:
    assert parse_corruption("dark") == Corruption("dark")
    assert parse_corruption("dark:0.5") == Corruption("dark", 0.5)
    assert parse_corruption("mixed:2:7") == Corruption("mixed", 2.0, 7)
    for corruption in (*KINDS, Corruption("dark", 0.1, 3)):
        assert parse_corruption(str(corruption)) == corruption


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fog", "corrupt.kind: 'fog'"),
        ("", "corrupt.kind: ''"),
        ("dark:much", "'dark:much' does not have the form"),
        ("dark:1:2:3", "'dark:1:2:3' does not have the form"),
        ("dark:1:0.5", "'dark:1:0.5' does not have the form"),
        ("dark:0", "must be 0.05 to 4, not 0"),
        ("dark:nan", "corrupt.strength"),
        ("dark:5", "must be 0.05 to 4, not 5"),
        ("dark:1:-1", "corrupt.seed: must be 0 or more"),
        ("dropped:0.5", "must be 1 for dropped frames"),
        ("clean:2", "must be 1 for clean frames"),
    ],
)
def test_an_invalid_corruption_raises(text, message) -> None:
    with pytest.raises(RednetError, match=message):
        parse_corruption(text)
