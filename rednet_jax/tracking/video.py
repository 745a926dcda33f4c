"""Video files and cameras in, video files out, frame by frame (PyAV)."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, Protocol, Self, TypeVar

import av
import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.files import replacing

MISSING_FRAMES = 3
"""A video that ends more than this many frames before its declared end was cut short. Whole files
(29 tried: AVI, MP4, MPEG, WMV) end within two frames of it."""

CAMERAS = {
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}"),
    "win32": ("vfwcap", "{}"),
}
"""FFmpeg's input device for cameras on each system, and how it names the one of a number."""

TICKS = 10_000
"""A second of a written video has at least so many: frames of uneven distance keep their times."""

T = TypeVar("T")


class VideoFrame(NamedTuple):
    """One frame, and when it is shown.

    Attributes:
        image: RGB uint8 [H, W, 3].
        seconds: after the first frame.
    """

    image: NDArray[np.uint8]
    seconds: float


class WriteFrame(Protocol):
    """Appends a frame to a video."""

    def __call__(self, image: NDArray[np.uint8], seconds: float | None = None) -> None:
        """Takes RGB uint8 [H, W, 3], and when it is shown; None follows the last one evenly."""


class VideoReader:
    """The frames of a video or a camera, turned as the file asks. A context manager; iterate once.

    Attributes:
        name: of the file or the camera.
        live: whether it is a camera.
        fps: frames a second.
        size: width and height of the frames in pixels as they are stored: the file's pixel aspect
            is not applied.
        frame_count: as the file declares it, None where it does not say.
        broken: after the last frame, None or why the file ended early.
    """

    def __init__(self, source: str | os.PathLike[str] | int) -> None:
        """Opens a video and decodes its first frame.

        Args:
            source: path of a file in any format that FFmpeg knows, or the number of a camera.

        Raises:
            RednetError: the file or the camera is missing, is no video, or no frame of it can be
                decoded.
        """
        self.broken: str | None = None
        self.live = isinstance(source, int)
        self.name = f"camera {source}" if self.live else str(source)
        with contextlib.ExitStack() as stack:
            if isinstance(source, int):
                self._container = stack.enter_context(_open_camera(source))
            else:
                self._container = stack.enter_context(_open_file(Path(source), stack))
            if not self._container.streams.video:
                raise RednetError(f"{self.name}: has no video stream")
            self._stream = self._container.streams.video[0]
            self._stream.thread_type = "AUTO"
            self.fps = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
            self._frames = self._decode()
            first = next(self._frames, None)
            # FFmpeg also 'plays' text files, as a terminal would show them.
            if first is None or self._container.format.name == "tty":
                raise RednetError(f"{self.name}: not a video (no frame of it can be decoded)")
            self._first = first
            self.size = first.image.shape[1], first.image.shape[0]
            self.frame_count = self._stream.frames or None
            if self.frame_count is None and (seconds := self._declared_seconds()):
                self.frame_count = round(seconds * self.fps)
            self._resources = stack.pop_all()

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yields the frames; those before a break are handed out."""
        yield self._first
        yield from self._frames

    def __enter__(self) -> Self:
        """For `with`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file."""
        self._resources.close()

    def _decode(self) -> Iterator[VideoFrame]:
        first = last = None
        seconds = 0.0
        try:
            for frame in self._container.decode(self._stream):
                first = first or frame
                if last is not None:
                    seconds = self._seconds(first, frame, seconds)
                last = frame
                # A stream may change its size half way; those who read it were told one.
                image = frame.to_ndarray(format="rgb24", width=first.width, height=first.height)
                turned = np.rot90(image, round(first.rotation / 90))
                yield VideoFrame(np.ascontiguousarray(turned, np.uint8), seconds)
        except (av.FFmpegError, OSError) as error:
            self.broken = f"damaged or cut short ({error.strerror})"
            return
        declared = None if self.live else self._declared_seconds()
        if last is not None and last.is_corrupt:
            self.broken = "cut short (its last frame is incomplete)"
        elif declared and first and last and first.time is not None and last.time is not None:
            shown = last.time - first.time + float(1 / self.fps)
            if declared - shown > max(float(MISSING_FRAMES / self.fps), 0.02 * declared):
                self.broken = f"cut short ({shown:.1f} s of {declared:.1f} s)"

    def _seconds(self, first: av.VideoFrame, frame: av.VideoFrame, before: float) -> float:
        """When a frame is shown; one that does not say, or goes back in time, follows evenly."""
        if first.time is not None and frame.time is not None:
            seconds = float(frame.time - first.time)
            if seconds > before:
                return seconds
        return before + float(1 / self.fps)

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


def _open_file(path: Path, stack: contextlib.ExitStack) -> av.container.InputContainer:
    try:
        # Opened here, so that FFmpeg takes no name for an address or a pattern.
        file = stack.enter_context(path.open("rb"))
    except OSError as error:
        raise RednetError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        return av.open(file, "r")
    except (av.FFmpegError, OSError) as error:
        raise RednetError(f"{path}: not a video, or cut off before its index") from error


def _open_camera(number: int) -> av.container.InputContainer:
    if sys.platform not in CAMERAS:
        raise RednetError(f"camera {number}: no cameras are known on {sys.platform}")
    device, name = CAMERAS[sys.platform]
    try:
        return av.open(name.format(number), "r", format=device)
    except (av.FFmpegError, OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise RednetError(f"camera {number}: cannot be opened ({cause})") from error


@contextlib.contextmanager
def write_video(
    path: str | os.PathLike[str], fps: Fraction | float, size: tuple[int, int]
) -> Iterator[WriteFrame]:
    """Writes an H.264 (yuv420p) MP4 file that appears only once it is whole.

        with write_video("out.mp4", 25, (640, 480)) as write:
            write(image)

    An exception that leaves the block leaves no file.

    Args:
        path: of the file.
        fps: frames a second, on average.
        size: width and height of the frames to come. An odd side grows by one pixel: H.264 stores
            colour for blocks of two by two.

    Yields:
        A function that appends one frame, of that size.

    Raises:
        RednetError: the file cannot be written.
    """
    width, height = size
    rate = Fraction(fps).limit_denominator(60_000)
    # Even distances are whole numbers of ticks, so that the rate can be read off them.
    ticks = rate.numerator * -(-TICKS // rate.numerator)
    with replacing(path) as partial:
        try:
            with av.open(str(partial), "w", format="mp4") as container:
                stream = container.add_stream(
                    "libx264", rate=rate, options={"preset": "veryfast", "crf": "20"}
                )
                stream.width, stream.height = width + width % 2, height + height % 2
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = Fraction(1, ticks)
                even = Fraction(ticks) / rate
                last = -even

                def write(image: NDArray[np.uint8], seconds: float | None = None) -> None:
                    nonlocal last
                    if image.shape != (height, width, 3):
                        raise ValueError(f"a frame {image.shape} in a video of {width} x {height}")
                    padding = ((0, height % 2), (0, width % 2), (0, 0))
                    frame = av.VideoFrame.from_ndarray(
                        np.pad(image, padding, mode="edge"), format="rgb24"
                    )
                    asked = last + even if seconds is None else round(seconds * ticks)
                    last = max(Fraction(asked), last + 1)
                    frame.pts, frame.time_base = round(last), Fraction(1, ticks)
                    container.mux(stream.encode(frame))

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


@contextlib.contextmanager
def write_behind(write: Callable[[T], None], count: int = 4) -> Iterator[Callable[[T], None]]:
    """Yields a function that does the same in a thread, up to `count` items behind its caller.

    Drawing and encoding then run beside the network. An exception of `write` is raised by one of
    the next calls or at the block's end, which waits for all items.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[None]] = deque()

        def later(item: T) -> None:
            if len(waiting) == count:
                waiting.popleft().result()
            waiting.append(pool.submit(write, item))

        yield later
        for one in waiting:
            one.result()
