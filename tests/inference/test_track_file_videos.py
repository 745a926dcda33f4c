"""`track_file` on rotated, damaged and large videos, and its output files."""

from __future__ import annotations

import json
import os
import resource
import stat
from fractions import Fraction

import numpy as np
import pytest
from media.encoded_video import FASTSTART, HEIGHT, WIDTH, encoded, noise, read, steps

from rednet_jax.errors import RednetError
from rednet_jax.inference.track_file import track_file
from rednet_jax.landmarks.table import read_landmarks_csv


@pytest.mark.parametrize(("turned", "corner"), [(0, 0), (90, 1), (180, 2), (270, 3)])
def test_rotation_times_and_pixel_aspect_are_kept(network, tmp_path, turned, corner):
    """`corner` is the bright corner, counted counter-clockwise from the top left."""
    times = [0, 0.04, 0.05, 0.2, 0.5, 1.2]
    video = encoded(
        tmp_path / "a.mp4",
        steps(6),
        "libx264",
        "yuv420p",
        turned=turned,
        aspect=Fraction(16, 11),
        times=times,
    )
    out, table, lines = (tmp_path / "new" / name for name in ("b.mp4", "b.csv", "b.jsonl"))
    tracked = track_file(video, checkpoint=network, out=out, landmarks=table, jsonl=lines)
    assert tracked.failures == [f"{video}: no face found in 6 frames"]
    frames, drawn = read(out)
    size, aspect = (WIDTH, HEIGHT), Fraction(16, 11)
    if turned in (90, 270):
        size, aspect = size[::-1], 1 / aspect
    assert (drawn.size, drawn.pixel_aspect) == (size, aspect)
    np.testing.assert_allclose([frame.seconds for frame in frames], times, atol=1e-3)
    for number, frame in enumerate(frames):
        upright = np.rot90(frame.image, -corner)
        assert upright[:12, :12].mean() > 235
        assert round((upright[-12:, -12:].mean() - 40) / 8) == number
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    np.testing.assert_allclose([row["seconds"] for row in rows], times, atol=1e-3)
    assert read_landmarks_csv(table)[0] == [str(number) for number in range(1, 7)]


def test_outputs_of_a_damaged_video_have_each_decoded_frame(network, tmp_path):
    video = encoded(tmp_path / "a.mov", noise(20), "png", "rgb24", options=FASTSTART)
    data = bytearray(video.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 100] = bytes(100)
    video.write_bytes(data)
    tracked = track_file(
        video, checkpoint=network, out=tmp_path / "b.mp4", landmarks=tmp_path / "b.csv"
    )
    assert tracked.failures[0] == (
        f"{video}: damaged in 1 place; the 19 frames that could be read are kept"
    )
    frames, _ = read(tmp_path / "b.mp4")
    assert len(frames) == len(read_landmarks_csv(tmp_path / "b.csv")[0]) == 19
    assert frames[-1].seconds == pytest.approx(19 / 25, abs=1e-3)


def test_existing_outputs_are_replaced(network, tmp_path):
    video = encoded(tmp_path / "a.mp4", steps(2), "libx264", "yuv420p")
    out, table, lines = (tmp_path / f"b.{kind}" for kind in ("mp4", "csv", "jsonl"))
    for path in (out, table, lines):
        path.write_text("before")
    track_file(video, checkpoint=network, out=out, landmarks=table, jsonl=lines)
    assert len(read(out)[0]) == 2
    assert len(read_landmarks_csv(table)[0]) == 2
    assert len(lines.read_text().splitlines()) == 2
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("name", ["b.avi", "b", "b.mp4.gif"])
def test_another_extension_is_an_error(network, tmp_path, name):
    video = encoded(tmp_path / "a.mp4", steps(2), "libx264", "yuv420p")
    with pytest.raises(RednetError, match=r"cannot be written \(an MP4 file needs"):
        track_file(video, checkpoint=network, out=tmp_path / name)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_an_unwritable_folder_is_an_error(network, tmp_path):
    video = encoded(tmp_path / "a.mp4", steps(2), "libx264", "yuv420p")
    closed = tmp_path / "closed"
    closed.mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    for kind in ("out", "landmarks", "jsonl"):
        with pytest.raises(RednetError, match=r"cannot be written \(no permission"):
            track_file(video, checkpoint=network, **{kind: closed / "b.mp4"})


def test_a_full_disk_is_an_error_of_the_lines(network, tmp_path):
    """A limit on file sizes simulates a full disk after the first frame."""
    video = encoded(tmp_path / "a.mp4", steps(8), "libx264", "yuv420p")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def report(done, total):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))

    try:
        with pytest.raises(RednetError, match=r"b.jsonl: cannot be written \(File too large\)"):
            track_file(video, checkpoint=network, jsonl=tmp_path / "b.jsonl", report=report)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.slow
def test_memory_is_bounded_for_4k_video(network, tmp_path):
    video = encoded(tmp_path / "a.mp4", steps(12, (3840, 2160)), "libx264", "yuv420p")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    track_file(video, checkpoint=network, out=tmp_path / "b.mp4")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert len(read(tmp_path / "b.mp4")[0]) == 12
    # In KiB; twenty frames are 0.5 GB, and the encoder needs additional memory.
    assert grown < 2_000_000
