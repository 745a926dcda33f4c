"""Augmentation holds picture and points together, and depends on nothing but the key."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from skimage import data

from rednet_jax.data.augment import Augmentation, augment
from rednet_jax.data.cache import cache_faces
from rednet_jax.data.samples import Sample
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.crops import apply_affine, crop_transform, cut_crop, invert_affine
from rednet_jax.landmarks.schemes import LANDMARKS_7, LANDMARKS_68, Scheme, mean_shape

OPTIONS = [field.name for field in dataclasses.fields(Augmentation)]
OFF = dict.fromkeys(OPTIONS, 0.0)
GEOMETRY = ("rotation", "log_scale", "shift", "mirror")
COVER, MARGIN, SIZE = 1.6, 1.25, 64


def keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


@functools.partial(jax.jit, static_argnames=("scheme", "size"))
def run(
    options: dict[str, float],
    keys: jax.Array,
    images: jax.Array,
    landmarks: jax.Array,
    labelled: jax.Array,
    scheme: Scheme = LANDMARKS_68,
    size: int = SIZE,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`augment` with the options as arguments of the program: one compilation for all of them."""
    return augment(
        Augmentation(**options),
        keys,
        images,
        landmarks,
        labelled,
        scheme=scheme,
        cover=COVER,
        margin=MARGIN,
        size=size,
    )


@pytest.fixture(scope="module")
def face() -> Sample:
    turn = np.asarray([[0.98, 0.2], [-0.2, 0.98]])
    landmarks = (mean_shape(LANDMARKS_68) @ turn * 90 + [224, 134]).astype(np.float32)
    return Sample(data.astronaut(), landmarks, np.ones(68, bool), landmark_box(landmarks), "a")


@pytest.fixture(scope="module")
def draw(face: Sample) -> Callable[..., tuple[NDArray, NDArray, NDArray]]:
    """`draw(keys, **options)`: pictures of one face, with every other option switched off."""

    class One(list[Sample]):
        skipped: list[str] = []  # noqa: RUF012

    cache, _ = cache_faces(One([face]), margin=COVER * MARGIN, size=96)

    def draw(keys: jax.Array, **options: float) -> tuple[NDArray, NDArray, NDArray]:
        batch = (jnp.repeat(jnp.asarray(part), len(keys), axis=0) for part in cache)
        images, landmarks, labelled = run({**OFF, **options}, keys, *batch)
        return np.asarray(images), np.asarray(landmarks), np.asarray(labelled)

    return draw


def dots(count: int, side: int) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]:
    """Grey pictures with one bright dot each, on the only landmark that is labelled."""
    rng = np.random.default_rng(3)
    landmarks = np.tile((mean_shape(LANDMARKS_68) * 45 + (side - 1) / 2), (count, 1, 1))
    chosen = rng.integers(0, 68, count)
    labelled = np.arange(68) == chosen[:, None]
    y, x = np.mgrid[:side, :side]
    away = (x - landmarks[labelled][:, 0, None, None]) ** 2
    away += (y - landmarks[labelled][:, 1, None, None]) ** 2
    grey = np.round(60 + 190 * np.exp(-away / (2 * 2.0**2))).astype(np.uint8)
    images = np.repeat(grey[..., None], 3, -1)
    return images, np.where(labelled[..., None], landmarks, 0).astype(np.float32), labelled


def brightest(image: NDArray[np.floating]) -> NDArray[np.floating]:
    """The centre (x, y) of the brightest spot: of the mass around the smoothed picture's peak."""
    grey = ndimage.gaussian_filter(image.mean(-1), 1.5)
    row, column = np.unravel_index(grey.argmax(), grey.shape)
    y, x = np.mgrid[: grey.shape[0], : grey.shape[1]]
    near = (abs(x - column) <= 4) & (abs(y - row) <= 4)
    weight = np.where(near, grey - grey[near].min(), 0)
    return np.asarray([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


@pytest.mark.parametrize("paint", [False, True], ids=["geometry", "all but occlusion"])
def test_a_dot_on_a_landmark_is_still_there(paint: bool) -> None:
    options = {name: getattr(Augmentation(), name) for name in OPTIONS}
    options |= {"occlusion": 0.0} if paint else {n: 0.0 for n in OPTIONS if n not in GEOMETRY}
    images, landmarks, labelled = dots(64, 96)
    drawn, points, known = run(options, keys(64), images, landmarks, labelled)
    assert (known.sum(1) == 1).all() and (points[~known] == 0).all()
    mirrored = np.asarray(known) != labelled
    assert 10 < mirrored.any(1).sum() < 54
    np.testing.assert_array_equal(
        np.asarray(known)[mirrored.any(1)], labelled[mirrored.any(1)][:, LANDMARKS_68.mirror]
    )
    where = np.asarray(points)[np.asarray(known)]
    inside = ((where > 6) & (where < SIZE - 7)).all(1)
    assert inside.sum() > 40
    found = np.stack([brightest(image) for image in np.asarray(drawn)])
    assert np.abs(found - where)[inside].max() < (0.7 if paint else 0.35)


def test_nothing_drawn_is_the_plain_crop(draw, face: Sample) -> None:
    images, landmarks, labelled = draw(keys(3))
    affine = crop_transform(face.box, margin=MARGIN, size=SIZE)
    plain = apply_affine(invert_affine(affine), face.landmarks)
    assert images.dtype == np.float32 and labelled.all()
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_allclose(landmarks, np.tile(plain, (3, 1, 1)), atol=1e-3)
    crop = cut_crop(face.image, affine, SIZE) / 255
    assert np.abs(images[0] - crop).mean() < 0.03


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_draws_alone(draw, option: str) -> None:
    """Switched on alone it changes the pictures, and the points only where it moves them."""
    amount = {option: 1.0 if option in ("mirror", "grey", "occlusion") else 0.4}
    if option == "rotation":
        amount = {option: 20.0}
    if option.startswith("occlusion"):
        amount = {"occlusion": 1.0, "occlusion_side": 0.4}
    if option == "blur":
        amount = {option: 1.5}
    plain, plain_points, _ = draw(keys(4))
    images, points, labelled = draw(keys(4), **amount)
    assert labelled.all()
    assert images.min() >= 0 and images.max() <= 1
    assert np.abs(images - plain).max() > 0.05
    moved = np.abs(points - plain_points).max()
    assert moved > 1 if option in GEOMETRY else moved == 0
    if option.startswith("occlusion"):
        for off in ({"occlusion": 1.0}, {"occlusion_side": 0.4}):
            np.testing.assert_array_equal(draw(keys(4), **off)[0], plain)


def test_mirror_turns_picture_and_labels_round(draw) -> None:
    plain, plain_points, _ = draw(keys(2))
    images, points, _ = draw(keys(2), mirror=1.0)
    np.testing.assert_allclose(images, plain[:, :, ::-1], atol=1e-3)
    expected = plain_points[:, LANDMARKS_68.mirror] * [-1, 1] + [SIZE - 1, 0]
    np.testing.assert_allclose(points, expected, atol=1e-3)


def test_a_draw_depends_on_its_own_key_alone(draw) -> None:
    options = dataclasses.asdict(Augmentation())
    images, points, _ = draw(keys(6), **options)
    again, _, _ = draw(keys(6), **options)
    np.testing.assert_array_equal(images, again)
    turned, turned_points, _ = draw(keys(6)[::-1], **options)
    np.testing.assert_array_equal(images, turned[::-1])
    np.testing.assert_array_equal(points, turned_points[::-1])
    other, _, _ = draw(keys(6, seed=1), **options)
    assert (np.abs(images - other).max((1, 2, 3)) > 0.05).all()


def test_a_draw_does_not_depend_on_the_batch() -> None:
    """A face alone is drawn as among others, but for the rounding of another program."""
    options = dataclasses.asdict(Augmentation())
    images, landmarks, labelled = dots(4, 96)
    together, _, _ = run(options, keys(4), images, landmarks, labelled)
    alone, _, _ = run(options, keys(4)[2:3], images[2:3], landmarks[2:3], labelled[2:3])
    np.testing.assert_allclose(alone[0], together[2], atol=1e-3)


def test_draws_spread_as_promised() -> None:
    """Rotation, log size and shift: normal, cut at 2.5 deviations (which leaves 0.954 of one)."""
    count, side = 4000, 8
    square = np.asarray([[0, 0], [7, 0], [7, 7], [0, 7], [2, 3], [1, 6], [5, 6]], np.float32)
    options = {**OFF, **{name: getattr(Augmentation(), name) for name in GEOMETRY}}
    batch = (np.zeros((count, side, side, 3), np.uint8), np.tile(square, (count, 1, 1)))
    _, points, _ = run(
        options, keys(count), *batch, np.ones((count, 7), bool), scheme=LANDMARKS_7, size=side
    )
    points = np.asarray(points, np.float64)
    # Mirrored, with the pairs 0-3 and 1-2 in each other's place, the square stands on its head.
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
    for draws, deviation in ((rotation, 12), (log_scale, 0.1), (shift, 0.05)):
        assert abs(draws.mean()) < 0.06 * deviation
        assert draws.std() == pytest.approx(0.954 * deviation, rel=0.05)
        assert 2.2 * deviation < abs(draws).max() <= 2.501 * deviation
