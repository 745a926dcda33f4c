"""Landmarks drawn into a picture: a line along each part of the face, a dot on each point."""

from __future__ import annotations

import itertools
import os

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rednet_jax.files import replacing
from rednet_jax.landmarks.schemes import scheme

CLOSED = ("eye", "lip", "mouth")
"""Parts with one of these in their name are closed curves; all others are open."""

COLOURS = ("#50c8ff", "#ffbe46", "#78f078", "#ff6e96", "#fff06e")
"""One for each part in turn; light, on a dark rim, so that they stand out on any skin and light."""

RIM = "#00000096"

SUPERSAMPLING = 3
"""Pillow draws without anti-aliasing: lines are drawn larger and shrunk."""


def draw_landmarks(image: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Returns a copy of a picture with landmarks drawn into it.

    Lines and dots grow with the face, so that they can be told apart on 100 px as on 1,000.

    Args:
        image: RGB uint8 [H, W, 3].
        landmarks: [L, 2], pixels of the picture; points may lie outside, none may be nan.
    """
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    side = float(max(high - low))
    line, dot = max(1.0, side / 160), max(1.3, side / 90)
    height, width = image.shape[:2]
    x0, y0 = np.maximum(np.floor(low - 2 * dot - line), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(high + 2 * dot + line) + 1, [width, height]).astype(int)
    if x1 <= x0 or y1 <= y0:
        return image.copy()
    # A face that fills a large picture is smooth enough as it is.
    scale = SUPERSAMPLING if max(x1 - x0, y1 - y0) < 500 else 1
    layer = Image.new("RGBA", (int(x1 - x0) * scale, int(y1 - y0) * scale))
    _draw(
        ImageDraw.Draw(layer),
        (landmarks - [x0, y0] + 0.5) * scale,
        line=line * scale,
        dot=dot * scale,
    )
    drawn = Image.fromarray(image)
    smooth = layer.reduce(scale)
    drawn.paste(smooth, (int(x0), int(y0)), smooth)
    return np.asarray(drawn)


def _draw(
    draw: ImageDraw.ImageDraw, points: NDArray[np.floating], *, line: float, dot: float
) -> None:
    parts = []
    for (name, members), colour in zip(
        scheme(len(points)).groups, itertools.cycle(COLOURS), strict=False
    ):
        curve = [(float(x), float(y)) for x, y in points[list(members)]]
        parts.append((curve, colour, any(word in name for word in CLOSED)))
    for width, rim in ((line + 2, RIM), (line, None)):
        for curve, colour, closed in parts:
            draw.line(curve + curve[:1] * closed, fill=rim or colour, width=max(1, round(width)))
    for curve, colour, _ in parts:
        for centre in curve:
            draw.circle(centre, dot, fill="black")
            draw.circle(centre, 0.72 * dot, fill=colour)


def write_picture(path: str | os.PathLike[str], image: NDArray[np.uint8]) -> None:
    """Writes an RGB picture uint8 [H, W, 3] as PNG; the file appears whole or not at all.

    Raises:
        RednetError: the file cannot be written.
    """
    with replacing(path) as partial:
        Image.fromarray(image).save(partial, format="PNG")
