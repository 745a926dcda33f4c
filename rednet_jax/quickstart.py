"""Tracks a generated clip of a moving portrait: the first part of `rednet quickstart`.

The portrait is scikit-image's astronaut (Eileen Collins, NASA, public domain). Its motion is known
exactly, so that the jitter of landmarks can be measured without labels.
"""

from __future__ import annotations

import importlib.resources
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rednet_jax.evaluate.metrics import jitter
from rednet_jax.inference.aligner import Aligner
from rednet_jax.inference.tracker import Tracker
from rednet_jax.inference.tracking import landmark_track
from rednet_jax.landmarks.crops import apply_affine, crop_image
from rednet_jax.landmarks.drawing import draw_landmarks, write_animation, write_image
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.landmarks.table import write_landmarks_csv
from rednet_jax.media.images import read_image
from rednet_jax.media.video import write_video
from rednet_jax.weights.store import Checkpoint, network_of

FRAMES = 48
FPS = 24
SIDE = 256
FACE = (222.0, 125.0)
"""Centre of the face in the portrait, pixels."""
FEEDBACK_STEPS = (1, 2, 3)


class Figures(NamedTuple):
    """Figures for a number of passes.

    Attributes:
        feedback_steps: K.
        found: number of frames with a face, of `FRAMES`.
        milliseconds: median time of a frame: crop, network, landmarks.
        jitter: `metrics.jitter` of the landmarks in the portrait, without the clip's motion: 0 if
            they do not move on the face.
    """

    feedback_steps: int
    found: int
    milliseconds: float
    jitter: float


class Quickstart(NamedTuple):
    """The figures of `quickstart`, and its files."""

    figures: list[Figures]
    overlay: Path
    video: Path
    animation: Path
    landmarks: Path


def portrait_path() -> Path:
    """Returns the file of scikit-image's astronaut, without an import of scikit-image."""
    return Path(str(importlib.resources.files("skimage.data") / "astronaut.png"))


def portrait_clip() -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Generates a clip of the portrait with a smooth shift, zoom and rotation.

    Returns:
        Frames uint8 [T, SIDE, SIDE, 3], and the motion float64 [T, 2, 3], pixels of each frame ->
        pixels of the portrait.
    """
    t = np.linspace(0, 2 * np.pi, FRAMES, endpoint=False)
    angle = np.deg2rad(12) * np.sin(t)
    zoom = 0.9 * np.exp(0.18 * np.sin(2 * t + 1))
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    linear = np.stack([cos, -sin, sin, cos], axis=-1).reshape(-1, 2, 2)
    centre = np.array(FACE) + np.stack([18 * np.sin(t + 0.5), 12 * np.sin(2 * t)], axis=-1)
    shift = centre - linear.sum(-1) * (SIDE - 1) / 2
    motion = np.concatenate([linear, shift[:, :, None]], axis=-1)
    portrait = read_image(portrait_path(), upright=True)
    return np.stack([crop_image(portrait, affine, SIDE) for affine in motion]), motion


def quickstart(
    out: str | os.PathLike[str] = "rednet_quickstart",
    *,
    checkpoint: Checkpoint = "compact",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Quickstart:
    """Aligns the portrait, and tracks and measures the clip with K = 1, 2, 3.

    Args:
        out: folder for overlay.png (the portrait at K = 3), track.mp4 (K = 1, 2, 3 side by side),
            track.webp (K = 3, for pages) and landmarks.csv (the clip at K = 3).
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        report: called with the number of frames done and the total.

    Raises:
        RednetError: the checkpoint cannot be read, or a file cannot be written.
    """
    folder = Path(out)
    config, variables = network_of(checkpoint)
    frames, motion = portrait_clip()
    figures, tracks = [], []
    for index, steps in enumerate(FEEDBACK_STEPS):
        tracker = Tracker((config, variables), feedback_steps=steps)
        faces, times = [], []
        for done, frame in enumerate(frames, 1):
            begin = time.perf_counter()
            faces.append(tracker.update(frame))
            times.append(time.perf_counter() - begin)
            report(index * FRAMES + done, len(FEEDBACK_STEPS) * FRAMES)
        points = landmark_track(faces, config.scheme)
        tracks.append(points)
        with_face = sum(map(bool, faces))
        residual = jitter(apply_affine(motion, points), config.scheme)
        figures.append(Figures(steps, with_face, 1000 * float(np.median(times)), residual))
    overlay, video = folder / "overlay.png", folder / "track.mp4"
    animation, landmarks = folder / "track.webp", folder / "landmarks.csv"
    portrait = read_image(portrait_path(), upright=True)
    aligner = Aligner((config, variables), feedback_steps=FEEDBACK_STEPS[-1], faces=1)
    for face in aligner(portrait):
        portrait = draw_landmarks(portrait, face.landmarks, face.scheme)
    write_image(overlay, portrait)
    drawn = [
        [_drawn(frame, points[number], config.scheme) for points in tracks]
        for number, frame in enumerate(frames)
    ]
    with write_video(video, FPS, (SIDE * len(tracks), SIDE)) as write:
        for row in drawn:
            write(np.concatenate(row, axis=1))
    write_animation(animation, [row[-1] for row in drawn[::2]], FPS / 2)
    write_landmarks_csv(landmarks, [str(number + 1) for number in range(FRAMES)], tracks[-1])
    return Quickstart(figures, overlay, video, animation, landmarks)


def _drawn(
    image: NDArray[np.uint8], landmarks: NDArray[np.float32], scheme: Scheme
) -> NDArray[np.uint8]:
    return image if np.isnan(landmarks).any() else draw_landmarks(image, landmarks, scheme)
