"""Faces followed through a video file or a camera's images: what `rednet track` does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.files import replacing
from rednet_jax.inference.face import Face
from rednet_jax.inference.smoothing import Smoother
from rednet_jax.inference.streams import is_recurrent
from rednet_jax.inference.tracker import Tracker, landmark_track
from rednet_jax.landmarks.drawing import draw_landmarks
from rednet_jax.landmarks.table import write_landmarks_csv
from rednet_jax.media.background import read_ahead, write_behind
from rednet_jax.media.video import VideoFrame, VideoReader, write_video
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.store import load

Output = str | os.PathLike[str]


class TrackedVideo(NamedTuple):
    """What `track_file` leaves.

    Attributes:
        landmarks: float32 [T, L, 2] of the face that was followed longest in each frame, pixels of
            the frame; nan in frames without a face.
        found: frames with a face.
        people: how many were told apart.
        frames_per_second: all of it: reading, tracking, drawing and writing, without compilation.
        failures: one line each: the video is damaged, cut short or interrupted, or no face was
            found in it.
        files: that were written.
        interrupted: a file by Ctrl-C, which is how a camera ends.
    """

    landmarks: NDArray[np.float32]
    found: int
    people: int
    frames_per_second: float
    failures: list[str]
    files: list[Path]
    interrupted: bool


def track_file(
    video: str | os.PathLike[str] | int,
    *,
    checkpoint: str | tuple[RedNetConfig, dict[str, Any]] = "compact_video",
    faces: int = 1,
    feedback_steps: int = 1,
    smooth: bool | None = None,
    out: Output | None = None,
    landmarks: Output | None = None,
    jsonl: Output | None = None,
    report: Callable[[int, int | None], None] = lambda done, total: None,
) -> TrackedVideo:
    """Follows faces through a video. Files appear at its end, whole or not at all.

    Decoding, and drawing and encoding, run in threads beside the network. Ctrl-C ends the video
    there: what was tracked is written as if it had been the whole.

    Args:
        video: a file in any format that FFmpeg knows, or the number of a camera.
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        faces: how many are followed at most.
        feedback_steps: K, passes of the network for each frame.
        smooth: pass the landmarks through a one-euro filter; None if the network has not learnt to
            remember.
        out: MP4 file (H.264, no sound) for the video with the landmarks drawn. Its frames are those
            that could be decoded, turned as the video asks, each at its time.
        landmarks: CSV file for the landmarks of the face that is followed longest, one row a frame,
            named by its number from 1. Where no file is named, VIDEO_landmarks.mp4 and .csv are
            written to the current folder.
        jsonl: file, or '-' for standard output, with one line of JSON for each frame: `frame` (from
            1), `seconds`, and `faces`, each with `identity`, `box` [4], `confidence` (the mean),
            `landmarks` [L, 2] and `landmark_confidence` [L].
        report: called with the number of frames done and, where the file declares it, in all.

    Raises:
        RednetError: no video, a bad checkpoint, faces or feedback_steps below 1, or an output that
            cannot be written.
    """
    if out is None and landmarks is None and jsonl is None:
        stem = f"camera_{video}" if isinstance(video, int) else Path(video).stem
        out, landmarks = f"{stem}_landmarks.mp4", f"{stem}_landmarks.csv"
    to_stdout = jsonl == "-"
    files = [Path(p) for p in (out, landmarks, None if to_stdout else jsonl) if p is not None]
    named = [path.resolve() for path in files]
    if not isinstance(video, int):
        named.append(Path(video).resolve())
    if len(set(named)) < len(named):
        raise RednetError(f"{files[-1]}: the video and what is written must be different files")
    followed: list[list[Face]] = []
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(VideoReader(video))
        config, variables = load(checkpoint) if isinstance(checkpoint, str) else checkpoint
        tracker = Tracker((config, variables), faces=faces, feedback_steps=feedback_steps)
        if smooth is None:
            smooth = not is_recurrent(variables)
        smoother = Smoother() if smooth else None
        stopped = stack.enter_context(_interrupted())
        draw = None
        if out is not None:
            draw = stack.enter_context(_drawn_video(out, reader))
        lines = None
        if jsonl is not None:
            lines = stack.enter_context(_lines(jsonl))
        frames = stack.enter_context(contextlib.closing(read_ahead(reader)))
        begin = time.perf_counter()
        for frame in frames:
            found = tracker.update(frame.image)
            if smoother is not None:
                found = smoother.update(found, frame.seconds)
            followed.append(found)
            if draw is not None:
                draw((frame, found))
            if lines is not None:
                lines.write(json_line(len(followed), frame.seconds, found) + "\n")
                if to_stdout:
                    lines.flush()
            report(len(followed), reader.frame_count)
            if stopped.is_set():
                break
        seconds = time.perf_counter() - begin
        points = landmark_track(followed, config.landmarks)
        if landmarks is not None:
            # Here, so that no video is left where the table cannot be written.
            write_landmarks_csv(landmarks, [str(n + 1) for n in range(len(points))], points)
    failures = []
    if stopped.is_set() and not reader.live:
        failures.append(f"{reader.name}: interrupted; the {len(points)} frames before are kept")
    elif reader.broken is not None:
        failures.append(
            f"{reader.name}: {reader.broken}; the {len(points)} frames that could be read are kept"
        )
    found_in = sum(map(bool, followed))
    if not found_in:
        failures.append(f"{reader.name}: no face found in {len(points)} frames")
    people = len({face.identity for found in followed for face in found})
    interrupted = stopped.is_set() and not reader.live
    return TrackedVideo(
        points, found_in, people, len(points) / seconds, failures, files, interrupted
    )


def json_line(frame: int, seconds: float, faces: list[Face]) -> str:
    """Returns one frame's faces as a line of JSON, as `track_file` describes it."""
    return json.dumps(
        {
            "frame": frame,
            "seconds": round(seconds, 4),
            "faces": [
                {
                    "identity": face.identity,
                    "box": _rounded(face.box),
                    "confidence": _rounded(np.mean(face.confidence)),
                    "landmarks": _rounded(face.landmarks),
                    "landmark_confidence": _rounded(face.confidence),
                }
                for face in faces
            ],
        }
    )


def _rounded(values: Any) -> Any:
    return np.round(np.asarray(values, np.float64), 3).tolist()


@contextlib.contextmanager
def _drawn_video(
    path: Output, reader: VideoReader
) -> Iterator[Callable[[tuple[VideoFrame, list[Face]]], None]]:
    with write_video(path, reader.fps, reader.size, reader.pixel_aspect) as write:

        def draw(item: tuple[VideoFrame, list[Face]]) -> None:
            frame, faces = item
            image = frame.image
            for face in faces:
                image = draw_landmarks(image, face.landmarks)
            write(image, frame.seconds)

        with write_behind(draw) as later:
            yield later


@contextlib.contextmanager
def _lines(path: Output) -> Iterator[TextIO]:
    if path == "-":
        yield sys.stdout
        return
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        yield file


@contextlib.contextmanager
def _interrupted() -> Iterator[threading.Event]:
    """Yields an event that the first Ctrl-C sets; the second one interrupts as ever."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        # Signals reach the main thread alone, and only there can they be asked for.
        yield event
        return

    def note(number: int, frame: object) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
