"""Reads image files of any format as RGB with 8 bits per channel.

Pillow converts formats with at most 8 bits per channel, and those that it reduces to 8 bits itself
(16-bit RGB PNG and TIFF): grey is repeated, palettes are looked up, CMYK and YCbCr are converted.
Alpha channels are ignored, so that pixels have their stored colour. ICC profiles are ignored.

Grey images of 16 or 32 bits, or of floats, are scaled to 0..255. Files rarely define the value of
white. The range is the smallest of 0..1 (floats only), 0..255, 0..65535 and the range of the file's
integer type that contains all values; for example, 16-bit values are divided by 257. If no range
contains all values (negative or not finite values, floats above 65535), the image is an error. It
is also an error if the largest value is less than 1/16 of the range, since the image would be
black: 10- or 12-bit values stored in 16 bits must be scaled first.
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
"""File extensions, in lower case, of the images in a folder. A single file may have any."""

LARGEST = 100_000_000
"""Maximum number of pixels of an image: each takes up to twelve bytes during conversion."""

LARGEST_FILE = 4 * LARGEST + 2**20
"""Maximum number of bytes of an image file: floats have four per pixel."""

_EXTERNAL = ("EPS", "WMF")
"""Formats for which Pillow runs another program."""

_ROWS = 256
"""Rows that are scaled at a time: as float64 they need eight times the memory."""

_DARKEST = 16
"""The largest value of a scaled image is at least the range divided by this."""

# TIFF tags.
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
"""The operation that undoes the EXIF orientation, by its value."""


def read_image(path: str | os.PathLike[str], *, upright: bool) -> NDArray[np.uint8]:
    """Returns an image file as RGB uint8 [H, W, 3]; of an animation, its first frame.

    Args:
        path: of the file.
        upright: whether to apply the EXIF orientation, as viewers do. It must be False for images
            of data sets, since their labels are in pixels as stored.

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
        # The size of a device is not known in advance.
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ValueError(f"larger than {LARGEST_FILE} bytes")
    return data


def open_image(data: bytes) -> Image.Image:
    """Opens an encoded image, but reads only its header.

    Raises:
        UnidentifiedImageError: the data are not an image.
        ValueError: the image has more than `LARGEST` pixels, or Pillow would run another program
            for its format.
    """
    with warnings.catch_warnings():
        # The limit below replaces Pillow's.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(data))
    if image.format in _EXTERNAL:
        raise ValueError(f"{image.format} files are not supported")
    if image.width * image.height > LARGEST:
        raise ValueError(
            f"{image.width} x {image.height} pixels, more than {LARGEST // 10**6} million"
        )
    return image


@contextlib.contextmanager
def image_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Converts exceptions in the block to a RednetError with `path` and the cause."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise RednetError(f"{path}: not an image that can be read") from error
    except RednetError:
        raise
    except Exception as error:
        # Pillow's readers raise many kinds of exceptions for damaged files.
        cause = getattr(error, "strerror", None) or error
        raise RednetError(f"{path}: cannot be read ({cause})") from error


def rgb_pixels(image: Image.Image, *, upright: bool) -> NDArray[np.uint8]:
    """Returns an opened image as RGB uint8 [H, W, 3].

    Args:
        image: from `Image.open`, not yet loaded.
        upright: as in `read_image`.

    Raises:
        OSError: the file is damaged.
        ValueError: its range of values is unknown, or its colours cannot be converted.
    """
    undone = None if upright else _STORED.get(_tiff_tag(image, _ORIENTATION, 1))
    turned = ImageOps.exif_transpose(image) if upright else image
    if undone is not None:
        # Pillow applies the orientation of a TIFF image when it loads the image.
        turned = image.transpose(undone)
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        # Pillow cannot convert premultiplied grey directly.
        turned = turned.convert("LA") if turned.mode == "La" else turned
        return np.asarray(turned if turned.mode == "RGB" else turned.convert("RGB"))
    values = np.asarray(turned)
    largest = 65535 if image.mode == "F" else _largest(image)
    if largest == 2**32 - 1:
        # Pillow stores them as signed integers.
        values = values.view(np.uint32)
    grey = _scaled(values, largest)
    if _tiff_tag(image, _PHOTOMETRIC, 1) == 0:
        # White is zero. Pillow inverts only 8-bit images.
        grey = 255 - grey
    return np.repeat(grey[..., None], 3, axis=-1)


def _scaled(values: NDArray[np.number[Any]], largest: int) -> NDArray[np.uint8]:
    """Scales grey values [H, W], integers or floats up to `largest`, to uint8 [H, W]."""
    low, high = float(values.min()), float(values.max())
    ranges = [1] if values.dtype.kind == "f" else []
    ranges += [top for top in (255, 65535) if top <= largest]
    if values.dtype.kind != "f":
        ranges.append(largest)
    # These comparisons are False for nan.
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
    """The largest value of the integer type of an image's file."""
    if image.mode != "I" or image.format == "PPM":
        # Pillow scales the white of a PPM file to 65535.
        bits, signed = _tiff_tag(image, _BITS, 16), False
    else:
        bits = _tiff_tag(image, _BITS, 32)
        signed = _tiff_tag(image, _SAMPLE_FORMAT, 1 if image.format == "TIFF" else 2) == 2
    return int(2 ** (bits - signed) - 1)


def _tiff_tag(image: Image.Image, tag: int, default: int) -> int:
    """The tag's value for the first channel of a TIFF file; the default for other files."""
    value = getattr(image, "tag_v2", {}).get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)
