"""Image files of any kind as RGB with 8 bits a channel, by one rule.

Formats with 8 bits a channel or fewer, and those that Pillow itself reduces to 8 (RGB PNG and TIFF
of 16 bits), are converted by Pillow: grey is repeated, a palette is looked up, CMYK and YCbCr are
converted. An alpha channel is ignored: pixels have their stored colour. ICC profiles are ignored.

Grey images of 16 or 32 bits, or of floats, are scaled to 0..255. Files rarely say what white is, so
the range is the smallest of 0..1 (floats only), 0..255, 0..65535 and that of the file's own integer
type that holds all values: 16 bits are divided by 257. An image that no such range holds (negative
values, not finite, floats beyond 65535) is refused, and so is one whose brightest value is less
than 1/16 of its range, which would be black: 10 or 12 bits stored in 16 must be scaled first.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from rednet_jax.errors import RednetError

ENDINGS = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".avif", ".jp2"),
    *(".tif", ".tiff", ".pbm", ".pgm", ".ppm", ".pfm"),
)
"""What counts as an image in a folder, in lower case; a file that is named may end as it likes."""

_DARKEST = 16
"""The brightest value of a scaled image is at least this part of its range."""

# Of TIFF.
_BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLE_FORMAT = 258, 262, 274, 339

_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""What makes an upright image the stored one again, by its EXIF orientation."""


def read_image(path: str | os.PathLike[str], *, upright: bool) -> NDArray[np.uint8]:
    """Returns an image file as RGB uint8 [H, W, 3]; of an animation, its first frame.

    Args:
        path: of the file.
        upright: turn it as its EXIF orientation says, as viewers do. Labels of data sets are in
            pixels as stored, where it must be False.

    Raises:
        RednetError: the file is missing, damaged or no image, or its range of values is unknown.
    """
    with image_errors(path):
        data = Path(path).read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            return rgb_pixels(image, upright=upright)


@contextlib.contextmanager
def image_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Within it what goes wrong in reading an image becomes a RednetError that names `path`."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise RednetError(f"{path}: not an image that can be read") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        cause = getattr(error, "strerror", None) or error
        raise RednetError(f"{path}: cannot be read ({cause})") from error


def rgb_pixels(image: Image.Image, *, upright: bool) -> NDArray[np.uint8]:
    """Returns an opened image as RGB uint8 [H, W, 3].

    Args:
        image: as `Image.open` gives it, not loaded.
        upright: as in `read_image`.

    Raises:
        OSError: the file is damaged.
        ValueError: its range of values is unknown, or its colours cannot be converted.
    """
    undone = None if upright else _STORED.get(_tiff_tag(image, _ORIENTATION, 1))
    turned = ImageOps.exif_transpose(image) if upright else image
    if undone is not None:
        # Pillow turns a TIFF image upright as it loads it.
        turned = image.transpose(undone)
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        # Pillow has no direct way from premultiplied grey.
        return np.asarray((turned.convert("LA") if turned.mode == "La" else turned).convert("RGB"))
    values = np.asarray(turned)
    largest = 65535 if image.mode == "F" else _largest(image)
    if largest == 2**32 - 1:
        # Pillow keeps them in signed integers.
        values = values.view(np.uint32)
    grey = _scaled(values, largest)
    if _tiff_tag(image, _PHOTOMETRIC, 1) == 0:
        # White is zero. Pillow inverts images of 8 bits only.
        grey = 255 - grey
    return np.repeat(grey[..., None], 3, axis=-1)


def _scaled(values: NDArray[np.generic], largest: int) -> NDArray[np.uint8]:
    """Grey values [H, W], integers or floats up to `largest`, as uint8 [H, W]."""
    floats = np.asarray(values, np.float64)
    low, high = float(floats.min()), float(floats.max())
    ranges = [1] if values.dtype.kind == "f" else []
    ranges += [top for top in (255, 65535) if top <= largest]
    if values.dtype.kind != "f":
        ranges.append(largest)
    # Written so that nan is in no range.
    top = next((top for top in ranges if low >= 0 and high <= top), None)
    if top is None:
        raise ValueError(f"grey values from {low:g} to {high:g} are not in 0..{ranges[-1]}")
    if 0 < high < top / _DARKEST:
        raise ValueError(
            f"grey values up to {high:g} would be black in 0..{top}; scale them to that range"
        )
    return np.rint(floats * (255 / top)).astype(np.uint8)


def _largest(image: Image.Image) -> int:
    """The largest value that the integers of an image's file can have."""
    if image.mode != "I" or image.format == "PPM":
        # Pillow scales what a PPM file calls white to 65535.
        bits, signed = _tiff_tag(image, _BITS, 16), False
    else:
        bits = _tiff_tag(image, _BITS, 32)
        signed = _tiff_tag(image, _SAMPLE_FORMAT, 1 if image.format == "TIFF" else 2) == 2
    return int(2 ** (bits - signed) - 1)


def _tiff_tag(image: Image.Image, tag: int, default: int) -> int:
    """A number of a TIFF file's first channel; the default for other files."""
    value = getattr(image, "tag_v2", {}).get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)
