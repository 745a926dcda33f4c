"""A sudden and lasting change is another person; motion and brightness are not."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from rednet_jax.inference.appearance import (
    ALIKE,
    CONFIRMED_AFTER,
    SIDE,
    STEADY,
    UNLIKE,
    Appearance,
    thumbnail,
)
from rednet_jax.inference.thumbnails import half_likeness, standardised
from rednet_jax.landmarks.builtin import IBUG68

SIZE = 3 * SIDE * SIDE
AXES = np.linalg.qr(np.random.default_rng(0).normal(size=(SIZE, 4)) - 0)[0].T * np.sqrt(SIZE)


def like(correlation, axis=1):
    """A thumbnail with this correlation with the person's, AXES[0]."""
    mixed = correlation * AXES[0] + np.sqrt(1 - correlation**2) * AXES[axis]
    return mixed.astype(np.float32).reshape(SIDE, SIDE, 3)


@pytest.fixture
def person():
    appearance = Appearance([like(1)])
    for _ in range(3):
        assert appearance.update(like(0.99)) is None
    return appearance


def test_likeness_is_the_highest_correlation_with_the_last_frames(person):
    assert person.likeness(like(0.99)) == pytest.approx(1, abs=1e-5)
    assert person.likeness(like(0.5, axis=2)) == pytest.approx(0.5, abs=1e-2)
    assert person.likeness(-like(1)) < -0.9


def test_a_very_different_person_is_detected_at_once(person):
    other = person.update(like(UNLIKE - 0.1, axis=2))
    assert other is not None
    assert other.likeness(like(UNLIKE - 0.1, axis=2)) == pytest.approx(1, abs=1e-5)
    # The first person's appearance is unchanged.
    assert person.likeness(like(1)) == pytest.approx(1, abs=1e-2)
    assert other.update(like(UNLIKE - 0.1, axis=2)) is None


def test_a_less_different_person_is_detected_after_some_frames(person):
    changed = like((UNLIKE + ALIKE) / 2, axis=2)
    results = [person.update(changed) for _ in range(CONFIRMED_AFTER + 1)]
    assert results[:-1] == [None] * CONFIRMED_AFTER
    assert results[-1].likeness(changed) == pytest.approx(1, abs=1e-5)


def test_a_short_change_is_the_same_person(person):
    changed = like((UNLIKE + ALIKE) / 2, axis=2)
    assert person.update(changed) is None
    assert all(person.update(like(0.99)) is None for _ in range(2 * CONFIRMED_AFTER))


def test_change_in_every_frame_is_motion(person):
    """The correlation with the previous frame is between `ALIKE` and `STEADY` in every frame."""
    angle = 0.0
    for _ in range(20):
        angle += np.arccos((STEADY + ALIKE) / 2)
        turned = np.cos(angle) * AXES[0] + np.sin(angle) * AXES[1]
        assert person.update(turned.astype(np.float32).reshape(SIDE, SIDE, 3)) is None


def behind(face, hidden, value):
    """A thumbnail of a face of which blocks are hidden, with mean 0 and mean square 1 again."""
    pixels = face.reshape(4, SIDE // 4, 4, SIDE // 4, 3).copy()
    for row, column in hidden:
        pixels[row, :, column] = value
    return standardised(pixels.reshape(face.shape))


HALF = [(row, column) for row in range(4) for column in (0, 1)]


def test_a_half_of_the_face_has_its_own_likeness():
    face, other = like(1), like(0.1, axis=2)
    hidden = behind(face, HALF[:6], 4.0)
    assert np.mean(face * hidden) < UNLIKE
    assert half_likeness(face, hidden) == pytest.approx(1, abs=1e-3)
    assert half_likeness(face, 0.5 * face + 1) == pytest.approx(1, abs=1e-5)
    assert half_likeness(face, other) < 0.8


def test_what_hides_a_part_of_the_face_is_no_other_person(person):
    hidden = behind(like(1), HALF[:6], 4.0)
    assert person.likeness(hidden) < UNLIKE
    assert all(person.update(hidden) is None for _ in range(2 * CONFIRMED_AFTER))
    assert all(person.update(like(0.99)) is None for _ in range(2 * CONFIRMED_AFTER))


def test_slow_change_is_the_same_person(person):
    for angle in np.arange(0, 3, 0.1):
        turned = np.cos(angle) * AXES[0] + np.sin(angle) * AXES[1]
        assert person.update(turned.astype(np.float32).reshape(SIDE, SIDE, 3)) is None


@pytest.mark.parametrize(("scale", "roll", "shift"), [(1, 0, 20), (1.5, 0, 0), (1, 90, 0)])
def test_a_thumbnail_does_not_depend_on_position_size_roll_and_brightness(
    portrait, scale, roll, shift
):
    landmarks = (IBUG68.shape * 110 + [222, 125]).astype(np.float32)
    first = thumbnail(portrait, landmarks, IBUG68)
    assert first.shape == (SIDE, SIDE, 3) and first.dtype == np.float32
    assert first.mean() == pytest.approx(0, abs=1e-5)
    assert np.mean(first**2) == pytest.approx(1, abs=1e-5)
    size = tuple(round(side * scale) for side in portrait.shape[1::-1])
    image = np.asarray(Image.fromarray(portrait).resize(size))
    points = landmarks * scale
    if roll:
        image, points = np.rot90(image), np.stack([points[:, 1], 511 - points[:, 0]], -1)
    image = np.ascontiguousarray(np.roll(image, shift, axis=(0, 1)) // 2)
    assert np.mean(first * thumbnail(image, points + np.float32(shift), IBUG68)) > 0.98
    beside = thumbnail(portrait, landmarks + np.float32([60, 120]), IBUG68)
    assert np.mean(first * beside) < UNLIKE
