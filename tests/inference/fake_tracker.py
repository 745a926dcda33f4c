"""A fake network and a fake detector, which find bright squares in generated frames."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from rednet_jax.detection.detector import Detection
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.builtin import IBUG68

SIDE = 64.0
"""Side of the faces in `shot_frame`."""

SCENE = np.kron(np.random.default_rng(0).integers(2, size=(12, 16)), np.ones((20, 20))) * 95
"""Background of the frames of a shot."""


def shot_frame(*centres: tuple[float, float], scene: np.ndarray = SCENE) -> np.ndarray:
    """A frame with a bright square, half of `SIDE` wide, at the centre of each face."""
    frame = np.repeat(scene[..., None], 3, axis=2).astype(np.uint8)
    half = SIDE / 4
    for x, y in centres:
        frame[round(y - half) : round(y + half) + 1, round(x - half) : round(x + half) + 1] = 200
    return frame


def box_at(x: float, y: float, side: float = SIDE) -> np.ndarray:
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32)


def middle(face) -> np.ndarray:
    return landmark_box(face.landmarks).reshape(2, 2).mean(0)


class Call(NamedTuple):
    fresh: bool
    warp: np.ndarray


class FakeNetwork:
    """Replaces the compiled `streams._step`: predicts the mean face at the bright square."""

    def __init__(self, scheme=IBUG68):
        self.shape = scheme.shape
        self.calls: list[Call] = []
        self.batches: list[int] = []

    def __call__(self, variables, carried, crops, warps, sources, targets, fresh, **_):
        used = len(carried.passes) - 1 > targets
        self.batches.append(len(targets))
        self.calls += [
            Call(bool(new), warp) for new, warp in zip(fresh[used], warps[used], strict=True)
        ]
        predictions = [self.predict(crop) for crop in crops]
        points, confidence = (np.stack(part) for part in zip(*predictions, strict=True))
        return points, confidence.astype(np.float32), carried

    def predict(self, crop):
        bright = np.argwhere(crop[..., 0] > 150)[:, ::-1]
        if not len(bright):
            return np.zeros_like(self.shape), np.full(len(self.shape), 0.1)
        size = 2 * (bright.max(0) - bright.min(0)).max()
        return self.shape * size + bright.mean(0), np.full(len(self.shape), 0.9)


class FakeDetector:
    """Finds its boxes in frames with the shape of `shot_frame`, and no face in parts of them."""

    def __init__(self, *boxes):
        self.boxes = boxes
        self.shapes = []
        self.seconds = 0.0

    @property
    def searched(self):
        return len(self.shapes)

    def detect(self, image):
        self.shapes.append(image.shape)
        time.sleep(self.seconds)
        if image.shape != (*SCENE.shape, 3):
            return []
        return [Detection(box, 1.0) for box in self.boxes]
