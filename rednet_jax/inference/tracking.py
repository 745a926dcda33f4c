"""Tracks faces through the frames of a video: `rednet_jax.track`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from rednet_jax.detection.detector import FaceDetector
from rednet_jax.errors import RednetError
from rednet_jax.inference.aligner import ImageLike
from rednet_jax.inference.face import Face
from rednet_jax.inference.streams import Carry
from rednet_jax.inference.tracker import Tracker
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.media.background import read_ahead
from rednet_jax.media.sequence import open_frames
from rednet_jax.media.video import VideoFrame
from rednet_jax.weights.store import Checkpoint


@dataclasses.dataclass(frozen=True)
class TrackedFrame:
    """One frame of a video and its faces.

    Attributes:
        index: of the frame, from 0.
        seconds: time of the frame; None if the source is an iterable of arrays.
        faces: of the frame, the longest track first.
    """

    index: int
    seconds: float | None
    faces: list[Face]


def track(
    source: str | os.PathLike[str] | int | Iterable[ImageLike],
    checkpoint: Checkpoint = "compact_video",
    *,
    faces: int = 1,
    feedback_steps: int = 1,
    carry: Carry = "all",
    detector: FaceDetector | None = None,
) -> Iterator[TrackedFrame]:
    """Tracks faces through a video.

        for frame in rednet_jax.track("meeting.mp4", faces=4):
            for face in frame.faces:
                print(frame.seconds, face.identity, face.landmarks)

    Args:
        source: a video file, the number of a camera, a folder of images, a pattern such as
            frame_%04d.png, or an iterable of frames, RGB uint8 [H, W, 3] or images as `Aligner`
            takes them. The images of a folder or a pattern are resized to the size of the first,
            and one that cannot be read is a frame without faces.
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        faces: maximum number of faces that are tracked.
        feedback_steps: K, passes of the network for each frame.
        carry: the state carried from frame to frame.
        detector: finds the faces; `YuNet(VIDEO_SEARCH)` if None.

    Returns:
        An iterator over the frames with their faces; each frame is computed by `next`. It closes
        the video at the end, by `close()`, or when it is deleted.

    Raises:
        RednetError: the video or the checkpoint cannot be read, faces or feedback_steps is no
            integer or out of range, or an unknown `carry`. The iterator raises it for a frame
            that is not an RGB uint8 array and, after the last frame that could be read, for a
            damaged or truncated file.
    """
    tracker = Tracker(
        checkpoint, faces=faces, feedback_steps=feedback_steps, carry=carry, detector=detector
    )
    if not isinstance(source, str | os.PathLike):
        try:
            frames = iter(cast(Iterable[ImageLike], source))
        except TypeError:
            # The number of a camera.
            pass
        else:
            return (TrackedFrame(n, None, tracker.update(image)) for n, image in enumerate(frames))
    tracked = _track_video(tracker, cast(str | int, source))
    # Opens the video.
    next(tracked)
    return tracked


def landmark_track(frames: Sequence[Sequence[Face]], scheme: Scheme) -> NDArray[np.float32]:
    """Returns the first face's landmarks of T frames, float32 [T, L, 2]; nan without a face."""
    blank = np.full((scheme.count, 2), np.nan, np.float32)
    return np.stack([faces[0].landmarks if faces else blank for faces in frames])


def _track_video(tracker: Tracker, source: str | os.PathLike[str] | int) -> Iterator[TrackedFrame]:
    """Yields an empty frame as soon as the video is open, then its frames.

    A generator that has not begun could not close the video.
    """
    with open_frames(source) as reader:
        yield TrackedFrame(-1, None, [])
        with contextlib.closing(read_ahead(reader)) as frames:
            for index, frame in enumerate(frames):
                # Not a VideoFrame: an image that cannot be read.
                faces = tracker.update(frame.image) if isinstance(frame, VideoFrame) else []
                yield TrackedFrame(index, frame.seconds, faces)
    if reader.broken is not None:
        raise RednetError(f"{reader.name}: {reader.broken}")
