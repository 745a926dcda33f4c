"""Landmarks drawn into a picture: a line along each part of the face, a dot on each point."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rednet_jax.landmarks.schemes import Scheme, scheme

CLOSED = ("eye", "lip", "mouth")
"""Parts with one of these in their name are closed curves; all others are open."""

COLOURS = ((80, 200, 255), (255, 190, 70), (120, 240, 120), (255, 110, 150), (255, 240, 110))
"""One for each part in turn; light, on a dark rim, so that they stand out on any skin and light."""

RIM = (0, 0, 0, 150)
SUPERSAMPLED = 3
LARGEST_LAYER = 1500


def draw_landmarks(
    image: NDArray[np.uint8], landmarks: NDArray[np.floating]
) -> NDArray[np.uint8]:
    """A copy of an RGB picture uint8 [H, W, 3] with landmarks [L, 2] (picture pixels) drawn into it.

    Lines and dots grow with the face, so that they can be told apart on 100 px as on 1,000.
    """
    landmarks = np.asarray(landmarks, np.float64)
    points_of = scheme(len(landmarks))
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    side = float(max(high - low))
    line = max(1.0, side / 160)
    dot = max(1.3, side / 90)
    pad = 2 * dot + line + 1
    height, width = image.shape[:2]
    x0, y0 = np.maximum(np.floor(low - pad), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(high + pad) + 1, [width, height]).astype(int)
    if x1 <= x0 or y1 <= y0:
        return image.copy()
    # Pillow draws without anti-aliasing: the layer is drawn larger and shrunk.
    scale = int(np.clip(LARGEST_LAYER // max(x1 - x0, y1 - y0), 1, SUPERSAMPLED))
    layer = Image.new("RGBA", (int(x1 - x0) * scale, int(y1 - y0) * scale))
    points = (landmarks - [x0, y0] + 0.5) * scale
    _draw(ImageDraw.Draw(layer), points, points_of, line * scale, dot * scale)
    face = Image.fromarray(image[y0:y1, x0:x1]).convert("RGBA")
    face.alpha_composite(layer.resize(face.size, Image.Resampling.BOX))
    drawn = image.copy()
    drawn[y0:y1, x0:x1] = np.asarray(face.convert("RGB"))
    return drawn


def _draw(
    draw: ImageDraw.ImageDraw,
    points: NDArray[np.float64],
    points_of: Scheme,
    line: float,
    dot: float,
) -> None:
    parts = [
        (points[list(members)], (*colour, 255), any(word in name for word in CLOSED))
        for (name, members), colour in zip(
            points_of.groups, COLOURS * len(points_of.groups), strict=False
        )
    ]
    for rim in (True, False):
        for members, colour, closed in parts:
            curve = np.concatenate([members, members[:1]]) if closed else members
            thickness = line + 2 if rim else line
            xy = [(float(x), float(y)) for x, y in curve]
            draw.line(xy, fill=RIM if rim else colour, width=max(1, round(thickness)))
    for members, colour, _ in parts:
        for x, y in members:
            draw.ellipse((x - dot, y - dot, x + dot, y + dot), fill=(0, 0, 0, 255))
            inner = 0.72 * dot
            draw.ellipse((x - inner, y - inner, x + inner, y + inner), fill=colour)
