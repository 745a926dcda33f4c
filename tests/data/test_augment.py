"""Augmentation transforms image and points alike, and depends on the key only."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable

import jax
import numpy as np
import pytest
from data.dots import draw_dot, find_dot
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage import data

from rednet_jax.data.augment import Augmentation, Drift, augment
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.builtin import IBUG68, REDNET7
from rednet_jax.landmarks.crops import apply_affine, crop_image, crop_transform, invert_affine
from rednet_jax.landmarks.schemes import Scheme

DEFAULTS = dataclasses.asdict(Augmentation())
OFF = dict.fromkeys(DEFAULTS, 0.0)
GEOMETRY = ("rotation", "log_scale", "shift", "perspective", "mirror")
COVER, MARGIN, SIZE = 1.6, 1.25, 64
BATCH = 8


def keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


@functools.partial(jax.jit, static_argnames=("scheme", "size"))
def run(
    options: dict[str, float],
    keys: jax.Array,
    images: jax.Array,
    landmarks: jax.Array,
    labelled: jax.Array,
    scheme: Scheme = IBUG68,
    size: int = SIZE,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`augment` with traced options, so that all of them share one compiled program."""
    return augment(
        types.SimpleNamespace(**options),
        keys,
        images,
        landmarks,
        labelled,
        scheme=scheme,
        cover=COVER,
        margin=MARGIN,
        size=size,
    )


def in_batches(
    options: dict[str, float], keys: jax.Array, *faces: NDArray
) -> tuple[NDArray, NDArray, NDArray]:
    """`run` on any number of faces, in padded batches of BATCH, so that it compiles once."""
    count = len(keys)
    filled = np.arange(-(-count // BATCH) * BATCH) % count
    parts = [
        run(options, keys[rows], *(face[rows] for face in faces))
        for rows in filled.reshape(-1, BATCH)
    ]
    images, landmarks, labelled = (
        np.concatenate(part)[:count] for part in zip(*parts, strict=True)
    )
    return images, landmarks, labelled


LANDMARKS = (IBUG68.shape @ np.asarray([[0.98, 0.2], [-0.2, 0.98]]) * 90 + [224, 134]).astype(
    np.float32
)


@pytest.fixture(scope="module")
def draw() -> Callable[..., tuple[NDArray, NDArray, NDArray]]:
    """`draw(keys, **options)`: images of one face, with all other options disabled."""
    affine = crop_transform(landmark_box(LANDMARKS), margin=COVER * MARGIN, size=96)
    points = apply_affine(invert_affine(affine), LANDMARKS).astype(np.float32)
    cached = (crop_image(data.astronaut(), affine, 96), points, np.ones(68, bool))

    def draw(keys: jax.Array, **options: float) -> tuple[NDArray, NDArray, NDArray]:
        batch = (np.repeat(part[None], len(keys), axis=0) for part in cached)
        return in_batches({**OFF, **options}, keys, *batch)

    return draw


def dots(count: int, side: int) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]:
    """Returns grey images with one bright dot each, on the only labelled landmark."""
    landmarks = np.tile((IBUG68.shape * 45 + (side - 1) / 2), (count, 1, 1))
    chosen = np.random.default_rng(3).integers(0, 68, count)
    labelled = np.arange(68) == chosen[:, None]
    images = draw_dot(landmarks[labelled], side)
    return images, np.where(labelled[..., None], landmarks, 0).astype(np.float32), labelled


@pytest.mark.parametrize("paint", [False, True], ids=["geometry", "all but occlusion"])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_a_dot_on_a_landmark_stays_on_it(paint: bool, seed: int) -> None:
    options = {**DEFAULTS, "occlusion": 0.0}
    if not paint:
        options = {**OFF, **{name: DEFAULTS[name] for name in GEOMETRY}, "perspective": 0.1}
    images, landmarks, labelled = dots(64, 96)
    drawn, points, known = in_batches(options, keys(64, seed), images, landmarks, labelled)
    assert (known.sum(1) == 1).all() and (points[~known] == 0).all()
    mirrored = (known != labelled).any(1)
    assert 8 < mirrored.sum() < 56
    np.testing.assert_array_equal(known[mirrored], labelled[mirrored][:, IBUG68.mirror])
    where = points[known]
    inside = ((where > 6) & (where < SIZE - 7)).all(1)
    assert inside.sum() > 40
    dot = np.stack([find_dot(image) for image in drawn[inside]])
    assert np.abs(dot - where[inside]).max() < 0.5


def test_all_options_disabled_give_the_plain_crop(draw) -> None:
    images, landmarks, labelled = draw(keys(3))
    affine = crop_transform(landmark_box(LANDMARKS), margin=MARGIN, size=SIZE)
    plain = apply_affine(invert_affine(affine), LANDMARKS)
    assert images.dtype == np.float32 and labelled.all()
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_allclose(landmarks, np.tile(plain, (3, 1, 1)), atol=1e-3)
    crop = crop_image(data.astronaut(), affine, SIZE) / 255
    assert np.abs(images[0] - crop).mean() < 0.03


@pytest.mark.parametrize("option", DEFAULTS)
def test_each_option_has_an_effect(draw, option: str) -> None:
    """Enabled alone it changes the images, and the points if it is geometric."""
    alone = {"rotation": 20.0, "perspective": 0.1, "mirror": 1.0, "grey": 1.0, "blur": 1.5}
    rectangles = {"occlusion": 1.0, "occlusion_side": 0.4}
    together = {
        "occlusion": rectangles,
        "occlusion_side": rectangles,
        "blocks": {"blocks": 1.0, "worst_quality": 5.0, "best_quality": 5.0},
        "worst_quality": {"blocks": 1.0, "worst_quality": 5.0, "best_quality": 100.0},
        "best_quality": {"blocks": 1.0, "best_quality": 10.0},
    }
    plain, plain_points, _ = draw(keys(8))
    amount = together.get(option, {option: alone.get(option, 0.4)})
    images, points, labelled = draw(keys(8), **amount)
    assert labelled.all()
    assert images.min() >= 0 and images.max() <= 1
    assert np.abs(images - plain).max() > 0.05
    moved = np.abs(points - plain_points).max()
    assert moved > 1 if option in GEOMETRY else moved == 0
    without, _, _ = draw(keys(8), **{**amount, option: 0.0})
    if option.endswith("quality"):
        assert np.abs(without - images).max() > 0.05
    else:
        np.testing.assert_array_equal(without, plain)


def test_mirror_flips_image_and_labels(draw) -> None:
    plain, plain_points, _ = draw(keys(2))
    images, points, _ = draw(keys(2), mirror=1.0)
    np.testing.assert_allclose(images, plain[:, :, ::-1], atol=1e-3)
    expected = plain_points[:, IBUG68.mirror] * [-1, 1] + [SIZE - 1, 0]
    np.testing.assert_allclose(points, expected, atol=1e-3)


def test_a_draw_depends_on_its_own_key_only(draw) -> None:
    options = DEFAULTS
    images, points, _ = draw(keys(6), **options)
    again, _, _ = draw(keys(6), **options)
    np.testing.assert_array_equal(images, again)
    turned, turned_points, _ = draw(keys(6)[::-1], **options)
    np.testing.assert_array_equal(images, turned[::-1])
    np.testing.assert_array_equal(points, turned_points[::-1])
    other, _, _ = draw(keys(6, seed=1), **options)
    assert (np.abs(images - other).max((1, 2, 3)) > 0.05).all()


def test_a_draw_does_not_depend_on_the_batch() -> None:
    """A face drawn alone is the same as in a batch, up to the rounding of another program."""
    options = DEFAULTS
    images, landmarks, labelled = dots(BATCH, 96)
    together, _, _ = run(options, keys(BATCH), images, landmarks, labelled)
    alone, _, _ = run(options, keys(BATCH)[2:3], images[2:3], landmarks[2:3], labelled[2:3])
    np.testing.assert_allclose(alone[0], together[2], atol=1e-3)


def test_draws_have_the_documented_deviations() -> None:
    """Rotation, log size and shift: normal, truncated at 2.5 deviations, which leaves 0.954."""
    count, side = 4000, 8
    square = np.asarray([[0, 0], [7, 0], [7, 7], [0, 7], [2, 3], [1, 6], [5, 6]], np.float32)
    options = {**OFF, **{name: DEFAULTS[name] for name in GEOMETRY}, "perspective": 0.0}
    batch = (np.zeros((count, side, side, 3), np.uint8), np.tile(square, (count, 1, 1)))
    _, points, _ = run(
        options, keys(count), *batch, np.ones((count, 7), bool), scheme=REDNET7, size=side
    )
    points = np.asarray(points, np.float64)
    # Mirroring swaps the pairs 0-3 and 1-2, which turns the square upside down.
    reflected = points[:, 1, 0] < points[:, 0, 0]
    assert abs(reflected.mean() - 0.5) < 0.03
    plain = points[~reflected]
    edge = plain[:, 1] - plain[:, 0]
    rotation = np.degrees(np.arctan2(edge[:, 1], edge[:, 0]))
    log_scale = np.log(np.linalg.norm(edge, axis=-1) / (7 * COVER))
    # The crop's centre in pixels of the cached face, in sides of the landmarks' box.
    linear = np.stack([edge, plain[:, 3] - plain[:, 0]], -1) / 7
    centre = np.linalg.solve(linear, (3.5 - plain[:, 0])[..., None])[..., 0] - 3.5
    shift = centre / (side / (COVER * MARGIN))
    for draws, name in ((rotation, "rotation"), (log_scale, "log_scale"), (shift, "shift")):
        deviation = DEFAULTS[name]
        assert abs(draws.mean()) < 0.06 * deviation
        assert draws.std() == pytest.approx(0.954 * deviation, rel=0.05)
        assert 2.2 * deviation < abs(draws).max() <= 2.501 * deviation


def test_a_tilt_is_a_projective_map(draw) -> None:
    """The crop's centre is its fixed point."""
    amount = 0.1
    _, plain, _ = draw(keys(64))
    _, tilted, _ = draw(keys(64), perspective=amount)
    slopes = []
    for before, after in zip(plain - (SIZE - 1) / 2, tilted - (SIZE - 1) / 2, strict=True):
        # v = u / (1 + slope . u / half a side), so u - v = v (slope . u) / half a side.
        system = (before[..., None] * after[:, None]).reshape(-1, 2) / (SIZE / 2)
        slope, residual, *_ = np.linalg.lstsq(system, (after - before).ravel(), rcond=None)
        assert residual < 1e-4
        slopes.append(slope)
    assert np.std(slopes) == pytest.approx(0.954 * amount, rel=0.2)
    assert np.abs(slopes).max() <= 2.501 * amount


def test_the_defaults_are_no_narrower_than_jittered_boxes() -> None:
    """Truncation leaves 0.954 of the deviations; the jitter is that of `landmarks.boxes`."""
    for name, jitter in (("shift", 0.06), ("log_scale", 0.10)):
        assert 0.954 * DEFAULTS[name] >= jitter


@pytest.mark.parametrize(
    ("build", "cause"),
    [
        (lambda: Augmentation(mirror=1.2), r"augmentation.mirror must be in \[0, 1\], not 1.2"),
        (lambda: Augmentation(noise=-0.1), "augmentation.noise must be at least 0, not -0.1"),
        (lambda: Augmentation(perspective=0.3), r"augmentation.perspective must be in \[0, 0.1\]"),
        (lambda: Augmentation(worst_quality=95), r"augmentation.worst_quality \(95\) must be at"),
        (lambda: Augmentation(best_quality=101), "augmentation.best_quality must be in"),
        (lambda: Augmentation(blur=float("nan")), "augmentation.blur: nan is not a finite number"),
        (lambda: Drift(shift=-1), "drift.shift must be at least 0, not -1"),
    ],
)
def test_numbers_out_of_range_are_refused(build: Callable[[], object], cause: str) -> None:
    with pytest.raises(RednetError, match=cause):
        build()
