"""Views of a frame for the face detector: the whole frame, tiles, or the frame rotated by 90
degrees.

The detector shrinks large frames, which is fast but misses small faces. Tiles keep the full
resolution; one of them is searched per frame.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rednet_jax.detection.detector import Detection, FaceDetector
from rednet_jax.detection.yunet import COARSE_SIDE, YuNetConfig

VIDEO_SEARCH = YuNetConfig(
    search_pixels=COARSE_SIDE**2, copy_pixels=COARSE_SIDE**2, enlarged=1, turned=()
)
"""Configuration of the tracker's default detector: one scale, at most 640 x 640 pixels."""

TILE = 768
"""Longer side of a tile in pixels. `VIDEO_SEARCH` shrinks it by 0.83, so that faces of 24 px are
found in it."""

MAX_TILES = 6
"""More tiles could not be searched within a second. In larger frames the tiles grow, and with them
the smallest face that is found: 25 px at 1920 x 1080, 50 px at 3840 x 2160."""

SMALLEST_WHOLE = 24 / COARSE_SIDE
"""Side of the smallest face found in the whole frame, as a fraction of the frame's longer side.
Tiles overlap by this much, so that every smaller face lies within a tile."""


class View(NamedTuple):
    """A rectangle of a frame, in pixels, and whether the detector gets it rotated by 90 degrees."""

    x: int
    y: int
    width: int
    height: int
    turned: bool = False


def whole_view(shape: tuple[int, ...]) -> View:
    """Returns the view of the whole frame of shape [H, W, 3]."""
    return View(0, 0, shape[1], shape[0])


def tile_views(shape: tuple[int, ...]) -> list[View]:
    """Returns tiles that cover a frame of shape [H, W, 3]; [] if one tile would cover it."""
    height, width = shape[:2]
    overlap = math.ceil(SMALLEST_WHOLE * max(height, width))
    side = max(TILE, 2 * overlap)
    if max(height, width) <= side:
        return []
    while _count(width, side, overlap) * _count(height, side, overlap) > MAX_TILES:
        side = math.ceil(1.05 * side)
    columns, rows = (_pieces(length, side, overlap) for length in (width, height))
    return [View(x, y, w, h) for y, h in rows for x, w in columns]


def detect_in(detector: FaceDetector, image: NDArray[np.uint8], view: View) -> list[Detection]:
    """Returns the faces that a detector finds in a view, in pixels of the frame.

    Args:
        detector: gets only the pixels of the view.
        image: the frame, RGB uint8 [H, W, 3].
        view: the part of the frame to search.
    """
    part = image[view.y : view.y + view.height, view.x : view.x + view.width]
    if view.turned:
        part = np.rot90(part)
    faces = detector.detect(np.ascontiguousarray(part))
    return [_in_frame(face, view) for face in faces]


def _in_frame(face: Detection, view: View) -> Detection:
    def mapped(points: NDArray[np.float32]) -> NDArray[np.float32]:
        if view.turned:
            # rot90 rotates counter-clockwise: column i of its output is row i of the view, and row
            # j of its output is column width - 1 - j.
            points = np.stack([view.width - 1 - points[:, 1], points[:, 0]], axis=-1)
        return np.asarray(points + np.array([view.x, view.y]), np.float32)

    corners = mapped(face.box.reshape(2, 2))
    box = np.concatenate([corners.min(0), corners.max(0)])
    points = None if face.points is None else mapped(face.points)
    return dataclasses.replace(face, box=box, points=points)


def _count(length: int, side: int, overlap: int) -> int:
    return max(1, math.ceil((length - overlap) / (side - overlap)))


def _pieces(length: int, side: int, overlap: int) -> list[tuple[int, int]]:
    """Returns (start, length) of overlapping pieces of equal length that cover `length`."""
    count = _count(length, side, overlap)
    piece = min(length, math.ceil((length + (count - 1) * overlap) / count))
    return [(round(start), piece) for start in np.linspace(0, length - piece, count)]
