"""The clip and the files of the quick start."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from rednet_jax import quickstart as module
from rednet_jax.inference.face import Face
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.crops import apply_affine
from rednet_jax.landmarks.table import read_landmarks_csv
from rednet_jax.media.images import read_image
from rednet_jax.media.video import VideoReader
from rednet_jax.quickstart import FACE, FRAMES, SIDE, portrait_clip, quickstart


def test_the_frames_agree_with_the_motion(portrait):
    """Pixels of a frame are those of the portrait at the mapped positions, except for smoothing."""
    frames, motion = portrait_clip()
    assert frames.shape == (FRAMES, SIDE, SIDE, 3) and frames.dtype == np.uint8
    x, y = np.meshgrid(np.arange(60, 200), np.arange(60, 200))
    pixels = np.stack([x, y], -1).reshape(-1, 2)
    for frame, affine in zip(frames[::7], motion[::7], strict=True):
        column, row = np.round(apply_affine(affine, pixels)).astype(int).T
        expected = portrait[row, column].astype(float)
        actual = frame[pixels[:, 1], pixels[:, 0]].astype(float)
        assert np.corrcoef(expected.ravel(), actual.ravel())[0, 1] > 0.97
        shifted = portrait[row + 3, column].astype(float)
        assert np.abs(actual - expected).mean() < 0.7 * np.abs(actual - shifted).mean()


def test_the_motion_is_smooth_and_keeps_the_face_in_view():
    _, motion = portrait_clip()
    np.testing.assert_allclose(motion[0], motion[-1], atol=6)
    centre = apply_affine(motion, np.array([[(SIDE - 1) / 2] * 2]))[:, 0]
    assert np.abs(centre - FACE).max() < 40
    turns = np.degrees(np.arctan2(motion[:, 1, 0], motion[:, 0, 0]))
    assert 11 < turns.max() < 13 and -13 < turns.min() < -11


def test_quickstart_writes_its_four_files(network, tmp_path, monkeypatch):
    """With a short clip; the end-to-end test has the whole clip."""
    frames = 10
    monkeypatch.setattr(module, "FRAMES", frames)
    reports = []
    result = quickstart(
        tmp_path / "out",
        checkpoint=network,
        report=lambda done, total: reports.append((done, total)),
    )
    assert reports == [(n + 1, 3 * frames) for n in range(3 * frames)]
    assert [row.feedback_steps for row in result.figures] == [1, 2, 3]
    for row in result.figures:
        assert 0 < row.found <= frames
        assert row.milliseconds > 0
        assert row.jitter > 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "overlay.png",
        "track.mp4",
        "track.webp",
        "landmarks.csv",
    }
    assert (result.overlay, result.video, result.animation, result.landmarks) == tuple(
        tmp_path / "out" / name
        for name in ("overlay.png", "track.mp4", "track.webp", "landmarks.csv")
    )
    names, landmarks = read_landmarks_csv(result.landmarks)
    assert names == [str(n + 1) for n in range(frames)]
    assert (~np.isnan(landmarks[:, 0, 0])).sum() == result.figures[-1].found
    assert read_image(result.overlay, upright=True).shape == (512, 512, 3)
    with VideoReader(result.video) as video:
        assert video.size == (3 * SIDE, SIDE)
        assert len(list(video)) == frames
    with Image.open(result.animation) as animation:
        assert (animation.size, animation.n_frames) == ((SIDE, SIDE), frames // 2)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_jitter_does_not_include_the_motion(network, tmp_path, monkeypatch, noise):
    """Landmarks fixed to the portrait have no jitter, although they move by 20 pixels."""
    _, motion = portrait_clip()
    rng = np.random.default_rng(0)
    fixed = rng.uniform([180, 80], [260, 170], (68, 2))

    class FixedTracker:
        def __init__(self, checkpoint, *, feedback_steps):
            self.frame = 0

        def update(self, image):
            affine = motion[self.frame]
            self.frame += 1
            points = np.linalg.solve(affine[:, :2], (fixed - affine[:, 2]).T).T
            points = points + rng.normal(0, noise, points.shape)
            points = points.astype(np.float32)
            return [
                Face(points, np.ones(68, np.float32), np.zeros(4, np.float32), IBUG68, identity=0)
            ]

    monkeypatch.setattr(module, "Tracker", FixedTracker)
    for row in quickstart(tmp_path, checkpoint=network).figures:
        assert row.jitter < 0.01 if noise == 0 else row.jitter > 1
