"""Landmarks are drawn at their positions in the colour of their part."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.builtin import IBUG68, REDNET7
from rednet_jax.landmarks.drawing import COLOURS, draw_landmarks, write_image

GREY = np.full((400, 500, 3), 128, np.uint8)


@pytest.mark.parametrize("points", [IBUG68, REDNET7], ids=["68", "7"])
@pytest.mark.parametrize("side", [60, 300])
def test_dots_are_at_the_landmarks_in_their_colour(points, side):
    landmarks = np.round(points.shape * side + [250, 200])
    drawn = draw_landmarks(GREY, landmarks, points)
    assert drawn.shape == GREY.shape and drawn.dtype == np.uint8
    if side == 300:
        for number, part in enumerate(points.parts):
            colour = ImageColor.getrgb(COLOURS[number % len(COLOURS)])
            dots = drawn[tuple(landmarks[list(part.points)].astype(int).T[::-1])]
            np.testing.assert_allclose(dots, np.broadcast_to(colour, dots.shape), atol=40)
    changed = np.argwhere((drawn != GREY).any(-1))[:, ::-1]
    low, high = landmarks.min(0), landmarks.max(0)
    assert (changed > low - 0.1 * side).all() and (changed < high + 0.1 * side).all()


def test_the_image_itself_is_not_changed():
    image = GREY.copy()
    draw_landmarks(image, IBUG68.shape * 100 + 200, IBUG68)
    np.testing.assert_array_equal(image, GREY)


def test_the_drawing_moves_with_the_landmarks():
    """Also across the border of the image."""
    landmarks = IBUG68.shape * 120
    middle = draw_landmarks(GREY, landmarks + np.array([250, 200]), IBUG68)
    corner = draw_landmarks(GREY, landmarks + np.array([10, 20]), IBUG68)
    # Without the border, where Pillow clips lines slightly differently.
    np.testing.assert_array_equal(corner[:200, 10:260], middle[180:380, 250:])


def test_landmarks_outside_draw_nothing():
    for shift in ([-300, 100], [800, 100], [100, -300], [100, 900]):
        drawn = draw_landmarks(GREY, IBUG68.shape * 100 + shift, IBUG68)
        np.testing.assert_array_equal(drawn, GREY)


def test_an_unlabelled_point_is_not_drawn():
    """Nor a line to it; its coordinates do not change the drawing."""
    landmarks = np.round(IBUG68.shape * 300 + [250, 200])
    labelled = np.ones(68, bool)
    labelled[[8, 30, 36, 62]] = False
    drawn = draw_landmarks(GREY, landmarks, IBUG68, labelled)
    for x, y in landmarks[~labelled].astype(int):
        np.testing.assert_array_equal(drawn[y - 3 : y + 4, x - 3 : x + 4], 128)
    for x, y in landmarks[labelled].astype(int):
        assert (drawn[y, x] != 128).any()
    moved = np.where(labelled[:, None], landmarks, 0)
    np.testing.assert_array_equal(drawn, draw_landmarks(GREY, moved, IBUG68, labelled))
    nothing = np.zeros(68, bool)
    np.testing.assert_array_equal(draw_landmarks(GREY, landmarks, IBUG68, nothing), GREY)
    everything = draw_landmarks(GREY, landmarks, IBUG68, np.ones(68, bool))
    np.testing.assert_array_equal(everything, draw_landmarks(GREY, landmarks, IBUG68))


def test_an_image_is_written_atomically(tmp_path):
    image = draw_landmarks(GREY, IBUG68.shape * 120 + 200, IBUG68)
    write_image(tmp_path / "new" / "a.png", image)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png")), image)
    with pytest.raises(RednetError, match="cannot be written"):
        write_image(tmp_path / "new", image)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
