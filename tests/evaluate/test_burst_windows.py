"""Stretches with a burst each: the same frames for every kind."""

from __future__ import annotations

import numpy as np
import pytest

from rednet_jax.data.crops import FaceCrops
from rednet_jax.evaluate.burst_windows import LONGEST, SHORTEST, burst_windows
from rednet_jax.evaluate.clips import FRAMES, ClipWindows
from rednet_jax.evaluate.corrupt import AFTER, BURST_KINDS
from rednet_jax.landmarks.builtin import IBUG68

SIZE, MARGIN = 96, 2.0


@pytest.fixture(scope="module")
def windows() -> ClipWindows:
    """Two windows of a clip of 40 frames; each frame is cut a pixel farther to the right."""
    count = 40
    rng = np.random.default_rng(0)
    affines = np.tile(np.eye(2, 3, dtype=np.float32), (count, 1, 1))
    affines[:, 0, 2] = np.arange(count)
    faces = FaceCrops(
        images=rng.integers(20, 236, (count, SIZE, SIZE, 3), np.uint8),
        landmarks=rng.uniform(10, 38, (count, 68, 2)).astype(np.float32),
        labelled=np.ones((count, 68), bool),
        affines=affines,
        starts=np.array([0, count]),
        names=np.array([f"clip/{frame + 1}" for frame in range(count)]),
        styles=np.array(["300w"] * count),
        identities=np.zeros(count, np.int64),
        scheme=IBUG68,
    )
    return ClipWindows(faces, np.stack([np.arange(FRAMES), np.arange(8, 8 + FRAMES)]))


@pytest.mark.parametrize("kind", BURST_KINDS)
def test_only_the_frames_of_the_burst_change(windows, kind) -> None:
    burst = burst_windows(windows, kind, margin=MARGIN)
    again = burst_windows(windows, kind, margin=MARGIN)
    np.testing.assert_array_equal(burst.windows.faces.images, again.windows.faces.images)
    lengths = burst.within.sum(1)
    assert (lengths >= SHORTEST).all() and (lengths <= LONGEST).all()
    assert (burst.after.sum(1) == AFTER).all() and not (burst.within & burst.after).any()
    clean = windows.faces.images[windows.frames]
    shown = burst.windows.faces.images[burst.windows.frames]
    np.testing.assert_array_equal((shown != clean).any((2, 3, 4)), burst.within)
    for field in ("landmarks", "labelled", "affines", "names"):
        np.testing.assert_array_equal(
            getattr(burst.windows.faces, field)[burst.windows.frames],
            getattr(windows.faces, field)[windows.frames],
        )


def test_bursts_of_all_kinds_are_the_same_frames_and_of_other_seeds_others(windows) -> None:
    parts = [burst_windows(windows, kind, margin=MARGIN).within for kind in BURST_KINDS]
    for part in parts[1:]:
        np.testing.assert_array_equal(part, parts[0])
    assert (burst_windows(windows, "dark", margin=MARGIN, seed=1).within != parts[0]).any()


def test_dropped_frames_show_the_frame_before_the_burst_where_it_was(windows) -> None:
    burst = burst_windows(windows, "dropped", margin=MARGIN)
    first = int(np.argmax(burst.within[0]))
    held, later = windows.faces.images[first - 1], burst.windows.faces.images[first + 2]
    # Three frames later the crop lies three pixels farther to the right.
    np.testing.assert_array_equal(later[:, :-3], held[:, 3:])
