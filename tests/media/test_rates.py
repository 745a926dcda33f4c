"""Frame rates of written videos and image sequences."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from rednet_jax.errors import RednetError
from rednet_jax.media.rates import frame_rate
from rednet_jax.media.sequence import open_frames
from rednet_jax.media.video import VideoReader, write_video


@pytest.mark.parametrize("fps", [0, -3, 1e-6, 3e9, float("inf"), float("nan"), Fraction(1, 10**6)])
def test_rates_that_no_video_can_have_are_errors(tmp_path, fps):
    Image.new("RGB", (32, 24)).save(tmp_path / "1.png")
    with pytest.raises(RednetError, match=r"fps: \S+ is not a frame rate that a video can have"):
        open_frames(tmp_path, fps)
    with (
        pytest.raises(RednetError, match=r"fps: \S+ is not a frame rate that a video can have"),
        write_video(tmp_path / "a.mp4", fps, (32, 24)),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["1.png"]


@pytest.mark.parametrize("fps", [1 / 60_000, Fraction(30_000, 1001), 1000])
def test_other_rates_are_those_of_the_written_video(tmp_path, fps):
    with write_video(tmp_path / "a.mp4", fps, (32, 24)) as write:
        for _ in range(3):
            write(np.zeros((24, 32, 3), np.uint8))
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert reader.fps == frame_rate(fps)
