"""Views cover the frame, and detections in a view are mapped to the frame."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from rednet_jax.detection.detector import Detection
from rednet_jax.inference.search import (
    MAX_TILES,
    SMALLEST_WHOLE,
    TILE,
    View,
    detect_in,
    tile_views,
    whole_view,
)

LENGTH = st.integers(1, 5000)


@hypothesis.given(LENGTH, LENGTH, st.floats(0, 1), st.floats(0, 1))
def test_every_face_too_small_for_the_whole_frame_is_within_a_tile(width, height, x, y):
    tiles = tile_views((height, width, 3))
    if max(width, height) <= TILE:
        assert tiles == []
        return
    side = SMALLEST_WHOLE * max(width, height)
    hypothesis.assume(side < min(width, height))
    left, top = x * (width - side), y * (height - side)
    assert 1 <= len(tiles) <= MAX_TILES
    assert all(t.x >= 0 and t.y >= 0 for t in tiles)
    assert all(t.x + t.width <= width and t.y + t.height <= height for t in tiles)
    # Starts are rounded to pixels.
    assert any(
        t.x <= left + 1
        and t.y <= top + 1
        and left + side <= t.x + t.width + 1
        and top + side <= t.y + t.height + 1
        for t in tiles
    )


def test_frames_of_common_sizes():
    assert tile_views((480, 640, 3)) == []
    assert len(tile_views((720, 1280, 3))) == 2
    full = tile_views((1080, 1920, 3))
    assert len(full) == 6 and max(full[0].width, full[0].height) <= TILE
    assert len(tile_views((2160, 3840, 3))) == 6
    assert len(tile_views((1920, 1080, 3))) == 6


class BrightSpot:
    """Detects a face around the brightest pixel."""

    def detect(self, image):
        assert image.flags.c_contiguous
        y, x = np.unravel_index(image[..., 0].argmax(), image.shape[:2])
        box = np.array([x - 2, y - 1, x + 2, y + 1], np.float32)
        return [Detection(box, 0.9, np.array([[x, y], [x + 1, y]] + [[x, y]] * 3, np.float32))]


@pytest.mark.parametrize("view", [None, View(7, 5, 20, 12), View(3, 2, 30, 20, turned=True)])
def test_detections_in_a_view_are_mapped_to_the_frame(view):
    image = np.zeros((40, 50, 3), np.uint8)
    image[11, 17] = 255
    view = view or whole_view(image.shape)
    (face,) = detect_in(BrightSpot(), image, view)
    half = [1, 2] if view.turned else [2, 1]
    centre = np.array([17, 11])
    np.testing.assert_array_equal(face.box, [*(centre - half), *(centre + half)])
    # Right in the view, rotated counter-clockwise, is down in the frame.
    step = [0, 1] if view.turned else [1, 0]
    np.testing.assert_array_equal(face.points[:2], [centre, centre + step])
    assert face.score == 0.9
    assert face.box.dtype == face.points.dtype == np.float32
