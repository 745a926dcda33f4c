"""Video files in and out, frame by frame (PyAV)."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import av
import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError

MISSING_FRAMES = 3
"""A video that ends more than this many frames before its declared end is taken as cut short. Real files of the
four containers tried (AVI, MP4, MPEG, WMV) end within two frames of it."""

NOT_VIDEO = {"tty", "ass", "srt", "webvtt"}
"""Formats in which FFmpeg also 'plays' text files."""


T = TypeVar("T")


class VideoReader:
    """The frames of a video file, in order, as RGB uint8 [H, W, 3], turned as the file asks to be shown.

    Use it as a context manager and iterate once. Attributes: `fps` (frames a second), `size` (width, height of
    the frames handed out, pixels as stored: a file's pixel aspect is not applied), `frame_count` (as declared,
    None where the file does not say), and, after the iteration, `broken`: None, or why the file ended early.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens a video and looks at its first frame.

        Raises: RednetError where the file is missing, is no video, or has no frame that can be decoded.
        """
        self.path = Path(path)
        self.broken: str | None = None
        if not self.path.is_file():
            cause = "is a folder, not a video" if self.path.is_dir() else "no such file"
            raise RednetError(f"{self.path}: {cause}")
        if self.path.stat().st_size == 0:
            raise RednetError(f"{self.path}: the file is empty")
        try:
            # Opened here, so that no name is taken for an address or a pattern of FFmpeg's.
            self._file = self.path.open("rb")
        except OSError as error:
            raise RednetError(f"{self.path}: cannot be read ({error.strerror})") from error
        try:
            self._container = av.open(self._file, "r")
        except (av.FFmpegError, OSError, ValueError) as error:
            self._file.close()
            raise RednetError(f"{self.path}: not a video, or cut off before its index") from error
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        if not self._container.streams.video:
            raise RednetError(f"{self.path}: has no video stream")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self._decoded = self._decode()
        first = next(self._decoded, None)
        if self._container.format.name in NOT_VIDEO or first is None:
            raise RednetError(f"{self.path}: no frame of it can be decoded")
        self._first = first
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.fps = Fraction(rate) if rate else Fraction(25)
        self.frame_count = self._count()
        self.size = (first.shape[1], first.shape[0])

    def _count(self) -> int | None:
        if self._stream.frames:
            return self._stream.frames
        end = self._declared_seconds()
        return None if end is None else round(end * self.fps)

    def _declared_seconds(self) -> float | None:
        """Length of the video stream in seconds, as the file declares it."""
        stream = self._stream
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        # Of several streams, the longest gives the container its length: no word on the pictures.
        if self._container.duration is not None and len(self._container.streams) == 1:
            return self._container.duration / 1e6
        return None

    def _decode(self) -> Iterator[NDArray[np.uint8]]:
        start = end = corrupt = None
        shape: tuple[int, ...] | None = None
        try:
            for frame in self._container.decode(self._stream):
                image = _upright(frame)
                # A stream may change its size half way; those who read it were told one.
                if shape is not None and image.shape != shape:
                    turned = frame.rotation % 180 != 0
                    height, width = shape[1::-1] if turned else shape[:2]
                    image = _upright(frame.reformat(width=width, height=height), frame.rotation)
                shape = image.shape
                if frame.time is not None:
                    start = frame.time if start is None else start
                    end = frame.time
                corrupt = frame.is_corrupt
                yield image
        except (av.FFmpegError, OSError, ValueError) as error:
            self.broken = f"damaged or cut short ({getattr(error, 'strerror', None) or error})"
            return
        declared = self._declared_seconds()
        if corrupt:
            self.broken = "cut short (its last frame is incomplete)"
        elif declared is not None and start is not None and end is not None:
            shown = end - start + 1 / self.fps
            if (declared - shown) * self.fps > MISSING_FRAMES and shown < 0.98 * declared:
                self.broken = f"cut short ({shown:.1f} s of {declared:.1f} s)"

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """The frames RGB uint8 [H, W, 3]; those before a break are handed out, then `broken` says what it was."""
        yield self._first
        yield from self._decoded

    def close(self) -> None:
        """Closes the file."""
        self._container.close()
        self._file.close()

    def __enter__(self) -> Self:
        """The reader itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file."""
        self.close()


def _upright(frame: av.VideoFrame, rotation: int | None = None) -> NDArray[np.uint8]:
    """A decoded frame as RGB, turned by its display rotation (degrees anticlockwise, quarter turns only)."""
    image = frame.to_ndarray(format="rgb24")
    quarters = round((frame.rotation if rotation is None else rotation) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image


class VideoWriter:
    """An H.264 (yuv420p) MP4 file that appears under its name only when it is complete.

    As a context manager: leaving it normally finishes the file; leaving it by an exception removes what there was.
    """

    def __init__(
        self, path: str | os.PathLike[str], fps: Fraction | float, size: tuple[int, int]
    ) -> None:
        """Opens a video of the given frames a second and size (width, height) of the frames to come.

        Odd sizes are padded by one pixel: H.264 stores colour for blocks of two by two.
        Raises: RednetError where the file cannot be created.
        """
        self.path = Path(path)
        self._partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_dir():
                raise RednetError(f"{self.path}: cannot be written (is a folder)")
            self._container = av.open(str(self._partial), "w", format="mp4")
        except OSError as error:
            raise RednetError(f"{self.path}: cannot be written ({error.strerror})") from error
        self._size = size
        rate = Fraction(fps).limit_denominator(60000)
        self._stream = self._container.add_stream("libx264", rate=rate)
        self._stream.width, self._stream.height = (side + side % 2 for side in size)
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"preset": "veryfast", "crf": "20"}

    def write(self, image: NDArray[np.uint8]) -> None:
        """Appends one RGB frame uint8 [H, W, 3] of the size given at the start. Raises: RednetError, disk full."""
        width, height = self._size
        if image.shape != (height, width, 3):
            raise ValueError(f"a frame of shape {image.shape} in a video of {width}x{height}")
        padded = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        self._mux(av.VideoFrame.from_ndarray(padded, format="rgb24"))

    def _mux(self, frame: av.VideoFrame | None) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except (av.FFmpegError, OSError) as error:
            raise RednetError(f"{self.path}: cannot be written ({error.strerror})") from error

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        """Finishes the file, or removes it where an exception passes through."""
        try:
            if kind is None:
                self._mux(None)
                self._container.close()
                os.replace(self._partial, self.path)
        except OSError as error:
            raise RednetError(f"{self.path}: cannot be written ({error.strerror})") from error
        finally:
            with suppress(OSError):
                self._container.close()
            self._partial.unlink(missing_ok=True)


def read_ahead(items: Iterable[T], count: int = 4) -> Iterator[T]:
    """The same items in the same order, made in a thread up to `count` ahead of their use.

    Decoding then runs beside the network. An exception of `items` is raised where its item would have come.
    """
    ready: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(maxsize=count)
    stop = threading.Event()

    def hand_over(last: bool, item: T | BaseException | None) -> bool:
        while not stop.is_set():
            with suppress(queue.Full):
                ready.put((last, item), timeout=0.1)
                return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not hand_over(False, item):
                    return
            hand_over(True, None)
        except BaseException as error:
            hand_over(True, error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            last, item = ready.get()
            if last:
                if isinstance(item, BaseException):
                    raise item
                return
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()


