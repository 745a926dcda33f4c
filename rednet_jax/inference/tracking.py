"""The frames of a video with the faces in them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from rednet_jax.detection.detector import FaceDetector
from rednet_jax.errors import RednetError
from rednet_jax.inference.face import Face
from rednet_jax.inference.streams import Variables
from rednet_jax.inference.tracker import Tracker
from rednet_jax.media.background import read_ahead
from rednet_jax.media.sequence import FrameReader, open_frames
from rednet_jax.model.config import RedNetConfig


@dataclasses.dataclass(frozen=True)
class TrackedFrame:
    """One frame of a video and its faces.

    Attributes:
        index: number of the frame, from 0.
        seconds: when it is shown; None where frames were given without times.
        faces: in the frame, the one that was tracked longest first.
    """

    index: int
    seconds: float | None
    faces: list[Face]


def track(
    source: str | os.PathLike[str] | int | Iterable[NDArray[np.uint8]],
    checkpoint: str | tuple[RedNetConfig, Variables] = "compact_video",
    *,
    faces: int = 1,
    feedback_steps: int = 1,
    detector: FaceDetector | None = None,
) -> Iterator[TrackedFrame]:
    """Tracks faces through a video.

        for frame in rednet_jax.track("meeting.mp4", faces=4):
            for face in frame.faces:
                print(frame.seconds, face.identity, face.landmarks)

    Args:
        source: a video file, the number of a camera, a folder of images, a pattern such as
            frame_%04d.png, or frames, RGB uint8 [H, W, 3] each: arrays, or a generator of them.
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        faces: how many are tracked at most.
        feedback_steps: K, passes of the network for each frame.
        detector: finds the faces; `YuNet(VIDEO_SEARCH)` if None.

    Returns:
        The frames with their faces, each computed when it is asked for.

    Raises:
        RednetError: a video or a checkpoint that cannot be read, faces or feedback_steps below 1;
            later, a frame that is no RGB image, or, after all that could be read, a file that is
            damaged or cut short.
    """
    tracker = Tracker(checkpoint, faces=faces, feedback_steps=feedback_steps, detector=detector)
    if isinstance(source, str | os.PathLike | int):
        return _track_video(tracker, open_frames(source))
    return (TrackedFrame(index, None, tracker.update(image)) for index, image in enumerate(source))


def _track_video(tracker: Tracker, reader: FrameReader) -> Iterator[TrackedFrame]:
    with reader, contextlib.closing(read_ahead(reader)) as frames:
        for index, frame in enumerate(frames):
            yield TrackedFrame(index, frame.seconds, tracker.update(frame.image))
    if reader.broken is not None:
        raise RednetError(f"{reader.name}: {reader.broken}")
