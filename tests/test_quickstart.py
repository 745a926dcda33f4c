"""The clip of the quick start moves as it says, and the demonstration leaves its three files."""

from __future__ import annotations

import numpy as np
import pytest

from rednet_jax import quickstart as module
from rednet_jax.inference.face import Face
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.crops import apply_affine
from rednet_jax.landmarks.table import read_landmarks_csv
from rednet_jax.media.images import read_image
from rednet_jax.media.video import VideoReader
from rednet_jax.quickstart import FACE, FRAMES, SIDE, portrait_clip, quickstart


def test_the_clip_shows_the_portrait_where_its_motion_says(portrait):
    """Pixels of a frame are those of the portrait at the mapped places, to what smoothing costs."""
    frames, motion = portrait_clip()
    assert frames.shape == (FRAMES, SIDE, SIDE, 3) and frames.dtype == np.uint8
    x, y = np.meshgrid(np.arange(60, 200), np.arange(60, 200))
    pixels = np.stack([x, y], -1).reshape(-1, 2)
    for frame, affine in zip(frames[::7], motion[::7], strict=True):
        column, row = np.round(apply_affine(affine, pixels)).astype(int).T
        want = portrait[row, column].astype(float)
        seen = frame[pixels[:, 1], pixels[:, 0]].astype(float)
        assert np.corrcoef(want.ravel(), seen.ravel())[0, 1] > 0.97
        shifted = portrait[row + 3, column].astype(float)
        assert np.abs(seen - want).mean() < 0.7 * np.abs(seen - shifted).mean()


def test_the_motion_is_smooth_and_keeps_the_face_in_view():
    _, motion = portrait_clip()
    np.testing.assert_allclose(motion[0], motion[-1], atol=6)
    centre = apply_affine(motion, np.array([[(SIDE - 1) / 2] * 2]))[:, 0]
    assert np.abs(centre - FACE).max() < 40
    turns = np.degrees(np.arctan2(motion[:, 1, 0], motion[:, 0, 0]))
    assert 11 < turns.max() < 13 and -13 < turns.min() < -11


def test_quickstart_leaves_its_three_files(network, tmp_path, monkeypatch):
    """A short one: what it takes in full is for the end-to-end test."""
    frames = 10
    monkeypatch.setattr(module, "FRAMES", frames)
    told = []
    shown = quickstart(
        tmp_path / "out",
        checkpoint=network,
        report=lambda done, total: told.append((done, total)),
    )
    assert told == [(n + 1, 3 * frames) for n in range(3 * frames)]
    assert [row.feedback_steps for row in shown.figures] == [1, 2, 3]
    for row in shown.figures:
        assert 0 < row.found <= frames
        assert row.milliseconds > 0
        assert row.jitter > 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "overlay.png",
        "track.mp4",
        "landmarks.csv",
    }
    assert (shown.overlay, shown.video, shown.landmarks) == tuple(
        tmp_path / "out" / name for name in ("overlay.png", "track.mp4", "landmarks.csv")
    )
    names, landmarks = read_landmarks_csv(shown.landmarks)
    assert names == [str(n + 1) for n in range(frames)]
    assert (~np.isnan(landmarks[:, 0, 0])).sum() == shown.figures[-1].found
    assert read_image(shown.overlay, upright=True).shape == (512, 512, 3)
    with VideoReader(shown.video) as video:
        assert video.size == (3 * SIDE, SIDE)
        assert len(list(video)) == frames


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_jitter_is_what_the_motion_does_not_explain(network, tmp_path, monkeypatch, noise):
    """Points that stick to the portrait have none, though they move by 20 pixels."""
    _, motion = portrait_clip()
    rng = np.random.default_rng(0)
    fixed = rng.uniform([180, 80], [260, 170], (68, 2))

    class Sticking:
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

    monkeypatch.setattr(module, "Tracker", Sticking)
    for row in quickstart(tmp_path, checkpoint=network).figures:
        assert row.jitter < 0.01 if noise == 0 else row.jitter > 1
