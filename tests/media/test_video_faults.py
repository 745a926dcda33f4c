"""Damaged and truncated videos, files that are no videos, and unusual file names."""

from __future__ import annotations

import struct
import zlib

import av
import numpy as np
import pytest
from av.stream import Disposition
from media.encoded_video import (
    FASTSTART,
    HEIGHT,
    SOUND_RATE,
    WIDTH,
    encoded,
    grey,
    noise,
    read,
    steps,
)

from rednet_jax import cli
from rednet_jax.errors import RednetError
from rednet_jax.media.video import VideoReader, write_video


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "options"),
    [
        ("a.mp4", "libx264", "yuv420p", FASTSTART),
        ("a.mov", "png", "rgb24", FASTSTART),
        ("a.avi", "mjpeg", "yuvj420p", None),
        ("a.mkv", "ffv1", "yuv420p", None),
        ("a.ts", "libx264", "yuv420p", None),
        ("a.mpg", "mpeg2video", "yuv420p", None),
    ],
)
def test_frames_around_damaged_bytes_are_kept(tmp_path, name, codec, pixels, options):
    whole = encoded(tmp_path / name, noise(60), codec, pixels, options=options)
    data = bytearray(whole.read_bytes())
    assert read(whole)[1].broken is None
    begin, end = round(0.5 * len(data)), round(0.55 * len(data))
    data[begin:end] = np.random.default_rng(0).bytes(end - begin)
    whole.write_bytes(data)
    frames, reader = read(whole)
    assert 50 <= len(frames) < 60
    assert reader.broken.startswith("damaged in ")
    assert frames[-1].seconds > 2.2
    assert (np.diff([frame.seconds for frame in frames]) > 0).all()


@pytest.mark.parametrize("sound", [None, "before"])
@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.avi", "mjpeg", "yuvj420p"),
        ("a.mkv", "libx264", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
    ],
)
def test_frames_before_a_cut_are_kept(tmp_path, name, codec, pixels, sound):
    path = encoded(
        tmp_path / name,
        noise(60),
        codec,
        pixels,
        sound=sound,
        options=FASTSTART if name == "a.mp4" else None,
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, reader = read(path)
    assert 20 <= len(frames) <= 32
    assert "cut short" in reader.broken


def test_undecodable_first_frames_are_left_out(tmp_path):
    path = encoded(tmp_path / "a.mov", steps(10), "png", "rgb24")
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for packet in packets[:3]:
        data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    frames, reader = read(path)
    assert [grey(frame) for frame in frames] == list(range(3, 10))
    assert frames[0].seconds == 0
    assert reader.broken == "damaged in 3 places"


@pytest.mark.parametrize("sound", ["before", "after"])
@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.avi", "mjpeg", "yuvj420p"),
        ("a.mkv", "libx264", "yuv420p"),
    ],
)
def test_a_longer_sound_track_is_no_cut(tmp_path, name, codec, pixels, sound):
    frames, reader = read(encoded(tmp_path / name, steps(10), codec, pixels, sound=sound))
    assert [grey(frame) for frame in frames] == list(range(10))
    assert reader.broken is None


def test_a_late_start_is_no_cut(tmp_path):
    times = [3 + 0.1 * number for number in range(8)]
    frames, reader = read(encoded(tmp_path / "a.mkv", steps(8), "libx264", "yuv420p", times=times))
    assert len(frames) == 8
    assert reader.broken is None


def test_a_cover_image_is_no_video(tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        audio = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = WIDTH, HEIGHT, "rgb24"
        cover.disposition = Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(next(steps(1)))))
        silence = av.AudioFrame.from_ndarray(
            np.zeros((1, SOUND_RATE), np.int16), format="s16", layout="mono"
        )
        silence.sample_rate = SOUND_RATE
        container.mux(audio.encode(silence))
        container.mux(audio.encode(None))
    with pytest.raises(RednetError, match="has no video stream"):
        VideoReader(tmp_path / "song.mp4")


def test_an_unknown_codec_is_an_error(tmp_path):
    path = encoded(tmp_path / "a.mp4", steps(3), "libx264", "yuv420p")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz1"))
    with pytest.raises(RednetError, match=r"a\.mp4: not a video"):
        VideoReader(path)


@pytest.mark.parametrize("side", [20_000, 2_000_000_000])
def test_a_huge_declared_size_is_an_error(tmp_path, side):
    path = encoded(tmp_path / "a.mov", steps(3), "png", "rgb24")
    data, place = bytearray(path.read_bytes()), 0
    while (place := data.find(b"IHDR", place)) >= 0:
        data[place + 4 : place + 12] = struct.pack(">II", side, side)
        check = zlib.crc32(bytes(data[place : place + 17]))
        data[place + 17 : place + 21] = struct.pack(">I", check)
        place += 4
    path.write_bytes(data)
    with pytest.raises(RednetError, match=r"a\.mov: not a video"):
        VideoReader(path)


@pytest.mark.parametrize("address", ["http://example.com/a.mp4", "concat:a.mp4|b.mp4", "pipe:0"])
def test_an_address_is_read_as_a_file_name(address):
    with pytest.raises(RednetError) as caught:
        VideoReader(address)
    assert str(caught.value) == f"{address}: cannot be read (No such file or directory)"


@pytest.mark.parametrize("name", ["-a.mp4", "100%d.mp4", "a:b.mp4", "file:a.mp4", "ä\udcff.mp4"])
def test_ffmpeg_does_not_interpret_file_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with write_video(name, 25, (WIDTH, HEIGHT)) as write:
        for image in steps(3):
            write(image)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert len(read(name)[0]) == 3


def test_a_file_name_with_a_leading_dash_needs_two_dashes_before_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parsed = cli.parser().parse_args(["track", "--", "-a.mp4"])
    assert parsed.video == "-a.mp4"
    with pytest.raises(RednetError, match="VIDEO"):
        cli.parser().parse_args(["track", "-a.mp4"])
