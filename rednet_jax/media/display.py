"""How the frames of a video are displayed: their rotation or reflection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type
from numpy.typing import NDArray

UPRIGHT = np.eye(2, dtype=np.int64)
"""Display matrix of a video that is shown as stored."""

_MOST_TYPES = 64
"""More than the types of side data of any FFmpeg; version 8.1 has 32."""


def display_matrix(frame: av.VideoFrame) -> NDArray[np.int64]:
    """Returns the display matrix of a frame, int [2, 2]: a rotation by multiples of 90 degrees, or
    a reflection.

    It maps directions (x, y) of the stored image to those of the displayed image. Other angles are
    rounded to these.
    """
    data = _side_data(frame).get("DISPLAYMATRIX")
    if data is None:
        return UPRIGHT
    # With rows (a, b, u), (c, d, v), (x, y, w), pixel (p, q) is displayed at
    # (a p + c q + x, b p + d q + y).
    values = np.frombuffer(cast(bytes, data), np.int32)
    stored = values.reshape(3, 3)[:2, :2].T.astype(np.float64)
    straight, crossed = np.abs(np.diag(stored)).sum(), np.abs(np.diag(stored[::-1])).sum()
    if not straight + crossed:
        return UPRIGHT
    kept = np.eye(2) if straight >= crossed else np.eye(2)[::-1]
    return np.where(stored < 0, -1, 1) * kept.astype(np.int64)


def displayed(image: NDArray[np.uint8], matrix: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Applies a display matrix to an image [H, W, 3]."""
    if not matrix[0, 0]:
        image = image.swapaxes(0, 1)
    across, down = matrix.sum(1)
    return image[::down, ::across]


def _side_data(frame: av.VideoFrame) -> Mapping[str, object]:
    try:
        return frame.side_data
    except ValueError:
        # PyAV cannot read any side data of a frame if it has no name for the type of one of them,
        # such as EXIF.
        unnamed = set(range(_MOST_TYPES)) - {kind.value for kind in Type}
        graph = Graph()
        graph.link_nodes(
            graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=frame.time_base,
            ),
            *(graph.add("sidedata", f"mode=delete:type={number}") for number in sorted(unnamed)),
            graph.add("buffersink"),
        ).configure()
        graph.push(frame)
        return cast(av.VideoFrame, graph.pull()).side_data
