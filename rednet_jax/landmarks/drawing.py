"""Draws landmarks into images, and arranges images on a contact sheet."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rednet_jax.files import replacing
from rednet_jax.landmarks.schemes import Part, Scheme

COLOURS = ("#50c8ff", "#ffbe46", "#78f078", "#ff6e96", "#fff06e")
"""Colours of the parts in turn. Light colours with a dark rim are visible on any background."""

RIM = "#00000096"

SUPERSAMPLING = 3
"""Scale at which landmarks are drawn before they are shrunk: Pillow draws without antialiasing."""

_GAP, _CAPTION = 4, 20
"""Gap between tiles and height of a caption on a contact sheet, pixels."""


def draw_landmarks(
    image: NDArray[np.uint8],
    landmarks: NDArray[np.floating],
    scheme: Scheme,
    labelled: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Returns a copy of an image with landmarks drawn into it.

    Lines and dots scale with the size of the face.

    Args:
        image: RGB uint8 [H, W, 3].
        landmarks: [L, 2], pixels of the image. Points may lie outside the image; none may be nan.
        scheme: of the landmarks; a landmark without a part is drawn as a dot.
        labelled: bool [L], mask of the landmarks to draw, with lines between neighbours; None for
            all.
    """
    known = np.ones(len(landmarks), bool) if labelled is None else labelled
    if not known.any():
        return image.copy()
    low, high = landmarks[known].min(axis=0), landmarks[known].max(axis=0)
    side = float(max(high - low))
    line, dot = max(1.0, side / 160), max(1.3, side / 90)
    height, width = image.shape[:2]
    x0, y0 = np.maximum(np.floor(low - 2 * dot - line), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(high + 2 * dot + line) + 1, [width, height]).astype(int)
    if x1 <= x0 or y1 <= y0:
        return image.copy()
    # Large faces look smooth without supersampling.
    scale = SUPERSAMPLING if max(x1 - x0, y1 - y0) < 500 else 1
    layer = Image.new("RGBA", (int(x1 - x0) * scale, int(y1 - y0) * scale))
    _draw(
        ImageDraw.Draw(layer),
        (landmarks - [x0, y0] + 0.5) * scale,
        scheme,
        known,
        line=line * scale,
        dot=dot * scale,
    )
    drawn = Image.fromarray(image)
    smooth = layer.reduce(scale)
    drawn.paste(smooth, (int(x0), int(y0)), smooth)
    return np.asarray(drawn)


def _draw(
    draw: ImageDraw.ImageDraw,
    points: NDArray[np.floating],
    scheme: Scheme,
    known: NDArray[np.bool_],
    *,
    line: float,
    dot: float,
) -> None:
    positions = [(float(x), float(y)) for x, y in points]
    parts = coloured_parts(scheme)
    for width, rim in ((line + 2, RIM), (line, None)):
        for part, colour in parts:
            for start, end in itertools.pairwise(part.points + part.points[:1] * part.closed):
                if known[start] and known[end]:
                    ends = [positions[start], positions[end]]
                    draw.line(ends, fill=rim or colour, width=max(1, round(width)))
    for part, colour in parts:
        for index in part.points:
            if known[index]:
                draw.circle(positions[index], dot, fill="black")
                draw.circle(positions[index], 0.72 * dot, fill=colour)


def coloured_parts(scheme: Scheme) -> list[tuple[Part, str]]:
    """Returns (part, colour) pairs; each landmark without a part becomes a part of its own."""
    drawn = {index for part in scheme.parts for index in part.points}
    others = tuple(index for index in range(scheme.count) if index not in drawn)
    parts = list(zip(scheme.parts, itertools.cycle(COLOURS), strict=False))
    return parts + [(Part(f"landmark {index}", (index,)), COLOURS[0]) for index in others]


def contact_sheet(
    captions: Sequence[str], rows: Sequence[Sequence[NDArray[np.uint8]]], columns: int
) -> NDArray[np.uint8]:
    """Arranges tiles in columns: a caption, and below it the tiles of each row for that caption.

    Args:
        captions: N captions. The start of a caption wider than a tile is cut off, since the end of
            a path identifies it.
        rows: tiles RGB uint8 [S, S, 3], N in each row.
        columns: number of columns; further captions start a new band below.

    Returns:
        RGB uint8 [H, W, 3].
    """
    tile = rows[0][0].shape[0]
    step = tile + _GAP
    height = _CAPTION + len(rows) * step
    across, bands = min(len(captions), columns), -(-len(captions) // columns)
    sheet = Image.new("RGB", (across * step + _GAP, bands * height))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, caption in enumerate(captions):
        x, y = _GAP + number % columns * step, number // columns * height
        while font.getlength(caption) > tile:
            caption = f"...{caption.removeprefix('...')[1:]}"
        draw.text((x, y + 2), caption, fill="white", font=font)
        for i, row in enumerate(rows):
            sheet.paste(Image.fromarray(row[number]), (x, y + _CAPTION + i * step))
    return np.asarray(sheet)


def write_image(path: str | os.PathLike[str], image: NDArray[np.uint8]) -> None:
    """Writes an RGB image uint8 [H, W, 3] as a PNG file, atomically.

    Raises:
        RednetError: the file cannot be written.
    """
    with replacing(path) as partial:
        Image.fromarray(image).save(partial, format="PNG")


def write_animation(
    path: str | os.PathLike[str], frames: Sequence[NDArray[np.uint8]], fps: float
) -> None:
    """Writes RGB images uint8 [H, W, 3] as an animated WebP file that repeats, atomically.

    Raises:
        RednetError: the file cannot be written.
    """
    first, *others = map(Image.fromarray, frames)
    with replacing(path) as partial:
        first.save(
            partial,
            format="WebP",
            save_all=True,
            append_images=others,
            duration=round(1000 / fps),
            loop=0,
        )
