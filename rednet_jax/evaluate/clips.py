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
from rednet_jax.evaluate.metrics import face_errors, jitter, measurable
from rednet_jax.evaluate.protocols import Crops, in_picture
from rednet_jax.landmarks.boxes import whole_face_box
from rednet_jax.landmarks.crops import (
    apply_affine,
    compose_affine,
    crop_transform,
    cut_crop,
    invert_affine,
)
from rednet_jax.landmarks.schemes import scheme
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig

WINDOWS, FRAMES = 2, 32
"""So many stretches of so many frames, evenly spaced, stand for a clip."""

_SMALLEST = 4.0
"""Pixels of the picture. Points that lie closer together than this are no face to go on from."""


class ClipWindows(NamedTuple):
    """Stretches of frames that follow each other, each beginning with a labelled frame.

    Attributes:
        faces: of the split, cut so wide that there is room for a crop that is off.
        frames: int64 [W, T], which of `faces`; -1 behind the end of a clip.
    """

    faces: FaceCrops
    frames: NDArray[np.int64]


class Track(NamedTuple):
    """What the network makes of the N frames of all stretches.

    Attributes:
        crops: the frames as the network saw them.
        landmarks: float32 [N, L, 2], crop pixels.
        nme: of the frames that can be measured, percent; nan where a point is not finite.
        jitter: mean over the stretches of `metrics.jitter`, percent.
    """

    crops: Crops
    landmarks: NDArray[np.float32]
    nme: float
    jitter: float


def clip_windows(
    data: str, split: str, *, margin: float, size: int, data_dir: Path | None = None
) -> ClipWindows:
    """Chooses the stretches of a split of clips; arguments and errors as in `face_crops`."""
    faces = face_crops(data, split, margin=margin, size=size, data_dir=data_dir)
    known = measurable(faces.labelled)
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
) -> Track:
    """Follows the face through every stretch, all of them side by side.

    The first crop is cut around the labels, every other one around the points found in the frame
    before; the network's state goes with it. Beyond what `windows.faces` shows, a crop is blank.

    Args:
        config: of the network.
        variables: of the network.
        windows: W stretches.
        feedback_steps: K, passes of the network for each frame.
    """
    size = config.picture_size
    faces, indices = windows.faces, list(scheme(config.landmarks).from_68)
    state = rednet.initial_state(config, len(windows.frames))
    first = windows.frames[:, 0]
    truth = _in_picture(faces, first)
    boxes = [whole_face_box(*one) for one in zip(truth, faces.labelled[first], strict=True)]
    before: NDArray[np.float64] | None = None
    images, affines, found = [], [], []
    for frame in windows.frames.T:
        affine = np.stack(
            [crop_transform(box, margin=config.picture_margin, size=size) for box in boxes]
        )
        crops = np.stack([_cut(faces, *one, size) for one in zip(frame, affine, strict=True)])
        warps = compose_affine(invert_affine(affine if before is None else before), affine)
        points, state = _step(
            config, variables, state, crops, warps.astype(np.float32), feedback_steps
        )
        landmarks = np.asarray(points)
        before = affine
        boxes = [_next(*one) for one in zip(apply_affine(affine, landmarks), boxes, strict=True)]
        images.append(crops)
        affines.append(affine)
        found.append(landmarks)
    there = windows.frames.ravel() >= 0
    of_all = windows.frames.ravel()[there]

    def flat(parts: list[NDArray[Any]]) -> NDArray[Any]:
        return np.stack(parts, 1).reshape(-1, *parts[0].shape[1:])[there]

    crops_of_all = Crops(
        names=[str(faces.names[i]) for i in of_all],
        images=flat(images),
        affines=flat(affines),
        landmarks=_in_picture(faces, of_all)[:, indices].astype(np.float32),
        labelled=faces.labelled[of_all][:, indices],
        missed=[],
    )
    landmarks = flat(found)
    in_frames = in_picture(crops_of_all, landmarks)
    errors = face_errors(in_frames, crops_of_all.landmarks, crops_of_all.labelled)
    ends = np.cumsum((windows.frames >= 0).sum(1))[:-1]
    jitters = [jitter(track) for track in np.split(in_frames, ends)]
    return Track(
        crops_of_all,
        landmarks,
        float(errors[measurable(crops_of_all.labelled)].mean()),
        float(np.nanmean(jitters)),
    )


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
    return cut_crop(
        faces.images[face], compose_affine(invert_affine(faces.affines[face]), affine), size
    )


def _in_picture(faces: FaceCrops, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """The labels [.., 68, 2] of faces in pixels of their pictures; 0 where there are none."""
    points = apply_affine(faces.affines[rows].astype(np.float64), faces.landmarks[rows])
    return np.where(faces.labelled[rows][..., None], points, 0)


def _next(landmarks: NDArray[np.floating], box: NDArray[np.float32]) -> NDArray[np.float32]:
    """The box around points of a frame; where they are no face, the one that there was."""
    if not np.isfinite(landmarks).all():
        return box
    found = whole_face_box(landmarks)
    return found if (found[2:] - found[:2]).min() >= _SMALLEST else box
