"""Landmarks are drawn where they are, in the colour of their part, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.drawing import COLOURS, draw_landmarks, write_image
from rednet_jax.landmarks.schemes import LANDMARKS_7, LANDMARKS_68, mean_shape

GREY = np.full((400, 500, 3), 128, np.uint8)


@pytest.mark.parametrize("points", [LANDMARKS_68, LANDMARKS_7], ids=["68", "7"])
@pytest.mark.parametrize("side", [60, 300])
def test_dots_lie_on_the_landmarks_in_their_colour(points, side):
    landmarks = np.round(mean_shape(points) * side + [250, 200])
    drawn = draw_landmarks(GREY, landmarks)
    assert drawn.shape == GREY.shape and drawn.dtype == np.uint8
    if side == 300:
        for number, (_, members) in enumerate(points.groups):
            colour = ImageColor.getrgb(COLOURS[number % len(COLOURS)])
            seen = drawn[tuple(landmarks[list(members)].astype(int).T[::-1])]
            np.testing.assert_allclose(seen, np.broadcast_to(colour, seen.shape), atol=40)
    changed = np.argwhere((drawn != GREY).any(-1))[:, ::-1]
    low, high = landmarks.min(0), landmarks.max(0)
    assert (changed > low - 0.1 * side).all() and (changed < high + 0.1 * side).all()


def test_the_image_itself_stays_as_it_is():
    image = GREY.copy()
    draw_landmarks(image, mean_shape(LANDMARKS_68) * 100 + 200)
    np.testing.assert_array_equal(image, GREY)


def test_the_drawing_moves_with_the_landmarks():
    """Over the border of the image, too: nothing wraps, nothing is moved inside."""
    landmarks = mean_shape(LANDMARKS_68) * 120
    middle = draw_landmarks(GREY, landmarks + np.array([250, 200]))
    corner = draw_landmarks(GREY, landmarks + np.array([10, 20]))
    # Pillow cuts a line that crosses the border a little elsewhere.
    np.testing.assert_array_equal(corner[:200, 10:260], middle[180:380, 250:])


def test_landmarks_outside_draw_nothing():
    for shift in ([-300, 100], [800, 100], [100, -300], [100, 900]):
        drawn = draw_landmarks(GREY, mean_shape(LANDMARKS_68) * 100 + shift)
        np.testing.assert_array_equal(drawn, GREY)


def test_a_point_without_label_is_not_drawn():
    """Nor a line to it; wherever it is said to be, what else is drawn stays the same."""
    landmarks = np.round(mean_shape(LANDMARKS_68) * 300 + [250, 200])
    labelled = np.ones(68, bool)
    labelled[[8, 30, 36, 62]] = False
    drawn = draw_landmarks(GREY, landmarks, labelled)
    for x, y in landmarks[~labelled].astype(int):
        np.testing.assert_array_equal(drawn[y - 3 : y + 4, x - 3 : x + 4], 128)
    for x, y in landmarks[labelled].astype(int):
        assert (drawn[y, x] != 128).any()
    np.testing.assert_array_equal(
        drawn, draw_landmarks(GREY, np.where(labelled[:, None], landmarks, 0), labelled)
    )
    np.testing.assert_array_equal(draw_landmarks(GREY, landmarks, np.zeros(68, bool)), GREY)
    everything = draw_landmarks(GREY, landmarks, np.ones(68, bool))
    np.testing.assert_array_equal(everything, draw_landmarks(GREY, landmarks))


def test_an_image_is_written_whole_or_not_at_all(tmp_path):
    image = draw_landmarks(GREY, mean_shape(LANDMARKS_68) * 120 + 200)
    write_image(tmp_path / "new" / "a.png", image)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png")), image)
    with pytest.raises(RednetError, match="cannot be written"):
        write_image(tmp_path / "new", image)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
