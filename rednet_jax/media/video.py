"""Reads video files and cameras, and writes video files, frame by frame (PyAV)."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, Self

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.fields import integer, shown
from rednet_jax.files import staged
from rednet_jax.media.display import UPRIGHT, display_matrix, displayed
from rednet_jax.media.rates import frame_rate

MISSING_FRAMES = 3
"""A video that ends more than this many frames before its declared end was cut short. Complete
files (29 tested: AVI, MP4, MPEG, WMV) end within two frames of it."""

UNTAGGED = 2
"""FFmpeg's number for YUV frames without a declared YUV-to-RGB matrix."""

BT709 = 1
"""FFmpeg's number for the matrix, the primaries and the transfer function of BT.709."""

BT601 = 6
"""FFmpeg's number for the matrix of BT.601."""

CAMERAS = {
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}"),
}
"""FFmpeg's input device for cameras on each platform, and its name for camera number {}."""

LARGEST = 36_000_000
"""Maximum number of pixels of a frame, a little more than 8K: dozens of frames are in memory."""

TICKS = 10_000
"""Minimum number of ticks per second of a written video, so that frames keep their times."""


class VideoFrame(NamedTuple):
    """A frame and its time.

    Attributes:
        image: RGB uint8 [H, W, 3].
        seconds: time after the first frame.
    """

    image: NDArray[np.uint8]
    seconds: float


class WriteFrame(Protocol):
    """Appends a frame to a video."""

    def __call__(self, image: NDArray[np.uint8], seconds: float | None = None) -> None:
        """Takes RGB uint8 [H, W, 3] and its time; None is one frame interval after the last."""


def video_source(source: str | os.PathLike[str] | int) -> str | os.PathLike[str] | int:
    """Returns the path of a video, or the number of a camera as an int.

    Raises:
        RednetError: it is neither.
    """
    if isinstance(source, str | os.PathLike):
        return source
    try:
        return integer(source, "camera", least=0)
    except RednetError:
        raise RednetError(
            f"a video is a path or the number of a camera, not {shown(source)}"
        ) from None


class VideoReader:
    """The frames of a video or a camera, rotated as the file declares.

    It is a context manager and can be iterated once.

    Attributes:
        name: of the file or the camera.
        live: whether it is a camera.
        fps: frames per second.
        size: width and height of the rotated frames in stored pixels; the pixel aspect is not
            applied.
        pixel_aspect: width of a displayed pixel divided by its height.
        frame_count: as the file declares it, else None.
        broken: after the last frame, a description of the missing parts of the file, which cannot
            be decoded or are cut off; None if the file is complete.
        resized: after the last frame, a description of the images whose size differs from the first
            one's; None for a video.
    """

    def __init__(self, source: str | os.PathLike[str] | int) -> None:
        """Opens a video and decodes the first decodable frame.

        Args:
            source: path of a file in any format that FFmpeg reads, or the number of a camera.

        Raises:
            RednetError: the file or the camera is missing, is not a video, or no frame of it can be
                decoded.
        """
        source = video_source(source)
        self.broken: str | None = None
        self.resized: str | None = None
        self._damaged = 0
        self._matrix = UPRIGHT
        self.live = isinstance(source, int)
        self.name = f"camera {source}" if isinstance(source, int) else os.fspath(source)
        with contextlib.ExitStack() as stack:
            if isinstance(source, int):
                self._container = stack.enter_context(_open_camera(source))
            else:
                self._container = stack.enter_context(_open_file(self.name, stack))
            best = self._container.streams.best("video")
            # Music files have their cover as a video stream with one frame.
            if not isinstance(best, VideoStream) or best.disposition & Disposition.attached_pic:
                raise RednetError(f"{self.name}: has no video stream")
            # PyAV creates no codec context if FFmpeg has no decoder for the stream.
            if getattr(best, "codec_context", None) is None:
                raise RednetError(f"{self.name}: not a video (no decoder for its video stream)")
            self._stream = best
            self._check_size(best.width, best.height)
            # The frame size may change within a stream: the decoder has to check every frame.
            best.codec_context.options = {"max_pixels": str(LARGEST)}
            # With frame threads, frames next to a damaged one are lost.
            self._stream.thread_type = "SLICE"
            self.fps = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
            self._frames = self._decode()
            first = next(self._frames, None)
            # FFmpeg decodes text files as terminal output.
            if first is None or self._container.format.name == "tty":
                raise RednetError(f"{self.name}: not a video (no frame of it can be decoded)")
            self._first = first
            self.size = first.image.shape[1], first.image.shape[0]
            self.pixel_aspect = self._stream.sample_aspect_ratio or Fraction(1)
            if not self._matrix[0, 0]:
                self.pixel_aspect = 1 / self.pixel_aspect
            seconds = self._declared_seconds()
            self.frame_count = round(seconds * self.fps) if seconds else None
            self._resources = stack.pop_all()

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yields the frames; a broken file ends the iteration without an exception."""
        yield self._first
        yield from self._frames

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file."""
        self._resources.close()

    def _check_size(self, width: int, height: int) -> None:
        if width * height > LARGEST:
            raise RednetError(
                f"{self.name}: {width} x {height} pixels, more than {LARGEST // 10**6} million"
            )

    def _decode(self) -> Iterator[VideoFrame]:
        first = last = None
        seconds = 0.0
        for frame in self._decodable():
            if first is None:
                first = frame
                self._matrix = display_matrix(frame)
            try:
                # The frame size may change within a stream: all frames get the size of the first.
                image = _rgb(frame, first.width, first.height)
            except av.FFmpegError:
                self._damaged += 1
                continue
            if last is not None:
                seconds = self._seconds(first, frame, seconds)
                self._damaged += last.is_corrupt
            last = frame
            yield VideoFrame(np.ascontiguousarray(displayed(image, self._matrix)), seconds)
        if first is not None and last is not None and self.broken is None and not self.live:
            self.broken = self._missing(first, last)

    def _decodable(self) -> Iterator[av.VideoFrame]:
        try:
            for packet in self._container.demux(self._stream):
                try:
                    frames = self._stream.decode(packet)
                except av.FFmpegError:
                    self._damaged += 1
                    continue
                yield from frames
        except (av.FFmpegError, OSError) as error:
            self.broken = f"reading failed ({error.strerror})"

    def _missing(self, first: av.VideoFrame, last: av.VideoFrame) -> str | None:
        """Describes the missing parts of a file after its last frame; None if it is complete."""
        missing = []
        if self._damaged:
            places = "1 place" if self._damaged == 1 else f"{self._damaged} places"
            missing.append(f"damaged in {places}")
        declared = self._declared_seconds()
        if last.is_corrupt:
            missing.append("cut short (its last frame is incomplete)")
        elif declared and first.time is not None and last.time is not None:
            # The frames before `first` could not be decoded, but are not cut off.
            decoded = last.time - min(first.time, self._start_seconds()) + float(1 / self.fps)
            if declared - decoded > max(float(MISSING_FRAMES / self.fps), 0.02 * declared):
                missing.append(f"cut short ({decoded:.1f} s of {declared:.1f} s)")
        return " and ".join(missing) or None

    def _seconds(self, first: av.VideoFrame, frame: av.VideoFrame, before: float) -> float:
        """The time of a frame; without a valid one, a frame interval after the last frame's."""
        if first.time is not None and frame.time is not None:
            seconds = float(frame.time - first.time)
            if seconds > before:
                return seconds
        return before + float(1 / self.fps)

    def _start_seconds(self) -> float:
        """Time of the first frame of the video stream, as the file declares it."""
        return float((self._stream.start_time or 0) * (self._stream.time_base or 0))

    def _declared_seconds(self) -> float | None:
        """The declared length of the displayed part of the video stream."""
        stream, container = self._stream, self._container
        lengths = [0.0]
        # The number of frames of an MP4 file is not reliable: one trimmed without re-encoding has
        # frames that are not displayed. For a truncated AVI file, FFmpeg corrects the length, but
        # not the number of frames.
        if stream.duration is None or container.format.name == "avi":
            lengths.append(float(stream.frames / self.fps))
        if stream.duration is not None and stream.time_base is not None:
            lengths.append(float(stream.duration * stream.time_base))
        else:
            # These lengths start at 0, which may be before the first frame.
            start = max(0.0, self._start_seconds())
            if clock := re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", "")):
                hours, minutes, seconds = clock.groups()
                length = 3600 * float(hours) + 60 * float(minutes) + float(seconds)
                lengths.append(length - start)
            elif container.duration is not None and len(container.streams) == 1:
                # The length of a file is that of its longest stream.
                lengths.append(container.duration / av.time_base - start)
        return max(lengths) or None


def _rgb(frame: av.VideoFrame, width: int, height: int) -> NDArray[np.uint8]:
    """Returns the frame as RGB uint8 [H, W, 3]."""
    colorspace = _usual_matrix(frame.width, frame.height) if frame.colorspace == UNTAGGED else None
    return np.asarray(
        frame.to_ndarray(format="rgb24", width=width, height=height, src_colorspace=colorspace),
        np.uint8,
    )


def _usual_matrix(width: int, height: int) -> int:
    """The matrix that players use for a video without a declared one: BT.709 for large videos."""
    return BT709 if width >= 1280 or height > 576 else BT601


def _open_file(name: str, stack: contextlib.ExitStack) -> av.container.InputContainer:
    path = Path(name)
    try:
        # Not opened by FFmpeg, which interprets some names as addresses or patterns.
        file = stack.enter_context(path.open("rb"))
    except OSError as error:
        raise RednetError(f"{name}: cannot be read ({error.strerror})") from error
    try:
        return av.open(_with_extension(file), "r", metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise RednetError(f"{name}: not a video, or its index is cut off") from error


def _with_extension(file: BinaryIO) -> BinaryIO:
    """Returns the file, or a copy with a comment block if it is a GIF that starts with an image.

    FFmpeg 8 merges several frames of a GIF if its first block is an image.
    """
    start = file.read(13)
    if start[:6] in (b"GIF87a", b"GIF89a") and len(start) == 13:
        colours = file.read(3 * 2 ** ((start[10] & 7) + 1)) if start[10] & 0x80 else b""
        if (first := file.read(1)) == b",":
            comment = b"\x21\xfe\x01-\x00"
            return io.BytesIO(b"GIF89a" + start[6:] + colours + comment + first + file.read())
    file.seek(0)
    return file


def _open_camera(number: int) -> av.container.InputContainer:
    if sys.platform not in CAMERAS:
        raise RednetError(f"camera {number}: cameras are not supported on {sys.platform}")
    device, name = CAMERAS[sys.platform]
    try:
        return av.open(name.format(number), "r", format=device)
    except (av.FFmpegError, OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise RednetError(f"camera {number}: cannot be opened ({cause})") from error


@contextlib.contextmanager
def write_video(
    path: str | os.PathLike[str],
    fps: Fraction | float,
    size: tuple[int, int],
    pixel_aspect: Fraction = Fraction(1),
) -> Iterator[WriteFrame]:
    """Writes an H.264 (yuv420p) MP4 file, atomically.

        with write_video("out.mp4", 25, (640, 480)) as write:
            write(image)

    The file appears at the end of the block. If the block raises an exception, there is no file.

    Args:
        path: of the file, NAME.mp4.
        fps: average frames per second.
        size: width and height of the frames. One pixel is added to an odd side, since H.264 stores
            colour for blocks of 2 x 2 pixels.
        pixel_aspect: width of a displayed pixel divided by its height.

    Yields:
        A function that appends a frame of that size.

    Raises:
        RednetError: the file cannot be written or has another extension, or no video can have the
            frame rate.
    """
    width, height = size
    rate = frame_rate(fps)
    # A frame interval is a whole number of ticks, so that players compute the exact rate.
    ticks = rate.numerator * -(-TICKS // rate.numerator)
    if Path(path).suffix.lower() not in (".mp4", ".m4v"):
        raise RednetError(f"{path}: cannot be written (an MP4 file needs the extension .mp4)")
    with staged(path) as partial:
        try:
            # FFmpeg interprets relative names with a colon as addresses.
            with av.open(str(partial.absolute()), "w", format="mp4") as container:
                stream = container.add_stream(
                    "libx264", rate=rate, options={"preset": "veryfast", "crf": "20"}
                )
                stream.width, stream.height = width + width % 2, height + height % 2
                stream.pix_fmt = "yuv420p"
                codec = stream.codec_context
                codec.time_base = Fraction(1, ticks)
                codec.sample_aspect_ratio = pixel_aspect
                # The matrix that players assume without a tag; the tag declares the same matrix.
                codec.colorspace = _usual_matrix(width, height)
                codec.color_range = ColorRange.MPEG
                codec.color_primaries = codec.color_trc = BT709
                interval = Fraction(ticks) / rate
                last = -interval

                def write(image: NDArray[np.uint8], seconds: float | None = None) -> None:
                    nonlocal last
                    if image.shape != (height, width, 3):
                        raise ValueError(f"a frame {image.shape} in a video of {width} x {height}")
                    padding = ((0, height % 2), (0, width % 2), (0, 0))
                    frame = av.VideoFrame.from_ndarray(
                        np.pad(image, padding, mode="edge")
                    ).reformat(
                        format="yuv420p",
                        dst_colorspace=codec.colorspace,
                        dst_color_range=ColorRange.MPEG,
                    )
                    time = last + interval if seconds is None else round(seconds * ticks)
                    last = max(Fraction(time), last + 1)
                    frame.pts, frame.time_base = round(last), Fraction(1, ticks)
                    container.mux(stream.encode(frame))

                yield write
                container.mux(stream.encode(None))
        except av.FFmpegError as error:
            raise RednetError(f"{path}: cannot be written ({error.strerror})") from error
