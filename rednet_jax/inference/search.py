"""Which part of a frame the detector is shown: the whole of it, a tile, or a copy turned by 90
degrees.

A search of the whole frame is cheap where the detector shrinks large images, and misses small
faces. Tiles show them at full resolution, and are searched one in a frame.
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
"""Of the tracker's default detector: one view at one scale, at most 640 x 640 pixels. Other views
are searched in other frames."""

TILE = 768
"""Longer side of a tile in pixels. `VIDEO_SEARCH` shrinks it by 0.83, so that faces of 24 px are
found in it."""

MAX_TILES = 6
"""More would not be searched within a second. In larger frames tiles grow, and the smallest face
that is found grows with them: 25 px at 1920 x 1080, 50 px at 3840 x 2160."""

SMALLEST_WHOLE = 24 / COARSE_SIDE
"""Side of the smallest face found in the whole frame, in longer sides of the frame. Tiles overlap
by as much, so that a smaller face lies within one of them."""


class View(NamedTuple):
    """A rectangle of a frame, in pixels, and whether it is shown turned by 90 degrees."""

    x: int
    y: int
    width: int
    height: int
    turned: bool = False


def whole_view(shape: tuple[int, ...]) -> View:
    """Returns the view of a whole frame of shape [H, W, 3]."""
    return View(0, 0, shape[1], shape[0])


def tile_views(shape: tuple[int, ...]) -> list[View]:
    """Returns tiles that cover a frame of shape [H, W, 3]; [] where one would be all of it."""
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
        detector: is shown the view alone.
        image: the frame, RGB uint8 [H, W, 3].
        view: a part of it.
    """
    part = image[view.y : view.y + view.height, view.x : view.x + view.width]
    if view.turned:
        part = np.rot90(part)
    faces = detector.detect(np.ascontiguousarray(part))
    return [_in_frame(face, view) for face in faces]


def _in_frame(face: Detection, view: View) -> Detection:
    def mapped(points: NDArray[np.float32]) -> NDArray[np.float32]:
        if view.turned:
            # `rot90` turns counter-clockwise: its column is the row, its row counts from the right.
            points = np.stack([view.width - 1 - points[:, 1], points[:, 0]], axis=-1)
        return np.asarray(points + np.array([view.x, view.y]), np.float32)

    corners = mapped(face.box.reshape(2, 2))
    box = np.concatenate([corners.min(0), corners.max(0)])
    points = None if face.points is None else mapped(face.points)
    return dataclasses.replace(face, box=box, points=points)


def _count(length: int, side: int, overlap: int) -> int:
    return max(1, math.ceil((length - overlap) / (side - overlap)))


def _pieces(length: int, side: int, overlap: int) -> list[tuple[int, int]]:
    """Start and length of pieces of equal length that cover `length` and overlap."""
    count = _count(length, side, overlap)
    piece = min(length, math.ceil((length + (count - 1) * overlap) / count))
    return [(round(start), piece) for start in np.linspace(0, length - piece, count)]
