"""A portrait moved by code into a short clip and tracked: what `rednet quickstart` does.

The portrait is scikit-image's astronaut (Eileen Collins, NASA, public domain), which lies in its wheel. The motion
is known exactly, so it can be said how far the landmarks follow it, and no label is needed.
"""

from __future__ import annotations

import importlib.resources
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rednet_jax.landmarks.crops import apply_affine
from rednet_jax.landmarks.schemes import scheme
from rednet_jax.landmarks.table import write_landmarks_csv
from rednet_jax.model.config import RedNetConfig
from rednet_jax.tracking.align import align_files
from rednet_jax.tracking.overlay import draw_landmarks
from rednet_jax.tracking.tracker import TrackedFrame, Tracker
from rednet_jax.tracking.video import VideoWriter
from rednet_jax.weights.store import load

FRAMES = 48
FPS = 24
SIDE = 256
FACE = (222.0, 125.0)
"""Centre of the face in the portrait, pixels."""
FEEDBACK_STEPS = (1, 2, 3)


class Figures(NamedTuple):
    """What was measured at one K.

    Attributes:
        feedback_steps: K.
        found: frames with a face, of `FRAMES`.
        milliseconds: median time of one frame (crop, network, no compilation).
        jitter: mean |p(t+1) - 2 p(t) + p(t-1)| over points and frames, % of the inter-ocular distance.
        drift: mean distance of a point from its own mean place on the portrait, the clip's known motion
            taken out, % of the inter-ocular distance: 0 where the points stick to the skin.
    """

    feedback_steps: int
    found: int
    milliseconds: float
    jitter: float
    drift: float


class Quickstart(NamedTuple):
    """What `quickstart` measured, and the files it left."""

    figures: list[Figures]
    overlay: Path
    video: Path
    landmarks: Path


def portrait_path() -> Path:
    """The astronaut picture in scikit-image's wheel, found without importing it and without network."""
    return Path(str(importlib.resources.files("skimage.data") / "astronaut.png"))


def portrait_clip(
    frames: int = FRAMES, side: int = SIDE
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The portrait moved smoothly: shifts, zoom and rotation of slow sines.

    Returns: frames uint8 [T, side, side, 3], and [T, 2, 3], pixels of each frame -> pixels of the portrait.
    """
    with Image.open(portrait_path()) as image:
        portrait = image.convert("RGB")
    t = np.linspace(0, 2 * np.pi, frames, endpoint=False)
    angle = np.deg2rad(12) * np.sin(t)
    zoom = 0.9 * np.exp(0.18 * np.sin(2 * t + 1))
    centre = np.array(FACE) + np.stack([18 * np.sin(t + 0.5), 12 * np.sin(2 * t)], axis=-1)
    turn = np.stack(
        [np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=-1
    ).reshape(frames, 2, 2)
    linear = zoom[:, None, None] * turn
    shift = centre - np.einsum("tij,j->ti", linear, np.full(2, (side - 1) / 2))
    motion = np.concatenate([linear, shift[:, :, None]], axis=-1)
    return np.stack([_moved(portrait, affine, side) for affine in motion]), motion


def _moved(portrait: Image.Image, affine: NDArray[np.float64], side: int) -> NDArray[np.uint8]:
    """The portrait seen through an affine [2, 3], frame pixels -> portrait pixels, centres at integers."""
    linear, shift = affine[:, :2], affine[:, 2]
    # Pillow counts from the corner of a pixel, we from its centre.
    shift = shift + 0.5 - linear @ np.full(2, 0.5)
    rows = np.concatenate([linear, shift[:, None]], axis=1).reshape(-1)
    frame = portrait.transform(
        (side, side), Image.Transform.AFFINE, tuple(rows), Image.Resampling.BICUBIC
    )
    return np.asarray(frame)


def jitter(landmarks: NDArray[np.floating]) -> float:
    """Mean |p(t+1) - 2 p(t) + p(t-1)| of landmarks [T, L, 2] in % of their inter-ocular distance.

    Frames that are nan, and their neighbours, are left out; nan where nothing is left.
    """
    second = landmarks[2:] - 2 * landmarks[1:-1] + landmarks[:-2]
    return _percent(np.linalg.norm(second, axis=-1), inter_ocular(landmarks)[1:-1])


def drift(landmarks: NDArray[np.floating], motion: NDArray[np.float64]) -> float:
    """Mean distance of each point from its mean place once the motion [T, 2, 3] is taken out, % (`Figures`)."""
    still = np.stack(
        [apply_affine(affine, points) for affine, points in zip(motion, landmarks, strict=True)]
    )
    if np.isnan(still).all():
        return float("nan")
    return _percent(np.linalg.norm(still - np.nanmean(still, axis=0), axis=-1), inter_ocular(still))


def inter_ocular(landmarks: NDArray[np.floating]) -> NDArray[np.floating]:
    """Distance between the outer corners of the eyes, [...], of landmarks [..., L, 2]."""
    right, left = scheme(landmarks.shape[-2]).outer_eyes
    distance: NDArray[np.floating] = np.linalg.norm(
        landmarks[..., right, :] - landmarks[..., left, :], axis=-1
    )
    return distance


def _percent(distances: NDArray[np.floating], scale: NDArray[np.floating]) -> float:
    relative = distances / scale[:, None]
    known = relative[np.isfinite(relative)]
    return float(100 * known.mean()) if known.size else float("nan")


def quickstart(
    out: str | os.PathLike[str] = "rednet_quickstart",
    *,
    checkpoint: str | tuple[RedNetConfig, dict[str, Any]] = "compact",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Quickstart:
    """Aligns the portrait, tracks it moved, measures, and leaves overlay.png, track.mp4 and landmarks.csv in `out`.

    The video shows K = 1, 2, 3 side by side; picture and table are those of the largest K.
    Raises: RednetError for a checkpoint that cannot be read or files that cannot be written.
    """
    folder = Path(out)
    model = load(checkpoint) if isinstance(checkpoint, str) else checkpoint
    total = FRAMES * len(FEEDBACK_STEPS)
    frames, motion = portrait_clip()
    figures, tracks = [], []
    for index, steps in enumerate(FEEDBACK_STEPS):
        # Two passes over the first frame: one compiles, the other is the first of the clip.
        tracker = Tracker(*model, feedback_steps=steps)
        tracker.update(frames[0])
        tracker.reset()
        faces: list[TrackedFrame] = []
        times = []
        for done, frame in enumerate(frames, 1):
            start = time.perf_counter()
            faces.append(tracker.update(frame))
            times.append(time.perf_counter() - start)
            report(index * FRAMES + done, total)
        blank = np.full((model[0].landmarks, 2), np.nan, np.float32)
        landmarks = np.stack([blank if f.landmarks is None else f.landmarks for f in faces])
        tracks.append(landmarks)
        figures.append(
            Figures(
                steps,
                sum(face.landmarks is not None for face in faces),
                1000 * float(np.median(times)),
                jitter(landmarks),
                drift(landmarks, motion),
            )
        )
    with VideoWriter(folder / "track.mp4", FPS, (SIDE * len(tracks), SIDE)) as video:
        for number, frame in enumerate(frames):
            drawn = [_drawn(frame, landmarks[number]) for landmarks in tracks]
            video.write(np.concatenate(drawn, axis=1))
    names = [str(number + 1) for number in range(FRAMES)]
    write_landmarks_csv(folder / "landmarks.csv", names, tracks[-1])
    align_files(
        [portrait_path()], checkpoint=model, feedback_steps=FEEDBACK_STEPS[-1], overlay=folder
    )
    overlay = folder / "overlay.png"
    os.replace(folder / f"{portrait_path().stem}.png", overlay)
    return Quickstart(figures, overlay, folder / "track.mp4", folder / "landmarks.csv")


def _drawn(frame: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.uint8]:
    return frame if np.isnan(landmarks).any() else draw_landmarks(frame, landmarks)
