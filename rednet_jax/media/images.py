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
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from rednet_jax.errors import RednetError

ENDINGS = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".avif", ".jp2"),
    *(".tif", ".tiff", ".pbm", ".pgm", ".ppm", ".pfm"),
)
"""What counts as an image in a folder, in lower case; a file that is named may end as it likes."""

LARGEST = 100_000_000
"""Pixels of an image at most: they take up to twelve bytes each while it is converted."""

LARGEST_FILE = 4 * LARGEST + 2**20
"""Bytes of an image file at most: floats take four a pixel."""

_RUN_BY_OTHERS = ("EPS", "WMF")
"""Formats that Pillow hands to another program."""

_ROWS = 256
"""Rows of an image that are scaled at a time: as floats they take eight times the memory."""

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
        data = read_bytes(path)
        with open_image(data) as image:
            return rgb_pixels(image, upright=upright)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Returns the content of an image file.

    Raises:
        OSError: it cannot be read.
        ValueError: it has more than `LARGEST_FILE` bytes.
    """
    with Path(path).open("rb") as file:
        # Of a device, the size is not known before.
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ValueError(f"larger than {LARGEST_FILE} bytes")
    return data


def open_image(data: bytes) -> Image.Image:
    """Opens an encoded image by its header, before its pixels take memory.

    Raises:
        UnidentifiedImageError: it is no image.
        ValueError: it has more than `LARGEST` pixels, or is no image of pixels.
    """
    with warnings.catch_warnings():
        # The limit below is this library's own.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(data))
    if image.format in _RUN_BY_OTHERS:
        raise ValueError(f"{image.format} files are not supported")
    if image.width * image.height > LARGEST:
        raise ValueError(
            f"{image.width} x {image.height} pixels, more than {LARGEST // 10**6} million"
        )
    return image


@contextlib.contextmanager
def image_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Within it what goes wrong in reading an image becomes a RednetError that names `path`."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise RednetError(f"{path}: not an image that can be read") from error
    except RednetError:
        raise
    except Exception as error:
        # Whatever comes of a damaged file in one of Pillow's readers.
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
        turned = turned.convert("LA") if turned.mode == "La" else turned
        return np.asarray(turned if turned.mode == "RGB" else turned.convert("RGB"))
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


def _scaled(values: NDArray[np.number[Any]], largest: int) -> NDArray[np.uint8]:
    """Grey values [H, W], integers or floats up to `largest`, as uint8 [H, W]."""
    low, high = float(values.min()), float(values.max())
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
    grey = np.empty(values.shape, np.uint8)
    for begin in range(0, len(values), _ROWS):
        part = np.asarray(values[begin : begin + _ROWS], np.float64)
        grey[begin : begin + _ROWS] = np.rint(part * (255 / top))
    return grey


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
