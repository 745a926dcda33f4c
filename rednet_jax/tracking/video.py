"""Video files in and out, frame by frame (PyAV)."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Self, TypeVar

import av
import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.files import replacing

MISSING_FRAMES = 3
"""A video that ends more than this many frames before its declared end was cut short. Whole files
(29 tried: AVI, MP4, MPEG, WMV) end within two frames of it."""

T = TypeVar("T")


class VideoReader:
    """The frames of a video file, turned as the file asks. A context manager; iterate once.

    Attributes:
        path: of the file.
        fps: frames a second.
        size: width and height of the frames in pixels as they are stored: the file's pixel aspect
            is not applied.
        frame_count: as the file declares it, None where it does not say.
        broken: after the last frame, None or why the file ended early.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens a video and decodes its first frame.

        Args:
            path: of a file in any format that FFmpeg knows.

        Raises:
            RednetError: the file is missing, is no video, or no frame of it can be decoded.
        """
        self.path = Path(path)
        self.broken: str | None = None
        with contextlib.ExitStack() as stack:
            try:
                # Opened here, so that FFmpeg takes no name for an address or a pattern.
                file = stack.enter_context(self.path.open("rb"))
            except OSError as error:
                raise RednetError(f"{self.path}: cannot be read ({error.strerror})") from error
            try:
                self._container = stack.enter_context(av.open(file, "r"))
            except (av.FFmpegError, OSError) as error:
                cause = "not a video, or cut off before its index"
                raise RednetError(f"{self.path}: {cause}") from error
            if not self._container.streams.video:
                raise RednetError(f"{self.path}: has no video stream")
            self._stream = self._container.streams.video[0]
            self._stream.thread_type = "AUTO"
            self.fps = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
            self._frames = self._decode()
            first = next(self._frames, None)
            # FFmpeg also 'plays' text files, as a terminal would show them.
            if first is None or self._container.format.name == "tty":
                raise RednetError(f"{self.path}: not a video (no frame of it can be decoded)")
            self._first = first
            self.size = first.shape[1], first.shape[0]
            self.frame_count = self._stream.frames or None
            if self.frame_count is None and (seconds := self._declared_seconds()):
                self.frame_count = round(seconds * self.fps)
            self._resources = stack.pop_all()

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Yields the frames, RGB uint8 [height, width, 3]; those before a break are handed out."""
        yield self._first
        yield from self._frames

    def __enter__(self) -> Self:
        """For `with`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file."""
        self._resources.close()

    def _decode(self) -> Iterator[NDArray[np.uint8]]:
        first = last = None
        try:
            for frame in self._container.decode(self._stream):
                first = first or frame
                last = frame
                # A stream may change its size half way; those who read it were told one.
                image = frame.to_ndarray(format="rgb24", width=first.width, height=first.height)
                yield np.ascontiguousarray(np.rot90(image, round(first.rotation / 90)), np.uint8)
        except (av.FFmpegError, OSError) as error:
            self.broken = f"damaged or cut short ({error.strerror})"
            return
        declared = self._declared_seconds()
        if last is not None and last.is_corrupt:
            self.broken = "cut short (its last frame is incomplete)"
        elif declared and first and last and first.time is not None and last.time is not None:
            shown = last.time - first.time + float(1 / self.fps)
            if declared - shown > max(float(MISSING_FRAMES / self.fps), 0.02 * declared):
                self.broken = f"cut short ({shown:.1f} s of {declared:.1f} s)"

    def _declared_seconds(self) -> float | None:
        """Length of the video stream."""
        stream, container = self._stream, self._container
        # Of an AVI file without its end FFmpeg shortens the length, but not the number of frames.
        lengths = [float(stream.frames / self.fps)]
        if stream.duration is not None and stream.time_base is not None:
            lengths.append(float(stream.duration * stream.time_base))
        elif container.duration is not None and len(container.streams) == 1:
            # Of several streams, the longest gives the file its length: no word on the pictures.
            lengths.append(container.duration / av.time_base)
        return max(lengths) or None


@contextlib.contextmanager
def write_video(
    path: str | os.PathLike[str], fps: Fraction | float, size: tuple[int, int]
) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """Writes an H.264 (yuv420p) MP4 file that appears only once it is whole.

        with write_video("out.mp4", 25, (640, 480)) as write:
            write(frame)

    An exception that leaves the block leaves no file.

    Args:
        path: of the file.
        fps: frames a second.
        size: width and height of the frames to come. An odd side grows by one pixel: H.264 stores
            colour for blocks of two by two.

    Yields:
        A function that appends one frame, RGB uint8 [height, width, 3].

    Raises:
        RednetError: the file cannot be written.
    """
    width, height = size
    with replacing(path) as partial:
        try:
            with av.open(str(partial), "w", format="mp4") as container:
                stream = container.add_stream(
                    "libx264",
                    rate=Fraction(fps).limit_denominator(60_000),
                    options={"preset": "veryfast", "crf": "20"},
                )
                stream.width, stream.height = width + width % 2, height + height % 2
                stream.pix_fmt = "yuv420p"

                def write(image: NDArray[np.uint8]) -> None:
                    if image.shape != (height, width, 3):
                        raise ValueError(f"a frame {image.shape} in a video of {width} x {height}")
                    even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))

                yield write
                container.mux(stream.encode(None))
        except av.FFmpegError as error:
            raise RednetError(f"{path}: cannot be written ({error.strerror})") from error


def read_ahead(items: Iterable[T], count: int = 4) -> Generator[T, None, None]:
    """Yields the same items, made in a thread up to `count` ahead of their use.

    Decoding then runs beside the network. An exception of `items` is raised where its item would
    have come. Close the generator before what it reads from.
    """
    source = iter(items)
    with ThreadPoolExecutor(1) as pool, contextlib.suppress(StopIteration):
        ready = deque(pool.submit(next, source) for _ in range(count))
        while True:
            item = ready.popleft().result()
            ready.append(pool.submit(next, source))
            yield item
