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
from rednet_jax.landmarks.drawing import draw_landmarks
from rednet_jax.landmarks.table import write_landmarks_csv
from rednet_jax.model.config import RedNetConfig
from rednet_jax.tracking.tracker import TrackedFrame, Tracker, landmark_track
from rednet_jax.tracking.video import VideoReader, read_ahead, write_video
from rednet_jax.weights.store import load


class TrackedVideo(NamedTuple):
    """What `track_file` leaves.

    Attributes:
        landmarks: float32 [T, L, 2], pixels of the frame; nan in frames without a face.
        confidence: float32 [T], the mean over the points; 0 in frames without a face.
        frames_per_second: all of it: reading, tracking, drawing and writing, without compilation.
        failures: one line each: the video is cut short, no face was found in it.
        files: that were written.
    """

    landmarks: NDArray[np.float32]
    confidence: NDArray[np.float32]
    frames_per_second: float
    failures: list[str]
    files: list[Path]


def track_file(
    video: str | os.PathLike[str],
    *,
    checkpoint: str | tuple[RedNetConfig, dict[str, Any]] = "compact",
    feedback_steps: int = 1,
    out: str | os.PathLike[str] | None = None,
    landmarks: str | os.PathLike[str] | None = None,
    report: Callable[[int, int | None], None] = lambda done, total: None,
) -> TrackedVideo:
    """Follows the most prominent face of a video. Files appear at its end, whole or not at all.

    Args:
        video: a file in any format that FFmpeg knows.
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        feedback_steps: K, passes of the network for each frame.
        out: MP4 file (H.264, no sound) for the video with the landmarks drawn.
        landmarks: CSV file for the landmarks, one row a frame, named by its number from 1. Where
            neither file is named, VIDEO_landmarks.mp4 and .csv are written to the current folder.
        report: called with the number of frames done and, where the file declares it, in all.

    Raises:
        RednetError: no video, a bad checkpoint, feedback_steps below 1, or an output that cannot
            be written.
    """
    video = Path(video)
    if out is None and landmarks is None:
        out, landmarks = f"{video.stem}_landmarks.mp4", f"{video.stem}_landmarks.csv"
    files = [Path(path) for path in (out, landmarks) if path is not None]
    if len({path.resolve() for path in (video, *files)}) <= len(files):
        raise RednetError(f"{files[-1]}: video, drawn video and landmarks must be different files")
    faces: list[TrackedFrame] = []
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(VideoReader(video))
        config, variables = load(checkpoint) if isinstance(checkpoint, str) else checkpoint
        tracker = Tracker(config, variables, feedback_steps=feedback_steps)
        write = None
        if out is not None:
            write = stack.enter_context(write_video(out, reader.fps, reader.size))
        frames = stack.enter_context(contextlib.closing(read_ahead(reader)))
        begin = time.perf_counter()
        for image in frames:
            face = tracker.update(image)
            faces.append(face)
            if write is not None:
                drawn = image if face.landmarks is None else draw_landmarks(image, face.landmarks)
                write(drawn)
            report(len(faces), reader.frame_count)
        seconds = time.perf_counter() - begin
        points = landmark_track(faces, config.landmarks)
        if landmarks is not None:
            # Here, so that no video is left where the table cannot be written.
            write_landmarks_csv(landmarks, [str(n + 1) for n in range(len(points))], points)
    failures = []
    if reader.broken is not None:
        failures.append(f"{video}: {reader.broken}; the {len(faces)} frames before that are kept")
    if np.isnan(points).all():
        failures.append(f"{video}: no face found in {len(faces)} frames")
    confidence = np.array([face.confidence for face in faces], np.float32)
    return TrackedVideo(points, confidence, len(faces) / seconds, failures, files)
