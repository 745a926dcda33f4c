"""One face followed through a video: found by the detector, then by its own last landmarks."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from rednet_jax.detection.dlib import FaceDetector
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.crops import (
    apply_affine,
    compose_affine,
    crop_transform,
    cut_crop,
    invert_affine,
)
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.store import load

Variables = dict[str, Any]

LOST_BELOW = 0.15
"""A face is lost where the mean confidence of its points falls below this."""

SEARCH_EVERY = 5
"""While there is no face, every so many frames are searched: the detector costs more than the network."""

SMALLEST_FACE = 12.0
"""Pixels. A landmark box with a smaller side holds no face that the network could read."""

IDENTITY = np.eye(2, 3)


class TrackedFrame(NamedTuple):
    """What is known of the face in one frame.

    Attributes:
        landmarks: float32 [L, 2] in pixels of the frame, None where there is no face.
        confidence: mean over the points of the probability that the point lies within 5 % of the
            inter-ocular distance; 0 where there is no face.
        box: float32 [4], the box the crop was cut around; None where there is no face.
    """

    landmarks: NDArray[np.float32] | None
    confidence: float
    box: NDArray[np.float32] | None


NO_FACE = TrackedFrame(None, 0.0, None)


@functools.partial(jax.jit, static_argnames=("config", "feedback_steps"))
def _step(
    variables: Variables,
    state: rednet.State,
    crop: jax.Array,
    warp: jax.Array,
    *,
    config: RedNetConfig,
    feedback_steps: int,
) -> tuple[jax.Array, jax.Array, rednet.State]:
    """Landmarks [L, 2] (crop pixels), confidence [L] and the next state, for a crop uint8 [H, W, 3]."""
    frame = crop[None].astype(jnp.float32) / 255
    out, state = rednet.step(
        config, variables, state, frame, warp[None], feedback_steps=feedback_steps
    )
    return out.landmarks[0], out.confidence[0], state


class Tracker:
    """Follows the most prominent face; `update` takes the frames of one video in their order.

    The crop of a frame is cut around the landmarks of the frame before. The network's feedback map and memory go
    with it, moved from crop to crop; where the face is lost they are blanked and the detector looks for it again.
    """

    def __init__(
        self,
        config: RedNetConfig,
        variables: Variables,
        *,
        feedback_steps: int = 1,
        lost_below: float = LOST_BELOW,
        search_every: int = SEARCH_EVERY,
        detector: FaceDetector | None = None,
    ) -> None:
        """A tracker that has seen nothing yet.

        Args:
            config: the network's.
            variables: {'params', 'batch_stats'}.
            feedback_steps: K, passes of the network for each frame.
            lost_below: mean confidence under which the face counts as lost, 0 to 1.
            search_every: while there is no face, the detector looks at each frame of this many.
            detector: anything with `FaceDetector.detect`; dlib's where None.

        Raises: RednetError for feedback_steps below 1.
        """
        if feedback_steps < 1:
            raise RednetError(f"feedback steps must be 1 or more, not {feedback_steps}")
        self._config = config
        self._variables = jax.device_put(variables)
        self._feedback_steps = feedback_steps
        self._lost_below = lost_below
        self._search_every = search_every
        self._detector = detector or FaceDetector()
        self._blank = rednet.initial_state(config, 1)
        self.reset()

    def reset(self) -> None:
        """Forgets the face: the next frame is searched by the detector."""
        self._state = self._blank
        self._affine: NDArray[np.float64] | None = None
        self._landmarks: NDArray[np.float32] | None = None
        self._frames_to_search = 0

    def update(self, image: NDArray[np.uint8]) -> TrackedFrame:
        """The face in the next frame, RGB uint8 [H, W, 3]. A face lost is searched for in the same frame."""
        if self._landmarks is not None:
            followed = self._align(image, np.asarray(landmark_box(self._landmarks)))
            if followed is not None:
                return followed
            self.reset()
        if self._frames_to_search > 0:
            self._frames_to_search -= 1
            return NO_FACE
        for face in self._detector.detect(image)[:1]:
            found = self._align(image, face.box)
            if found is not None:
                return found
        self.reset()
        self._frames_to_search = self._search_every - 1
        return NO_FACE

    def _align(self, image: NDArray[np.uint8], box: NDArray[np.float32]) -> TrackedFrame | None:
        config = self._config
        affine = np.asarray(
            crop_transform(box, margin=config.crop_margin, size=config.image_size), np.float64
        )
        warp = IDENTITY
        if self._affine is not None:
            warp = np.asarray(compose_affine(invert_affine(self._affine), affine))
        crop_points, point_confidence, self._state = _step(
            self._variables,
            self._state,
            cut_crop(image, affine, config.image_size),
            warp.astype(np.float32),
            config=config,
            feedback_steps=self._feedback_steps,
        )
        self._affine = affine
        landmarks = np.asarray(apply_affine(affine, np.asarray(crop_points)), np.float32)
        confidence = float(np.mean(point_confidence))
        # Written so that nan is lost, too.
        if not (confidence >= self._lost_below and _in_picture(landmarks, image)):
            return None
        self._landmarks = landmarks
        return TrackedFrame(landmarks, confidence, np.asarray(box, np.float32))


def _in_picture(landmarks: NDArray[np.float32], image: NDArray[np.uint8]) -> bool:
    """Whether points [L, 2] are finite, as large as a face, and centred inside the picture."""
    if not np.isfinite(landmarks).all():
        return False
    x0, y0, x1, y1 = np.asarray(landmark_box(landmarks))
    height, width = image.shape[:2]
    inside = 0 <= (x0 + x1) / 2 < width and 0 <= (y0 + y1) / 2 < height
    side = max(x1 - x0, y1 - y0)
    return bool(inside and SMALLEST_FACE <= side <= 4 * max(height, width))


def track(
    frames: Iterable[NDArray[np.uint8]],
    checkpoint: str | tuple[RedNetConfig, Variables] = "compact",
    *,
    feedback_steps: int = 1,
) -> Iterator[TrackedFrame]:
    """Follows the most prominent face through frames, RGB uint8 [H, W, 3]; one answer for each frame.

        for face in rednet_jax.track(frames):
            print(face.landmarks, face.confidence)

    Args:
        frames: arrays in memory, a generator, or `tracking.video.VideoReader`.
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        feedback_steps: K, passes of the network for each frame.

    Raises: RednetError for a checkpoint that cannot be read, feedback_steps below 1, a frame that is no picture.
    """
    config, variables = load(checkpoint) if isinstance(checkpoint, str) else checkpoint
    tracker = Tracker(config, variables, feedback_steps=feedback_steps)
    return _updates(tracker, frames)


def _updates(tracker: Tracker, frames: Iterable[NDArray[np.uint8]]) -> Iterator[TrackedFrame]:
    for number, frame in enumerate(frames, 1):
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise RednetError(
                f"frame {number} is {frame.dtype} {list(frame.shape)}, not uint8 [H, W, 3]"
            )
        yield tracker.update(frame)
