"""Video files and cameras in, video files out, frame by frame (PyAV)."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, Self, cast

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.files import replacing

MISSING_FRAMES = 3
"""A video that ends more than this many frames before its declared end was cut short. Whole files
(29 tried: AVI, MP4, MPEG, WMV) end within two frames of it."""

UNTAGGED = 2
"""FFmpeg's number for YUV frames that do not say by which matrix they were made from RGB."""

BT709 = 1
"""FFmpeg's number for that matrix, for the primaries and for the transfer function of BT.709."""

BT601 = 6
"""FFmpeg's number for the matrix of BT.601."""

CAMERAS = {
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}"),
    "win32": ("vfwcap", "{}"),
}
"""FFmpeg's input device for cameras on each system, and how it names the one of a number."""

UPRIGHT = np.eye(2, dtype=np.int64)
"""Display matrix of a video that is shown as it is stored."""

LARGEST = 36_000_000
"""Pixels of a frame at most, somewhat more than 8K has: some dozens are in memory at a time."""

TICKS = 10_000
"""A second of a written video has at least so many: frames of uneven distance keep their times."""


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
        size: width and height of the frames in pixels as they are stored, and then turned: the
            file's pixel aspect is not applied.
        pixel_aspect: width of a pixel where it is shown, over its height.
        frame_count: as the file declares it, None where it does not say.
        broken: after the last frame, None or what of the file is missing: parts that cannot be
            decoded are left out, and the end may be.
    """

    def __init__(self, source: str | os.PathLike[str] | int) -> None:
        """Opens a video and decodes the first frame that can be.

        Args:
            source: path of a file in any format that FFmpeg knows, or the number of a camera.

        Raises:
            RednetError: the file or the camera is missing, is no video, or no frame of it can be
                decoded.
        """
        self.broken: str | None = None
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
            # Music has its cover as a video of one frame.
            if not isinstance(best, VideoStream) or best.disposition & Disposition.attached_pic:
                raise RednetError(f"{self.name}: has no video stream")
            # PyAV makes none for a stream that FFmpeg has no decoder for.
            if getattr(best, "codec_context", None) is None:
                raise RednetError(f"{self.name}: not a video (no decoder for its video stream)")
            self._stream = best
            self._check_size(best.width, best.height)
            # Decoders refuse larger frames, which a stream may have later, before they take memory.
            best.codec_context.options = {"max_pixels": str(LARGEST)}
            # Threads that each decode a frame would lose frames beside a damaged one.
            self._stream.thread_type = "SLICE"
            self.fps = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
            self._frames = self._decode()
            first = next(self._frames, None)
            # FFmpeg also 'plays' text files, as a terminal would show them.
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
        """Yields the frames; those before a break are handed out."""
        yield self._first
        yield from self._frames

    def __enter__(self) -> Self:
        """For `with`."""
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
                self._matrix = _display_matrix(frame)
            try:
                # A stream may change its size half way; those who read it were told one.
                image = _rgb(frame, first.width, first.height)
            except av.FFmpegError:
                self._damaged += 1
                continue
            if last is not None:
                seconds = self._seconds(first, frame, seconds)
                self._damaged += last.is_corrupt
            last = frame
            yield VideoFrame(np.ascontiguousarray(_displayed(image, self._matrix)), seconds)
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
            self.broken = f"broke off ({error.strerror})"

    def _missing(self, first: av.VideoFrame, last: av.VideoFrame) -> str | None:
        """What of a file that was read to its end is missing."""
        missing = []
        if self._damaged:
            places = "1 place" if self._damaged == 1 else f"{self._damaged} places"
            missing.append(f"damaged in {places}")
        declared = self._declared_seconds()
        if last.is_corrupt:
            missing.append("cut short (its last frame is incomplete)")
        elif declared and first.time is not None and last.time is not None:
            # The first frames may be those that cannot be decoded.
            shown = last.time - min(first.time, self._start_seconds()) + float(1 / self.fps)
            if declared - shown > max(float(MISSING_FRAMES / self.fps), 0.02 * declared):
                missing.append(f"cut short ({shown:.1f} s of {declared:.1f} s)")
        return " and ".join(missing) or None

    def _seconds(self, first: av.VideoFrame, frame: av.VideoFrame, before: float) -> float:
        """When a frame is shown; one that does not say, or goes back in time, follows evenly."""
        if first.time is not None and frame.time is not None:
            seconds = float(frame.time - first.time)
            if seconds > before:
                return seconds
        return before + float(1 / self.fps)

    def _start_seconds(self) -> float:
        """Time of the first frame of the video stream, as the file declares it."""
        return float((self._stream.start_time or 0) * (self._stream.time_base or 0))

    def _declared_seconds(self) -> float | None:
        """Length of the part of the video stream that is shown."""
        stream, container = self._stream, self._container
        lengths = [0.0]
        # An MP4 file that was trimmed without encoding it again holds frames that are not shown.
        # Of an AVI file without its end FFmpeg shortens the length, but not the number of frames.
        if stream.duration is None or container.format.name == "avi":
            lengths.append(float(stream.frames / self.fps))
        if stream.duration is not None and stream.time_base is not None:
            lengths.append(float(stream.duration * stream.time_base))
        else:
            # What follows counts from 0, which may be before the first frame.
            start = max(0.0, self._start_seconds())
            if clock := re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", "")):
                hours, minutes, seconds = clock.groups()
                length = 3600 * float(hours) + 60 * float(minutes) + float(seconds)
                lengths.append(length - start)
            elif container.duration is not None and len(container.streams) == 1:
                # Of several streams, the longest gives the file its length.
                lengths.append(container.duration / av.time_base - start)
        return max(lengths) or None


def _display_matrix(frame: av.VideoFrame) -> NDArray[np.int64]:
    """Returns how a frame is shown: int [2, 2], a rotation by quarter turns, or a mirror image.

    It maps directions (x, y) of the stored image to those of the one that is shown. Other angles
    become the nearest.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return UPRIGHT
    # Rows (a, b, u), (c, d, v), (x, y, w): (a p + c q + x, b p + d q + y) shows pixel (p, q).
    values = np.frombuffer(cast(bytes, data), np.int32)
    stored = values.reshape(3, 3)[:2, :2].T.astype(np.float64)
    straight, crossed = np.abs(np.diag(stored)).sum(), np.abs(np.diag(stored[::-1])).sum()
    if not straight + crossed:
        return UPRIGHT
    kept = np.eye(2) if straight >= crossed else np.eye(2)[::-1]
    return np.where(stored < 0, -1, 1) * kept.astype(np.int64)


def _displayed(image: NDArray[np.uint8], matrix: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Returns an image [H, W, 3] as a display matrix shows it."""
    if not matrix[0, 0]:
        image = image.swapaxes(0, 1)
    across, down = matrix.sum(1)
    return image[::down, ::across]


def _rgb(frame: av.VideoFrame, width: int, height: int) -> NDArray[np.uint8]:
    """Returns [H, W, 3]."""
    colorspace = _usual_matrix(frame.width, frame.height) if frame.colorspace == UNTAGGED else None
    return np.asarray(
        frame.to_ndarray(format="rgb24", width=width, height=height, src_colorspace=colorspace),
        np.uint8,
    )


def _usual_matrix(width: int, height: int) -> int:
    """What players take for the matrix of a video that does not say: BT.709 for large ones."""
    return BT709 if width >= 1280 or height > 576 else BT601


def _open_file(name: str, stack: contextlib.ExitStack) -> av.container.InputContainer:
    path = Path(name)
    try:
        # Opened here, so that FFmpeg takes no name for an address or a pattern.
        file = stack.enter_context(path.open("rb"))
    except OSError as error:
        raise RednetError(f"{name}: cannot be read ({error.strerror})") from error
    try:
        return av.open(_with_extension(file), "r", metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise RednetError(f"{name}: not a video, or cut off before its index") from error


def _with_extension(file: BinaryIO) -> BinaryIO:
    """Returns a GIF that begins without extensions with a comment added, other files as they are.

    FFmpeg 8 takes several frames for one in a GIF whose first block is an image.
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
        raise RednetError(f"camera {number}: no cameras are known on {sys.platform}")
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
    """Writes an H.264 (yuv420p) MP4 file that appears only once it is whole.

        with write_video("out.mp4", 25, (640, 480)) as write:
            write(image)

    An exception that leaves the block leaves no file.

    Args:
        path: of the file, NAME.mp4.
        fps: frames a second, on average.
        size: width and height of the frames to come. An odd side grows by one pixel: H.264 stores
            colour for blocks of two by two.
        pixel_aspect: width of a pixel where it is shown, over its height.

    Yields:
        A function that appends one frame, of that size.

    Raises:
        RednetError: the file cannot be written, or has another extension.
    """
    width, height = size
    rate = Fraction(fps).limit_denominator(60_000)
    # Even distances are whole numbers of ticks, so that the rate can be read off them.
    ticks = rate.numerator * -(-TICKS // rate.numerator)
    if Path(path).suffix.lower() not in (".mp4", ".m4v"):
        raise RednetError(f"{path}: cannot be written (it will be an MP4 file: name it .mp4)")
    with replacing(path) as partial:
        try:
            # Absolute, so that FFmpeg takes no name with a colon for an address.
            with av.open(str(partial.absolute()), "w", format="mp4") as container:
                stream = container.add_stream(
                    "libx264", rate=rate, options={"preset": "veryfast", "crf": "20"}
                )
                stream.width, stream.height = width + width % 2, height + height % 2
                stream.pix_fmt = "yuv420p"
                codec = stream.codec_context
                codec.time_base = Fraction(1, ticks)
                codec.sample_aspect_ratio = pixel_aspect
                # As players without an eye for tags take it, and said for those with one.
                codec.colorspace = _usual_matrix(width, height)
                codec.color_range = ColorRange.MPEG
                codec.color_primaries = codec.color_trc = BT709
                even = Fraction(ticks) / rate
                last = -even

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
                    asked = last + even if seconds is None else round(seconds * ticks)
                    last = max(Fraction(asked), last + 1)
                    frame.pts, frame.time_base = round(last), Fraction(1, ticks)
                    container.mux(stream.encode(frame))

                yield write
                container.mux(stream.encode(None))
        except av.FFmpegError as error:
            raise RednetError(f"{path}: cannot be written ({error.strerror})") from error
