"""Tracks faces through a video file or a camera's images: what `rednet track` does."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.files import check_writable, staged, write_text, writing
from rednet_jax.inference.align_files import rounded
from rednet_jax.inference.face import Face
from rednet_jax.inference.smoothing import Smoother
from rednet_jax.inference.streams import Carry, is_recurrent
from rednet_jax.inference.tracker import Tracker
from rednet_jax.landmarks.drawing import draw_landmarks
from rednet_jax.landmarks.table import IDENTITY, landmarks_csv
from rednet_jax.media.background import read_ahead, write_behind
from rednet_jax.media.sequence import FrameReader, open_frames
from rednet_jax.media.video import VideoFrame, video_source, write_video
from rednet_jax.weights.store import Checkpoint, network_of

Output = str | os.PathLike[str]

T = TypeVar("T")

STDOUT = "-"
"""The output name that stands for standard output."""


class TrackedVideo(NamedTuple):
    """The result of `track_file`.

    Attributes:
        landmarks: float32 [T, L, 2] of the face with the longest track in each frame, pixels of the
            frame; nan in frames without a face or that cannot be read. For a camera, [0, L, 2]
            unless they are written.
        frames: T.
        found: number of frames with a face.
        people: number of identities.
        frames_per_second: of reading, tracking, drawing and writing together, without compilation.
        failures: one line each: the video is damaged, truncated or interrupted, images have another
            size than the first, no face was found, or one of several outputs could not be written.
        files: the written files, without standard output.
        interrupted: True after Ctrl-C or SIGTERM; False for a camera, whose video ends with it.
    """

    landmarks: NDArray[np.float32]
    frames: int
    found: int
    people: int
    frames_per_second: float
    failures: list[str]
    files: list[Path]
    interrupted: bool


def track_file(
    video: str | os.PathLike[str] | int,
    *,
    checkpoint: Checkpoint = "compact_video",
    faces: int = 1,
    feedback_steps: int = 1,
    carry: Carry = "all",
    smooth: bool | None = None,
    out: Output | None = None,
    landmarks: Output | None = None,
    jsonl: Output | None = None,
    fps: Fraction | float | None = None,
    report: Callable[[int, int | None], None] = lambda done, total: None,
) -> TrackedVideo:
    """Tracks faces through a video. Output files are complete, or do not appear at all.

    Decoding, and drawing and encoding, run in threads beside the network. After Ctrl-C or SIGTERM,
    the outputs are written for the frames so far. An output that fails, for example on a full disk,
    does not stop the others, nor does a reader that closes standard output, which is no failure.

    Args:
        video: a file in any format that FFmpeg reads, the number of a camera, a folder of images,
            or a pattern of image files such as frame_%04d.png. Images are resized to the size of
            the first. One that cannot be read is a frame without faces, and is not drawn.
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        faces: maximum number of faces that are tracked.
        feedback_steps: K, passes of the network for each frame.
        carry: the state carried from frame to frame.
        smooth: whether to smooth the landmarks with a one-euro filter. None smooths unless f_tRNN
            of the network was trained and its state is carried.
        out: MP4 file (H.264, no sound) for the video with the landmarks drawn. It has every frame
            that could be decoded, rotated as the video's metadata say, at its time.
        landmarks: CSV file, or '-' for standard output, for the landmarks of the face with the
            longest track: a row for each frame with its number from 1, the person's number
            (`identity`) and the coordinates. If out, landmarks and jsonl are all None,
            VIDEO_landmarks.mp4 and VIDEO_landmarks.csv are written to the current folder.
        jsonl: file, or '-' for standard output, with one line of JSON for each frame: `frame` (from
            1), `seconds`, and `faces`, each with `identity`, `box` [4], `confidence` (the mean),
            `landmarks` [L, 2] and `landmark_confidence` [L].
        fps: frames per second of an image sequence, 25 if None.
        report: called with the number of frames done and, if the file declares it, the total.

    Raises:
        RednetError: the video or the checkpoint cannot be read, faces or feedback_steps is out of
            range, an unknown `carry`, an output that cannot be written before the first frame, or
            none that could be written.
        BrokenPipeError: the reader closed standard output, and there is no other output.
    """
    video = video_source(video)
    if out is None and landmarks is None and jsonl is None:
        stem = _stem(video)
        out, landmarks = f"{stem}_landmarks.mp4", f"{stem}_landmarks.csv"
    if jsonl == landmarks == STDOUT:
        raise RednetError("landmarks and jsonl cannot both go to standard output")
    files = [Path(p) for p in (out, landmarks, jsonl) if p is not None and p != STDOUT]
    distinct = [path.resolve() for path in files]
    if not isinstance(video, int):
        distinct.append(Path(video).resolve())
    if len(set(distinct)) < len(distinct):
        raise RednetError(f"{files[-1]}: the video and the outputs must be different files")
    for path in files:
        check_writable(path)
    count = read = with_face = 0
    people: set[int | None] = set()
    points: list[NDArray[np.float32]] = []
    identities: list[str] = []
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(open_frames(video, fps))
        config, variables = network_of(checkpoint)
        tracker = Tracker(
            (config, variables), faces=faces, feedback_steps=feedback_steps, carry=carry
        )
        if smooth is None:
            smooth = carry != "all" or not is_recurrent(variables)
        smoother = Smoother() if smooth else None
        stopped = stack.enter_context(_interrupted())
        draw = write_line = None
        if out is not None:
            draw = stack.enter_context(_IsolatedOutput(out, _drawn_video(out, reader)))
        if jsonl is not None:
            write_line = stack.enter_context(_IsolatedOutput(jsonl, _lines(jsonl)))
        isolated = [output for output in (draw, write_line) if output is not None]
        frames = stack.enter_context(contextlib.closing(read_ahead(reader)))
        # A camera may run for days: its landmarks are kept in memory only if they are written.
        keep = landmarks is not None or not reader.live
        blank = np.full((config.scheme.count, 2), np.nan, np.float32)
        begin = time.perf_counter()
        for frame in frames:
            tracked: list[Face] = []
            # An image that cannot be read keeps its number, as a frame without faces.
            if isinstance(frame, VideoFrame):
                tracked = tracker.update(frame.image)
                if smoother is not None:
                    tracked = smoother.update(tracked, frame.seconds)
                if draw is not None:
                    draw((frame, tracked))
                read += 1
            count, with_face = count + 1, with_face + bool(tracked)
            people.update(face.identity for face in tracked)
            if keep:
                points.append(tracked[0].landmarks if tracked else blank)
                identities.append(str(tracked[0].identity) if tracked else "")
            if write_line is not None:
                write_line(json_line(count, frame.seconds, tracked))
            report(count, reader.frame_count)
            if landmarks is None and all(output.error for output in isolated):
                break
            if stopped.is_set():
                break
        seconds = time.perf_counter() - begin
    lost = {output.path: output.error for output in isolated if output.error is not None}
    track = np.reshape(points, (-1, config.scheme.count, 2)).astype(np.float32)
    if landmarks is not None:
        names = [str(number + 1) for number in range(count)]
        table = landmarks_csv(names, track, dict(zip(IDENTITY, [identities], strict=True)))
        try:
            if landmarks == STDOUT:
                _print(table)
            else:
                write_text(landmarks, table)
        except (RednetError, BrokenPipeError) as error:
            lost[Path(landmarks)] = error
    failures = [str(error) for error in lost.values() if isinstance(error, RednetError)]
    if len(lost) == sum(path is not None for path in (out, landmarks, jsonl)):
        raise RednetError("; ".join(failures)) if failures else BrokenPipeError
    if stopped.is_set() and not reader.live:
        failures.append(f"{reader.name}: interrupted; the {count} frames before are kept")
    elif reader.broken is not None:
        failures.append(
            f"{reader.name}: {reader.broken}; the {read} frames that could be read are kept"
        )
    if reader.resized is not None:
        failures.append(f"{reader.name}: {reader.resized}")
    if not with_face:
        failures.append(f"{reader.name}: no face found in {read} frames")
    interrupted = stopped.is_set() and not reader.live
    return TrackedVideo(
        track,
        count,
        with_face,
        len(people),
        read / seconds,
        failures,
        [path for path in files if path not in lost],
        interrupted,
    )


def _stem(video: str | os.PathLike[str] | int) -> str:
    """Returns the start of the default names of output files."""
    if isinstance(video, int):
        return f"camera_{video}"
    path = Path(video).absolute()
    name = path.name if path.is_dir() else path.stem
    # `frame` for the pattern frame_%04d.png.
    return re.sub(r"[-_. ]*%\d*d", "", name) or "sequence"


def json_line(frame: int, seconds: float, faces: list[Face]) -> str:
    """Returns a frame's faces as a line of JSON, which `track_file` describes."""
    return json.dumps(
        {
            "frame": frame,
            "seconds": round(seconds, 4),
            "faces": [
                {
                    "identity": face.identity,
                    "box": rounded(face.box),
                    "confidence": rounded(np.mean(face.confidence)),
                    "landmarks": rounded(face.landmarks),
                    "landmark_confidence": rounded(face.confidence),
                }
                for face in faces
            ],
        }
    )


class _IsolatedOutput(Generic[T]):
    """An output whose failure after the start is recorded, not raised, so that others continue.

    Attributes:
        path: of the output.
        error: why it cannot be written, a BrokenPipeError if its reader has closed it; None if it
            can.
    """

    def __init__(
        self, path: Output, output: contextlib.AbstractContextManager[Callable[[T], None]]
    ) -> None:
        self.path = Path(path)
        self.error: RednetError | BrokenPipeError | None = None
        self._output, self._stack = output, contextlib.ExitStack()

    def __call__(self, item: T) -> None:
        if self.error is not None:
            return
        try:
            # The output ends here, with the exception of the write, unless the write succeeds.
            with self._stack.pop_all() as stack:
                self._write(item)
                self._stack = stack.pop_all()
        except (RednetError, BrokenPipeError) as error:
            self.error = error

    def __enter__(self) -> Self:
        self._write = self._stack.enter_context(self._output)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._stack.__exit__(kind, error, trace)
        except RednetError as failure:
            if error is not None:
                raise
            self.error = failure


@contextlib.contextmanager
def _drawn_video(
    path: Output, reader: FrameReader
) -> Iterator[Callable[[tuple[VideoFrame, list[Face]]], None]]:
    with write_video(path, reader.fps, reader.size, reader.pixel_aspect) as write:

        def draw(item: tuple[VideoFrame, list[Face]]) -> None:
            frame, faces = item
            image = frame.image
            for face in faces:
                image = draw_landmarks(image, face.landmarks, face.scheme)
            write(image, frame.seconds)

        with write_behind(draw) as later:
            yield later


@contextlib.contextmanager
def _lines(path: Output) -> Iterator[Callable[[str], None]]:
    """Yields a function that writes a line at once."""
    if path == STDOUT:
        yield lambda line: _print(f"{line}\n")
        return
    with staged(path) as partial:
        with writing(path):
            file = partial.open("w", encoding="utf-8")

        def write(line: str) -> None:
            with writing(path):
                print(line, file=file, flush=True)

        try:
            yield write
        finally:
            # After a failed write, this fails, too.
            with writing(path):
                file.close()


def _print(text: str) -> None:
    """Writes text to standard output at once; raises RednetError, or BrokenPipeError."""
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RednetError(f"standard output: cannot be written ({error.strerror})") from error


@contextlib.contextmanager
def _interrupted() -> Iterator[threading.Event]:
    """Yields an event that the first Ctrl-C or SIGTERM sets, such as a job's at its time limit.

    The second one has the handler from before, which ends the process or raises KeyboardInterrupt.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        # Python allows signal handlers only in the main thread.
        yield event
        return

    def note(number: int, frame: object) -> None:
        event.set()
        restore()

    def restore() -> None:
        for stopping, handler in before.items():
            signal.signal(stopping, handler)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # A handler that was not set from Python is None, and could not be restored.
    before = {number: handler for number, handler in handlers.items() if handler is not None}
    for number in before:
        signal.signal(number, note)
    try:
        yield event
    finally:
        restore()
