"""One face followed through a video file: what `rednet track` does."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.table import write_landmarks_csv
from rednet_jax.model.config import RedNetConfig
from rednet_jax.tracking.overlay import draw_landmarks
from rednet_jax.tracking.tracker import track
from rednet_jax.tracking.video import VideoReader, VideoWriter, read_ahead
from rednet_jax.weights.store import load


class TrackedVideo(NamedTuple):
    """What `track_file` leaves.

    Attributes:
        landmarks: float32 [T, L, 2], pixels of the frame; nan in frames without a face.
        confidence: float32 [T], the mean over the points; 0 in frames without a face.
        frames_per_second: all of it: reading, tracking, drawing and writing, without compilation.
        failures: one line each: the video is cut short, no face was found in it.
    """

    landmarks: NDArray[np.float32]
    confidence: NDArray[np.float32]
    frames_per_second: float
    failures: list[str]


def track_file(
    video: str | os.PathLike[str],
    *,
    checkpoint: str | tuple[RedNetConfig, dict[str, Any]] = "compact",
    feedback_steps: int = 1,
    out: str | os.PathLike[str] | None = None,
    landmarks: str | os.PathLike[str] | None = None,
    report: Callable[[int, int | None], None] = lambda done, total: None,
) -> TrackedVideo:
    """Follows the most prominent face of a video.

    Args:
        video: a file that PyAV can read.
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        feedback_steps: K, passes of the network for each frame.
        out: where an H.264 MP4 with the landmarks drawn goes.
        landmarks: where the table goes, one row a frame, named by the frame's number from 1.
        report: called with the number of frames done and, where the file tells it, in all.

    Both files appear when the video has come to its end, whole, or not at all.
    Raises: RednetError for a file that is no video, a bad checkpoint, an output that cannot be written.
    """
    if feedback_steps < 1:
        raise RednetError(f"feedback steps must be 1 or more, not {feedback_steps}")
    for target in (out, landmarks):
        if target is not None and Path(target).resolve() == Path(video).resolve():
            raise RednetError(f"{target}: would overwrite the video itself")
    points: list[NDArray[np.float32] | None] = []
    confidence: list[float] = []
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(VideoReader(video))
        if isinstance(checkpoint, str):
            checkpoint = load(checkpoint)
        writer = None
        if out is not None:
            writer = stack.enter_context(VideoWriter(out, reader.fps, reader.size))
        frames = stack.enter_context(contextlib.closing(read_ahead(reader)))
        shown: list[NDArray[np.uint8]] = []

        def kept(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
            shown[:] = [image]
            return image

        # The first frame pays for compilation and is left out of the frames per second.
        start = None
        for face in track(map(kept, frames), checkpoint, feedback_steps=feedback_steps):
            if writer is not None:
                image = shown[0]
                if face.landmarks is not None:
                    image = draw_landmarks(image, face.landmarks)
                writer.write(image)
            points.append(face.landmarks)
            confidence.append(face.confidence)
            start = time.perf_counter() if start is None else start
            report(len(points), reader.frame_count)
    seconds = time.perf_counter() - start if start is not None else 0.0
    blank = np.full((checkpoint[0].landmarks, 2), np.nan, np.float32)
    table = np.stack([blank if p is None else p for p in points])
    if landmarks is not None:
        write_landmarks_csv(landmarks, [str(n + 1) for n in range(len(points))], table)
    failures = []
    if reader.broken is not None:
        failures.append(f"{video}: {reader.broken}; the {len(points)} frames before that are kept")
    if all(p is None for p in points):
        failures.append(f"{video}: no face found in {len(points)} frames")
    speed = (len(points) - 1) / seconds if seconds else 0.0
    return TrackedVideo(table, np.array(confidence, np.float32), speed, failures)
