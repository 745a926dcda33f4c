"""Cuts and changes of person are counted on clips of which they are known."""

from __future__ import annotations

import numpy as np
import pytest

from rednet_jax.bench import identities
from rednet_jax.bench.identities import KINDS, bench_identities
from rednet_jax.data.samples import ClipSample
from rednet_jax.data.sources import Split
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.builtin import IBUG68

LANDMARKS = (IBUG68.shape * 40 + [80, 70]).astype(np.float32)
BOX = np.array([40, 30, 120, 110], np.float32)


def scene(seed):
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(256, size=(15, 20, 3)), np.ones((8, 8, 1))).astype(np.uint8)


def clip(name, seeds, labelled=True):
    """Shows a scene in each frame."""
    frames = len(seeds)
    return ClipSample(
        images=[scene(seed) for seed in seeds],
        landmarks=np.stack([LANDMARKS] * frames),
        labelled=np.full((frames, 68), labelled),
        box=np.stack([BOX] * frames),
        valid=np.full(frames, labelled),
        name=name,
    )


@pytest.fixture
def data(monkeypatch):
    splits = {}

    def read_clips(data, split, data_dir):
        return Split(data, split, "made here", splits[split], lambda clip: clip)

    monkeypatch.setattr(identities, "read_clips", read_clips)
    return splits


def test_steady_clips_have_no_change_and_joined_ones_have_one(data):
    data["train"] = [clip("one", [1] * 20)]
    data["validation"] = [clip("two", [2] * 19), clip("three", [3] * 18)]
    reports = []
    result = bench_identities(report=lambda done, total: reports.append((done, total)))
    assert result["clips"] == 3
    # No burst ends within these clips.
    assert result["reported"] == [
        {"kind": kind, "frames": 57, "cuts": 0, "changes": 0} for kind in KINDS
    ]
    assert result["joined"] == {"pairs": 6, "cuts": 100, "changes_at_once": 100, "changes": 100}
    assert reports == [(n + 1, 15) for n in range(15)]
    assert result["provenance"]["command"].startswith("rednet bench identities --data 300vw")


def test_changes_within_clips_and_none_between_them_are_counted(data):
    data["train"] = [clip("one", [1] * 10 + [2] * 10 + [1] * 10), clip("two", [1] * 5)]
    result = bench_identities(splits=("train",))
    assert result["reported"][0] == {"kind": "clean", "frames": 35, "cuts": 2, "changes": 2}
    assert result["joined"] == {"pairs": 2, "cuts": 0, "changes_at_once": 0, "changes": 0}


def test_corrupted_frames_are_counted(data, monkeypatch):
    """Every frame of each kind but `clean` is another scene."""
    data["train"] = [clip("one", [1] * 10), clip("two", [2] * 10)]
    monkeypatch.setattr(
        identities,
        "corrupted",
        lambda corruption, clip, frame: (
            clip.images[frame] if corruption.kind == "clean" else scene(frame)
        ),
    )
    rows = bench_identities(splits=("train",))["reported"]
    assert [row["cuts"] for row in rows] == [0, *[18] * (len(KINDS) - 1)]


def test_a_single_clip_is_refused(data):
    data["train"] = [clip("one", [1] * 3)]
    with pytest.raises(RednetError, match="300vw: at least two clips are needed, not 1"):
        bench_identities(splits=("train",))


def test_a_clip_without_labels_is_refused(data):
    data["train"] = [clip("one", [1] * 3), clip("two", [1] * 3, labelled=False)]
    with pytest.raises(RednetError, match="clip two has no frame with all landmarks labelled"):
        bench_identities(splits=("train",))
