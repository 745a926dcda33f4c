"""Opens videos, cameras and sequences of image files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rednet_jax.errors import RednetError
from rednet_jax.media.images import (
    ENDINGS,
    image_errors,
    open_image,
    read_bytes,
    read_image,
)
from rednet_jax.media.rates import frame_rate
from rednet_jax.media.video import LARGEST, VideoFrame, VideoReader, video_source

FPS = Fraction(25)
"""Default frames per second of an image sequence, the same as FFmpeg's."""

_ANIMATED = ("AVIF", "GIF", "PNG", "WEBP")
"""Formats of images that are read as a video if they have several frames."""

_NUMBER = re.compile(r"%(0?)(\d*)d")


class MissingFrame(NamedTuple):
    """The place of an image that cannot be read.

    Attributes:
        seconds: time after the first frame.
    """

    seconds: float


class FrameReader(Protocol):
    """A video file, a camera, or an image sequence. `VideoReader` describes the attributes."""

    name: str
    live: bool
    fps: Fraction
    size: tuple[int, int]
    pixel_aspect: Fraction
    frame_count: int | None
    broken: str | None
    resized: str | None

    def __iter__(self) -> Iterator[VideoFrame | MissingFrame]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...


def open_frames(
    source: str | os.PathLike[str] | int, fps: Fraction | float | None = None
) -> FrameReader:
    """Opens a video, a camera or an image sequence.

    Args:
        source: a file in any format that FFmpeg reads, the number of a camera, an image, a folder
            of images, or a pattern of image files such as frame_%04d.png.
        fps: frames per second of an image sequence, 25 if None. It must be None for a video.

    Raises:
        RednetError: the source is empty or neither a path nor a number, fps is given for a video,
            or as `VideoReader` and `ImageSequence` raise it.
    """
    source = video_source(source)
    if not isinstance(source, int):
        # Path("") is the current folder.
        if not os.fspath(source):
            raise RednetError("the path of the video is empty")
        path = Path(source)
        pattern = _NUMBER.search(path.name) and not path.exists()
        if path.is_dir() or pattern or _is_still(path):
            return ImageSequence(path, FPS if fps is None else fps)
    if fps is not None:
        raise RednetError(f"{source}: fps is only for images, not for a video")
    return VideoReader(source)


class ImageSequence:
    """An image, or those of a folder or a pattern, as frames; attributes as of `VideoReader`.

    The images are in the order of the numbers in their names. They are resized to the size of the
    first image, and `resized` describes those of another size. `broken` describes the images that
    cannot be read.
    """

    def __init__(self, source: str | os.PathLike[str], fps: Fraction | float = FPS) -> None:
        """Finds the images and reads the first.

        Args:
            source: a folder, of which the files with an image's extension are read, a pattern such
                as frame_%04d.png, for which the numbers may have gaps, or an image.
            fps: frames per second.

        Raises:
            RednetError: no video can have the frame rate, there is no image, or the first cannot be
                read.
        """
        self.name, self.live = os.fspath(source), False
        self.broken: str | None = None
        self.resized: str | None = None
        self.fps, self.pixel_aspect = frame_rate(fps), Fraction(1)
        path = Path(source)
        if path.is_file():
            self._files = [path]
        else:
            self._files = _images_in(path) if path.is_dir() else _images_like(path)
        if not self._files:
            kind = "no image in this folder" if path.is_dir() else "no image has such a name"
            raise RednetError(f"{self.name}: {kind}")
        self.frame_count: int | None = len(self._files)
        self._first = read_image(self._files[0], upright=True)
        self.size = self._first.shape[1], self._first.shape[0]
        if self.size[0] * self.size[1] > LARGEST:
            raise RednetError(
                f"{self._files[0]}: {self.size[0]} x {self.size[1]} pixels, as frames of a video "
                f"more than {LARGEST // 10**6} million"
            )

    def __iter__(self) -> Iterator[VideoFrame | MissingFrame]:
        """Yields a frame for each image, a `MissingFrame` for one that cannot be read."""
        unreadable: list[str] = []
        resized: list[str] = []
        for index, file in enumerate(self._files):
            seconds = float(index / self.fps)
            try:
                image = self._first if index == 0 else read_image(file, upright=True)
            except RednetError as error:
                unreadable.append(str(error))
                self.broken = _counted(unreadable)
                yield MissingFrame(seconds)
                continue
            width, height = image.shape[1::-1]
            if (width, height) != self.size:
                first = f"{self.size[0]}x{self.size[1]} px of the first image"
                resized.append(
                    f"{file}: {width}x{height} px, resized to the {first}, in which its landmarks "
                    "are"
                )
                self.resized = _counted(resized)
            yield VideoFrame(self._sized(image), seconds)

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Does nothing."""

    def _sized(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if image.shape[1::-1] == self.size:
            return image
        return np.asarray(Image.fromarray(image).resize(self.size, Image.Resampling.BILINEAR))


def _counted(reasons: list[str]) -> str:
    """The first of several reasons, and how many there are besides."""
    return reasons[0] + (f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else "")


def _is_still(path: Path) -> bool:
    """Whether a file is an image, and no animation."""
    if path.suffix.lower() not in ENDINGS:
        return False
    try:
        with image_errors(path), open_image(read_bytes(path)) as image:
            return image.format not in _ANIMATED or getattr(image, "n_frames", 1) == 1
    except RednetError:
        return False


def _images_in(folder: Path) -> list[Path]:
    """The images of a folder, sorted by name; numbers in names are compared by value."""

    def order(path: Path) -> list[tuple[bool, int, str]]:
        parts = re.split(r"(\d+)", path.name)
        return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]

    files = (path for path in folder.iterdir() if path.is_file())
    visible = (path for path in files if not path.name.startswith("."))
    return sorted((path for path in visible if path.suffix.lower() in ENDINGS), key=order)


def _images_like(pattern: Path) -> list[Path]:
    """The files that match a pattern, sorted by number."""
    number = _NUMBER.search(pattern.name)
    if number is None or not pattern.parent.is_dir():
        return []
    before, after = pattern.name[: number.start()], pattern.name[number.end() :]
    padded, width = number.groups()
    digits = rf"\d{{{width or 1},}}" if padded else r"\d+"
    named = re.compile(re.escape(before) + f"({digits})" + re.escape(after))
    files = {
        int(match[1]): path
        for path in pattern.parent.iterdir()
        if (match := named.fullmatch(path.name)) and path.is_file()
    }
    return [files[index] for index in sorted(files)]
