"""Tracks the faces of all clips of a split in one batch, for validation during training."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from rednet_jax.compiler_options import inference_options
from rednet_jax.data.crops import FaceCrops, face_crops
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.metrics import face_errors, jitter
from rednet_jax.evaluate.protocols import Crops
from rednet_jax.inference.face import Face
from rednet_jax.inference.smoothing import Smoother
from rednet_jax.inference.streams import Carry, carried_state
from rednet_jax.landmarks.boxes import landmark_box, whole_face_box
from rednet_jax.landmarks.convert import convert, convert_labelled
from rednet_jax.landmarks.crops import (
    apply_affine,
    compose_affine,
    crop_image,
    crop_transform,
    invert_affine,
)
from rednet_jax.landmarks.normalisers import default_normaliser, measurable, needed
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig

WINDOWS, FRAMES = 2, 32
"""Number of windows per clip, evenly spaced, and frames of each."""

_RATE = 30
"""Frames a second that smoothing assumes."""

_SMALLEST = 4.0
"""Pixels of the image: points in a smaller box do not locate a face."""


class ClipWindows(NamedTuple):
    """Windows of consecutive frames, each of which starts with a labelled frame.

    Attributes:
        faces: of the split, with room around them for misplaced crops.
        frames: int64 [W, T], indices into `faces`; -1 after the end of a clip.
    """

    faces: FaceCrops
    frames: NDArray[np.int64]


class Followed(NamedTuple):
    """Crops and predicted landmarks in W windows of T frames.

    Attributes:
        affines: float64 [W, T, 2, 3], crop pixels -> pixels of the frame.
        landmarks: float32 [W, T, L, 2], crop pixels; undefined after the end of a clip.
    """

    affines: NDArray[np.float64]
    landmarks: NDArray[np.float32]


class Track(NamedTuple):
    """Predictions and errors in the N frames of all windows, concatenated.

    Attributes:
        faces: int64 [N], indices into `ClipWindows.faces`.
        affines: float64 [N, 2, 3], crop pixels -> pixels of the frame.
        landmarks: float32 [N, L, 2], crop pixels.
        errors: float [N], NME of each frame, percent; nan if a point is not finite.
        known: bool [N], the frames that can be measured.
        jitters: float [W], `metrics.jitter` of each window, percent.
    """

    faces: NDArray[np.int64]
    affines: NDArray[np.float64]
    landmarks: NDArray[np.float32]
    errors: NDArray[np.floating]
    known: NDArray[np.bool_]
    jitters: NDArray[np.floating]

    @property
    def nme(self) -> float:
        """Mean over the frames that can be measured, percent; nan if a point is not finite."""
        return float(self.errors[self.known].mean())

    @property
    def jitter(self) -> float:
        """Mean over the windows, percent."""
        return float(np.nanmean(self.jitters))


def clip_windows(
    data: str, split: str, *, margin: float, size: int, data_dir: Path | None = None
) -> ClipWindows:
    """Returns the windows of a split of clips, at least one; arguments as in `face_crops`.

    Raises:
        RednetError: as `face_crops` raises it, or no frame can be measured.
    """
    faces = face_crops(data, split, margin=margin, size=size, data_dir=data_dir)
    known = measurable(faces.labelled, faces.scheme)
    rows = []
    for start, end in zip(faces.starts[:-1], faces.starts[1:], strict=True):
        labelled = start + np.flatnonzero(known[start:end])
        if not len(labelled):
            continue
        targets = np.linspace(start, max(start, end - FRAMES), WINDOWS)
        # In a clip hardly longer than a window, both may start with the same frame.
        firsts = {int(labelled[np.abs(labelled - place).argmin()]) for place in targets}
        for first in sorted(firsts):
            frames = np.arange(first, first + FRAMES)
            rows.append(np.where(frames < end, frames, -1))
    if not rows:
        lacking = needed(default_normaliser(faces.scheme), faces.scheme)
        raise RednetError(f"{data} {split}: no face has {lacking} labelled")
    return ClipWindows(faces, np.asarray(rows, np.int64))


def follow(
    config: RedNetConfig,
    variables: dict[str, Any],
    windows: ClipWindows,
    feedback_steps: int,
    carry: Carry = "all",
) -> Followed:
    """Tracks the face through all windows, as one batch.

    The first crop is cut around the labels, each other crop around the landmarks predicted in the
    frame before; the hidden state is carried from frame to frame. Outside `windows.faces` a crop is
    black.

    Args:
        config: of the network.
        variables: of the network.
        windows: W windows.
        feedback_steps: K, passes of the network per frame.
        carry: which parts of the state a frame passes to the next.

    Raises:
        RednetError: an unknown `carry`.
    """
    size = config.input_size
    faces = windows.faces
    state = rednet.initial_state(config, len(windows.frames))
    first = windows.frames[:, 0]
    truth = _in_image(faces, first)
    boxes = [
        whole_face_box(points, faces.scheme, labelled)
        for points, labelled in zip(truth, faces.labelled[first], strict=True)
    ]
    # Otherwise, every frame would copy the variables to the device.
    variables = jax.device_put(variables)
    before: NDArray[np.float64] | None = None
    affines, predicted = [], []
    for frame in windows.frames.T:
        affine = np.stack(
            [crop_transform(box, margin=config.input_margin, size=size) for box in boxes]
        )
        crops = np.stack(
            [_cut(faces, face, crop, size) for face, crop in zip(frame, affine, strict=True)]
        )
        warps = compose_affine(invert_affine(affine if before is None else before), affine)
        points, state = _compiled_step()(
            config, variables, state, crops, warps.astype(np.float32), feedback_steps, carry
        )
        landmarks = np.asarray(points)
        before = affine
        boxes = [
            _next_box(points, config.scheme, box)
            for points, box in zip(apply_affine(affine, landmarks), boxes, strict=True)
        ]
        affines.append(affine)
        predicted.append(landmarks)
    return Followed(np.stack(affines, 1), np.stack(predicted, 1))


def smoothed(config: RedNetConfig, windows: ClipWindows, followed: Followed) -> Followed:
    """Returns the landmarks of windows smoothed by the one-euro filter, at 30 frames a second.

    Args:
        config: of the network.
        windows: W windows.
        followed: of `follow`, for the same windows.
    """
    points = apply_affine(followed.affines, followed.landmarks)
    for window, frames in enumerate(windows.frames):
        smoother = Smoother()
        for frame in range(int((frames >= 0).sum())):
            landmarks = points[window, frame].astype(np.float32)
            confidence = np.ones(len(landmarks), np.float32)
            face = Face(landmarks, confidence, landmark_box(landmarks), config.scheme)
            (face,) = smoother.update([face], frame / _RATE)
            points[window, frame] = face.landmarks
    landmarks = apply_affine(invert_affine(followed.affines), points).astype(np.float32)
    return Followed(followed.affines, landmarks)


def track_of(config: RedNetConfig, windows: ClipWindows, followed: Followed) -> Track:
    """Compares the predictions in all windows with the labels.

    Args:
        config: of the network.
        windows: W windows.
        followed: result of `follow` for the same windows.
    """
    valid = windows.frames >= 0
    rows = windows.frames[valid]
    affines, landmarks = followed.affines[valid], followed.landmarks[valid]
    truth, labelled = _labels(config, windows.faces, rows)
    in_frames = apply_affine(affines, landmarks)
    errors = face_errors(in_frames, truth, config.scheme, labelled)
    ends = np.cumsum(valid.sum(1))[:-1]
    jitters = np.asarray([jitter(track, config.scheme) for track in np.split(in_frames, ends)])
    known = measurable(labelled, config.scheme)
    return Track(rows, affines, landmarks, errors, known, jitters)


def frames_of(
    config: RedNetConfig, windows: ClipWindows, track: Track, chosen: NDArray[np.intp]
) -> Crops:
    """Returns the crops of some frames of a track.

    Args:
        config: of the network.
        windows: that were tracked.
        track: result of `track_of`.
        chosen: int [n], indices of frames of the track.
    """
    rows, affines = track.faces[chosen], track.affines[chosen]
    truth, labelled = _labels(config, windows.faces, rows)
    size = config.input_size
    images = [
        _cut(windows.faces, face, crop, size) for face, crop in zip(rows, affines, strict=True)
    ]
    return Crops(
        names=[str(windows.faces.names[row]) for row in rows],
        images=np.asarray(images, np.uint8).reshape(-1, size, size, 3),
        affines=affines,
        landmarks=truth,
        labelled=labelled,
        boxes=_boxes(windows.faces, rows),
        missed=[],
        scheme=config.scheme,
    )


def _labels(
    config: RedNetConfig, faces: FaceCrops, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Returns labels [n, L, 2] in the network's scheme, pixels of the frames, and their mask."""
    points = convert(_in_image(faces, rows), faces.scheme, config.scheme).astype(np.float32)
    return points, convert_labelled(faces.labelled[rows], faces.scheme, config.scheme)


def _boxes(faces: FaceCrops, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns the boxes [n, 4] of the labels, pixels of the frames; 0 for faces without labels."""
    boxes = np.zeros((len(rows), 4), np.float32)
    points = _in_image(faces, rows)
    for number, row in enumerate(rows):
        if faces.labelled[row].any():
            boxes[number] = landmark_box(points[number], faces.labelled[row])
    return boxes


@functools.cache
def _compiled_step() -> jax.stages.Wrapped:
    return jax.jit(_step, static_argnums=(0, 5, 6), compiler_options=inference_options())


def _step(
    config: RedNetConfig,
    variables: dict[str, Any],
    state: rednet.State,
    crops: jax.Array,
    warps: jax.Array,
    feedback_steps: int,
    carry: Carry,
) -> tuple[jax.Array, rednet.State]:
    state = carried_state(config, state, carry)
    images = crops.astype(jnp.float32) / 255
    out, state = rednet.step(config, variables, state, images, warps, feedback_steps=feedback_steps)
    return out.landmarks, state


def _cut(
    faces: FaceCrops, face: np.int64, affine: NDArray[np.float64], size: int
) -> NDArray[np.uint8]:
    """Returns the network's crop of a cached face; black after the end of a clip."""
    if face < 0:
        return np.zeros((size, size, 3), np.uint8)
    return crop_image(
        faces.images[face], compose_affine(invert_affine(faces.affines[face]), affine), size
    )


def _in_image(faces: FaceCrops, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns the labels [..., L, 2] of faces in pixels of their images; 0 where not labelled."""
    points = apply_affine(faces.affines[rows].astype(np.float64), faces.landmarks[rows])
    return np.where(faces.labelled[rows][..., None], points, 0)


def _next_box(
    landmarks: NDArray[np.floating], scheme: Scheme, box: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Returns the box of the predicted landmarks; the old box if they do not locate a face."""
    if not np.isfinite(landmarks).all():
        return box
    predicted = whole_face_box(landmarks, scheme, expected=box)
    return predicted if (predicted[2:] - predicted[:2]).min() >= _SMALLEST else box
