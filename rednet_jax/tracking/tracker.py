"""One face followed through a video: found by the detector, then by its own last landmarks."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from rednet_jax.detection.dlib import Detection, FaceDetector
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

LOST_BELOW = 0.3
"""A face is lost where the mean confidence of its points falls below this. In 28 real clips every
face had 0.41 or more, and of crops beside the face 98 % had less than 0.3."""

SEARCH_EVERY = 3
"""While there is no face, one frame of this many is searched: the detector takes about three times
as long as the network."""

RECROP_BEYOND = 0.12
"""A face whose centre lies farther than this from the centre of its crop's box, in sides of that
box, is looked at once more in a crop around where it was found: fast heads run out of their crop
otherwise. Of 22 real clips one asked for that, in 32 of its 171 frames, and two others once."""

SMALLEST_FACE = 12.0
"""Pixels. A landmark box with a smaller side holds no face that the network could read."""


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


class Tracker:
    """Follows the most prominent face; `update` takes the frames of one video in their order.

    The crop of a frame is cut around the landmarks of the frame before, or once more around its
    own where the face moved far. The network's feedback map and memory go with it, moved from crop
    to crop; where the face is lost they are blanked and the detector looks for it again.
    """

    def __init__(
        self,
        config: RedNetConfig,
        variables: Variables,
        *,
        feedback_steps: int = 1,
        detector: FaceDetector | None = None,
    ) -> None:
        """Begins without a face, the network compiled.

        Args:
            config: of the network.
            variables: {'params': ..., 'batch_stats': ...}.
            feedback_steps: K, passes of the network for each frame.
            detector: looks for the face; dlib's where None.

        Raises:
            RednetError: feedback_steps is below 1.
        """
        if feedback_steps < 1:
            raise RednetError(f"feedback steps must be 1 or more, not {feedback_steps}")
        self._config = config
        self._detector = detector or FaceDetector()
        self._step = functools.partial(
            _step, jax.device_put(variables), config=config, feedback_steps=feedback_steps
        )
        self.reset()
        blank = np.zeros((config.image_size, config.image_size, 3), np.uint8)
        self._step(self._state, blank, np.eye(2, 3, dtype=np.float32))

    def reset(self) -> None:
        """Forgets the face: the next frame is searched by the detector."""
        self._state = rednet.initial_state(self._config, 1)
        self._affine: NDArray[np.float64] | None = None
        self._landmarks: NDArray[np.float32] | None = None
        self._frames_to_search = 0

    def update(self, image: NDArray[np.uint8]) -> TrackedFrame:
        """Returns the face in the next frame; a face that is lost is looked for in the same frame.

        Args:
            image: RGB uint8 [H, W, 3].

        Raises:
            RednetError: the frame is no such array.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise RednetError(f"a frame is uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
        if self._landmarks is not None:
            followed = self._align(image, landmark_box(self._landmarks))
            if followed is not None:
                return followed
            self.reset()
        if self._frames_to_search == 0:
            face = most_prominent(self._detector.detect(image))
            found = None if face is None else self._align(image, face.box)
            if found is not None:
                return found
            self.reset()
            self._frames_to_search = SEARCH_EVERY
        self._frames_to_search -= 1
        return NO_FACE

    def _align(self, image: NDArray[np.uint8], box: NDArray[np.float32]) -> TrackedFrame | None:
        face = self._look(image, box)
        if face is None or face.landmarks is None:
            return None
        found = landmark_box(face.landmarks)
        moved = np.abs(found[:2] + found[2:] - box[:2] - box[2:]).max() / 2
        if moved <= RECROP_BEYOND * (box[2:] - box[:2]).max():
            return face
        return self._look(image, found)

    def _look(self, image: NDArray[np.uint8], box: NDArray[np.float32]) -> TrackedFrame | None:
        config = self._config
        affine = crop_transform(box, margin=config.crop_margin, size=config.image_size)
        before = affine if self._affine is None else self._affine
        crop_points, point_confidence, self._state = self._step(
            self._state,
            cut_crop(image, affine, config.image_size),
            compose_affine(invert_affine(before), affine).astype(np.float32),
        )
        self._affine = affine
        landmarks = apply_affine(affine, np.asarray(crop_points)).astype(np.float32)
        confidence = float(np.mean(point_confidence))
        # Written so that nan is lost, too.
        if not (confidence >= LOST_BELOW and _in_picture(landmarks, image)):
            return None
        self._landmarks = landmarks
        return TrackedFrame(landmarks, confidence, box)


def most_prominent(faces: Sequence[Detection]) -> Detection | None:
    """Returns the face with the largest product of score and side, None where there is none.

    The score alone prefers a small face seen from the front to the large one before it.
    """
    return max(faces, key=lambda face: face.score * (face.box[2] - face.box[0]), default=None)


def landmark_track(faces: Sequence[TrackedFrame], landmarks: int) -> NDArray[np.float32]:
    """Returns the points of T frames as one array [T, L, 2] float32, nan where there is no face."""
    blank = np.full((landmarks, 2), np.nan, np.float32)
    return np.stack([blank if face.landmarks is None else face.landmarks for face in faces])


def track(
    frames: Iterable[NDArray[np.uint8]],
    checkpoint: str | tuple[RedNetConfig, Variables] = "compact",
    *,
    feedback_steps: int = 1,
) -> Iterator[TrackedFrame]:
    """Follows the most prominent face through frames.

        for face in rednet_jax.track(frames):
            print(face.landmarks, face.confidence)

    Args:
        frames: RGB uint8 [H, W, 3] each, as arrays, a generator, or `tracking.video.VideoReader`.
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        feedback_steps: K, passes of the network for each frame.

    Returns:
        One answer for each frame, found as it is asked for.

    Raises:
        RednetError: a checkpoint that cannot be read, or feedback_steps below 1; later, a frame
            that is no RGB picture.
    """
    config, variables = load(checkpoint) if isinstance(checkpoint, str) else checkpoint
    return map(Tracker(config, variables, feedback_steps=feedback_steps).update, frames)


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
    """Takes a crop uint8 [H, W, 3]; gives landmarks [L, 2] (crop pixels), confidence [L], state."""
    out, state = rednet.step(
        config,
        variables,
        state,
        crop[None].astype(jnp.float32) / 255,
        warp[None],
        feedback_steps=feedback_steps,
    )
    return out.landmarks[0], out.confidence[0], state


def _in_picture(landmarks: NDArray[np.float32], image: NDArray[np.uint8]) -> bool:
    """Whether points [L, 2] are finite, as large as a face, and centred inside the picture."""
    if not np.isfinite(landmarks).all():
        return False
    x0, y0, x1, y1 = landmark_box(landmarks)
    height, width = image.shape[:2]
    inside = 0 <= (x0 + x1) / 2 < width and 0 <= (y0 + y1) / 2 < height
    return bool(inside and SMALLEST_FACE <= max(x1 - x0, y1 - y0) <= 4 * max(height, width))
