"""Clips followed as the tracker follows a face, on all clips of a split at once."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.crops import FaceCrops, face_crops
from rednet_jax.evaluate.metrics import face_errors, jitter
from rednet_jax.evaluate.protocols import Crops
from rednet_jax.landmarks.boxes import landmark_box, whole_face_box
from rednet_jax.landmarks.convert import convert, convert_labelled
from rednet_jax.landmarks.crops import (
    apply_affine,
    compose_affine,
    crop_image,
    crop_transform,
    invert_affine,
)
from rednet_jax.landmarks.normalisers import measurable
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig

WINDOWS, FRAMES = 2, 32
"""So many stretches of so many frames, evenly spaced, stand for a clip."""

_SMALLEST = 4.0
"""Pixels of the image. Points that lie closer together than this do not say where the face is."""


class ClipWindows(NamedTuple):
    """Stretches of frames that follow each other, each beginning with a labelled frame.

    Attributes:
        faces: of the split, cut so wide that there is room for a crop that is off.
        frames: int64 [W, T], which of `faces`; -1 behind the end of a clip.
    """

    faces: FaceCrops
    frames: NDArray[np.int64]


class Followed(NamedTuple):
    """Where the network looked and what it found, in W stretches of T frames.

    Attributes:
        affines: float64 [W, T, 2, 3], crop pixels -> pixels of the frame.
        landmarks: float32 [W, T, L, 2], crop pixels; of no meaning behind the end of a clip.
    """

    affines: NDArray[np.float64]
    landmarks: NDArray[np.float32]


class Track(NamedTuple):
    """What the network makes of the N frames of all stretches, one stretch after the other.

    Attributes:
        faces: int64 [N], which of `ClipWindows.faces`.
        affines: float64 [N, 2, 3], crop pixels -> pixels of the frame.
        landmarks: float32 [N, L, 2], crop pixels.
        errors: float [N], NME of each frame, percent; nan where a point is not finite.
        known: bool [N], the frames that can be measured.
        jitters: float [W], `metrics.jitter` of each stretch, percent.
    """

    faces: NDArray[np.int64]
    affines: NDArray[np.float64]
    landmarks: NDArray[np.float32]
    errors: NDArray[np.floating]
    known: NDArray[np.bool_]
    jitters: NDArray[np.floating]

    @property
    def nme(self) -> float:
        """Of the frames that can be measured, percent; nan where a point is not finite."""
        return float(self.errors[self.known].mean())

    @property
    def jitter(self) -> float:
        """Mean over the stretches, percent."""
        return float(np.nanmean(self.jitters))


def clip_windows(
    data: str, split: str, *, margin: float, size: int, data_dir: Path | None = None
) -> ClipWindows:
    """Chooses the stretches of a split of clips; arguments and errors as in `face_crops`."""
    faces = face_crops(data, split, margin=margin, size=size, data_dir=data_dir)
    known = measurable(faces.labelled, faces.scheme)
    rows = []
    for start, end in zip(faces.starts[:-1], faces.starts[1:], strict=True):
        labelled = start + np.flatnonzero(known[start:end])
        wanted = np.linspace(start, max(start, end - FRAMES), WINDOWS)
        # In a clip that is hardly longer than a stretch, two may begin with the same frame.
        begins = {int(labelled[np.abs(labelled - place).argmin()]) for place in wanted}
        for first in sorted(begins if len(labelled) else ()):
            frames = np.arange(first, first + FRAMES)
            rows.append(np.where(frames < end, frames, -1))
    return ClipWindows(faces, np.asarray(rows, np.int64).reshape(-1, FRAMES))


def follow(
    config: RedNetConfig, variables: dict[str, Any], windows: ClipWindows, feedback_steps: int
) -> Followed:
    """Follows the face through every stretch, all of them side by side.

    The first crop is cut around the labels, every other one around the points found in the frame
    before; the network's state goes with it. Beyond what `windows.faces` shows, a crop is blank.

    Args:
        config: of the network.
        variables: of the network.
        windows: W stretches.
        feedback_steps: K, passes of the network for each frame.
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
    before: NDArray[np.float64] | None = None
    affines, found = [], []
    for frame in windows.frames.T:
        affine = np.stack(
            [crop_transform(box, margin=config.input_margin, size=size) for box in boxes]
        )
        crops = np.stack([_cut(faces, *one, size) for one in zip(frame, affine, strict=True)])
        warps = compose_affine(invert_affine(affine if before is None else before), affine)
        points, state = _step(
            config, variables, state, crops, warps.astype(np.float32), feedback_steps
        )
        landmarks = np.asarray(points)
        before = affine
        boxes = [
            _next(points, config.scheme, box)
            for points, box in zip(apply_affine(affine, landmarks), boxes, strict=True)
        ]
        affines.append(affine)
        found.append(landmarks)
    return Followed(np.stack(affines, 1), np.stack(found, 1))


def track_of(config: RedNetConfig, windows: ClipWindows, followed: Followed) -> Track:
    """Compares what was found in all stretches with the labels.

    Args:
        config: of the network.
        windows: W stretches.
        followed: of `follow`, for the same stretches.
    """
    there = windows.frames >= 0
    rows = windows.frames[there]
    affines, landmarks = followed.affines[there], followed.landmarks[there]
    truth, labelled = _labels(config, windows.faces, rows)
    in_frames = apply_affine(affines, landmarks)
    errors = face_errors(in_frames, truth, config.scheme, labelled)
    ends = np.cumsum(there.sum(1))[:-1]
    jitters = np.asarray([jitter(track, config.scheme) for track in np.split(in_frames, ends)])
    known = measurable(labelled, config.scheme)
    return Track(rows, affines, landmarks, errors, known, jitters)


def frames_of(
    config: RedNetConfig, windows: ClipWindows, track: Track, chosen: NDArray[np.intp]
) -> Crops:
    """Returns some frames of a track as the network saw them.

    Args:
        config: of the network.
        windows: what was followed.
        track: of `track_of`.
        chosen: int [n], which of the track's frames.
    """
    rows, affines = track.faces[chosen], track.affines[chosen]
    truth, labelled = _labels(config, windows.faces, rows)
    size = config.input_size
    images = [_cut(windows.faces, *one, size) for one in zip(rows, affines, strict=True)]
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
    """The network's points [n, L, 2] of faces in pixels of their frames, and which are labelled."""
    points = convert(_in_image(faces, rows), faces.scheme, config.scheme).astype(np.float32)
    return points, convert_labelled(faces.labelled[rows], faces.scheme, config.scheme)


def _boxes(faces: FaceCrops, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The boxes [n, 4] around the labels of faces in pixels of their frames; 0 without labels."""
    boxes = np.zeros((len(rows), 4), np.float32)
    points = _in_image(faces, rows)
    for number, row in enumerate(rows):
        if faces.labelled[row].any():
            boxes[number] = landmark_box(points[number], faces.labelled[row])
    return boxes


@functools.partial(jax.jit, static_argnums=(0, 5))
def _step(
    config: RedNetConfig,
    variables: dict[str, Any],
    state: rednet.State,
    crops: jax.Array,
    warps: jax.Array,
    feedback_steps: int,
) -> tuple[jax.Array, rednet.State]:
    images = crops.astype(jnp.float32) / 255
    out, state = rednet.step(config, variables, state, images, warps, feedback_steps=feedback_steps)
    return out.landmarks, state


def _cut(
    faces: FaceCrops, face: np.int64, affine: NDArray[np.float64], size: int
) -> NDArray[np.uint8]:
    """The crop of a frame out of the wide one; black behind the end of a clip."""
    if face < 0:
        return np.zeros((size, size, 3), np.uint8)
    return crop_image(
        faces.images[face], compose_affine(invert_affine(faces.affines[face]), affine), size
    )


def _in_image(faces: FaceCrops, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """The labels [.., L, 2] of faces in pixels of their images; 0 where there are none."""
    points = apply_affine(faces.affines[rows].astype(np.float64), faces.landmarks[rows])
    return np.where(faces.labelled[rows][..., None], points, 0)


def _next(
    landmarks: NDArray[np.floating], scheme: Scheme, box: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The box around points of a frame; where they are no face, the one that there was."""
    if not np.isfinite(landmarks).all():
        return box
    found = whole_face_box(landmarks, scheme, expected=box)
    return found if (found[2:] - found[:2]).min() >= _SMALLEST else box
