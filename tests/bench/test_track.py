"""`bench track` on a narrow network, and its generated clip."""

from __future__ import annotations

import jax
import numpy as np

from rednet_jax.bench.track import SIZE, bench_track, moving_portraits
from rednet_jax.detection.yunet import YuNet
from rednet_jax.inference.search import VIDEO_SEARCH
from rednet_jax.model.rednet import init


def test_every_part_is_measured(narrow):
    config = narrow("compact")
    result = bench_track((config, init(config, jax.random.key(0))), faces=(2,), rounds=1)
    (row,) = result["per_clip"]
    assert row["faces"] == 2
    # An untrained network may lose the faces.
    assert 0 <= row["found"] <= 2
    for part in ("decode", "detect", "draw", "encode"):
        assert row[f"{part}_ms"] >= 0
    assert row["frames_per_second"] > 0


def test_the_clip_shows_the_requested_number_of_faces():
    detector = YuNet(VIDEO_SEARCH)
    for count in (1, 4):
        frames = moving_portraits(count)
        assert frames.shape[1:] == (SIZE[1], SIZE[0], 3) and frames.dtype == np.uint8
        assert np.abs(np.diff(frames[:5].astype(int), axis=0)).mean() > 0.5
        assert len(detector.detect(frames[0])) == count
