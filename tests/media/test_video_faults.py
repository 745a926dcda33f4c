"""Awkward videos: damaged, cut, turned, uneven in time, of every kind of pixel, oddly named."""

from __future__ import annotations

import json
import os
import resource
import stat
import struct
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from rednet_jax import cli
from rednet_jax.errors import RednetError
from rednet_jax.inference.track_file import track_file
from rednet_jax.landmarks.table import read_landmarks_csv
from rednet_jax.media.video import VideoReader, write_video

WIDTH, HEIGHT = 64, 48
SOUND_RATE = 16_000
LIMITED, FULL = 1, 2
MATRICES = {"BT.601": (6, 0.299, 0.114), "BT.709": (1, 0.2126, 0.0722)}
"""FFmpeg's number of each matrix, and its weights of red and blue."""

PATCHES = np.array(
    [[220, 40, 40], [40, 200, 60], [30, 60, 220], [128, 128, 128], [250, 250, 250], [200, 150, 120]]
)


def steps(count, size=(WIDTH, HEIGHT)):
    """Frames of one grey each, brighter by 8 each time, with a bright corner at the top left."""
    for number in range(count):
        frame = np.full((size[1], size[0], 3), 40 + 8 * number, np.uint8)
        frame[: size[1] // 3, : size[0] // 3] = 250
        yield frame


def noise(count):
    """Frames that take about the same number of bytes each."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield rng.integers(256, size=(HEIGHT, WIDTH, 3), dtype=np.uint8)


def encoded(
    path,
    frames,
    codec,
    pixels,
    *,
    group=12,
    turned=0,
    aspect=None,
    times=None,
    sound=None,
    options=None,
):
    """Writes a video; `sound` is the place of two seconds of silence, before or after it."""
    frames = list(frames)
    with av.open(str(path), "w", options=options or {}) as container:
        audio = _sound(container, path) if sound == "before" else None
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.gop_size = group
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if turned:
            stream.set_display_rotation(turned)
        if sound == "after":
            audio = _sound(container, path)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image)
            if times is not None:
                frame.pts, frame.time_base = round(1000 * times[number]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            for number in range(20):
                silence = av.AudioFrame.from_ndarray(
                    np.zeros((1, SOUND_RATE // 10), np.int16), format="s16", layout="mono"
                )
                silence.sample_rate, silence.pts = SOUND_RATE, number * SOUND_RATE // 10
                container.mux(audio.encode(silence))
            container.mux(audio.encode(None))
    return path


def _sound(container, path):
    codec = {".avi": "pcm_s16le", ".webm": "libopus"}.get(path.suffix, "aac")
    return container.add_stream(codec, rate=SOUND_RATE, layout="mono")


def read(path):
    with VideoReader(path) as reader:
        return list(reader), reader


def grey(frame):
    """The frame's number, by its grey at the bottom right."""
    return round((frame.image[-12:, -12:].mean() - 40) / 8)


IN_FRONT = {"movflags": "faststart"}


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "options"),
    [
        ("a.mp4", "libx264", "yuv420p", IN_FRONT),
        ("a.mov", "png", "rgb24", IN_FRONT),
        ("a.avi", "mjpeg", "yuvj420p", None),
        ("a.mkv", "ffv1", "yuv420p", None),
        ("a.ts", "libx264", "yuv420p", None),
        ("a.mpg", "mpeg2video", "yuv420p", None),
    ],
)
def test_frames_around_damage_are_kept(tmp_path, name, codec, pixels, options):
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
def test_what_lies_before_a_cut_is_kept(tmp_path, name, codec, pixels, sound):
    path = encoded(
        tmp_path / name,
        noise(60),
        codec,
        pixels,
        sound=sound,
        options=IN_FRONT if name == "a.mp4" else None,
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, reader = read(path)
    assert 20 <= len(frames) <= 32
    assert "cut short" in reader.broken


def test_first_frames_that_cannot_be_decoded_are_left_out(tmp_path):
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


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("grey.mkv", "ffv1", "gray"),
        ("grey16.mkv", "ffv1", "gray16le"),
        ("grey.avi", "rawvideo", "gray"),
        ("raw.avi", "rawvideo", "bgr24"),
        ("ten.mp4", "libx264", "yuv420p10le"),
        ("ten.mkv", "ffv1", "yuv422p10le"),
        ("alpha.mov", "png", "rgba"),
        ("alpha_rle.mov", "qtrle", "argb"),
        ("alpha.webm", "libvpx-vp9", "yuva420p"),
        ("alpha.mkv", "ffv1", "bgra"),
        ("palette.gif", "gif", "rgb8"),
    ],
)
def test_every_kind_of_pixel_is_read(tmp_path, name, codec, pixels):
    frames, reader = read(encoded(tmp_path / name, steps(6), codec, pixels))
    assert reader.broken is None
    assert [grey(frame) for frame in frames] == list(range(6))
    for frame in frames:
        assert frame.image.dtype == np.uint8 and frame.image.shape == (HEIGHT, WIDTH, 3)
        assert frame.image[:10, :10].mean() > 235


@pytest.mark.parametrize("size", [(63, 49), (17, 34)])
def test_odd_sizes_are_read(tmp_path, size):
    frames, reader = read(encoded(tmp_path / "a.mkv", steps(3, size), "ffv1", "yuv420p"))
    assert reader.size == size
    assert [frame.image.shape for frame in frames] == [(size[1], size[0], 3)] * 3


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.gif", "gif", "rgb8"),
        ("a.mkv", "libx264", "yuv420p"),
    ],
)
def test_one_frame_is_a_video(tmp_path, name, codec, pixels):
    frames, reader = read(encoded(tmp_path / name, steps(1), codec, pixels))
    assert [frame.seconds for frame in frames] == [0]
    assert reader.broken is None


@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_a_still_image_is_a_video_of_one_frame(tmp_path, extension):
    path = tmp_path / f"a.{extension}"
    Image.fromarray(next(steps(1))).save(path)
    frames, reader = read(path)
    assert len(frames) == 1
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


def test_an_unknown_codec_is_one_line(tmp_path):
    path = encoded(tmp_path / "a.mp4", steps(3), "libx264", "yuv420p")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz1"))
    with pytest.raises(RednetError, match=r"a\.mp4: not a video"):
        VideoReader(path)


@pytest.mark.parametrize("side", [20_000, 2_000_000_000])
def test_a_huge_declared_size_is_one_line(tmp_path, side):
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
def test_an_address_is_a_file_that_is_missing(address):
    with pytest.raises(RednetError) as caught:
        VideoReader(address)
    assert str(caught.value) == f"{address}: cannot be read (No such file or directory)"


@pytest.mark.parametrize("name", ["-a.mp4", "100%d.mp4", "a:b.mp4", "file:a.mp4", "ä\udcff.mp4"])
def test_names_mean_nothing_to_ffmpeg(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with write_video(name, 25, (WIDTH, HEIGHT)) as write:
        for image in steps(3):
            write(image)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert len(read(name)[0]) == 3


def test_a_name_that_begins_with_a_dash_needs_a_folder_or_two_dashes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parsed = cli.parser().parse_args(["track", "--", "-a.mp4"])
    assert parsed.video == "-a.mp4"
    with pytest.raises(RednetError, match="VIDEO"):
        cli.parser().parse_args(["track", "-a.mp4"])


def yuv(matrix, colour_range):
    """The patches side by side, as rows of the three planes of yuv420p."""
    _, red, blue = MATRICES[matrix]
    r, g, b = PATCHES.T / 255
    luma = red * r + (1 - red - blue) * g + blue * b
    planes = np.stack([luma, (b - luma) / (2 * (1 - blue)), (r - luma) / (2 * (1 - red))])
    scale = [[219], [224], [224]] if colour_range == LIMITED else [[255]] * 3
    offset = [[16 if colour_range == LIMITED else 0], [128], [128]]
    return np.round(planes * scale + offset).astype(np.uint8)


def patches(image):
    """The mean colour of each patch of an image, away from its edges."""
    side = image.shape[1] // len(PATCHES)
    return np.stack(
        [
            image[4:-4, number * side + 4 : (number + 1) * side - 4].mean((0, 1))
            for number in range(len(PATCHES))
        ]
    )


@pytest.mark.parametrize(
    ("matrix", "colour_range", "tagged", "size"),
    [
        ("BT.601", LIMITED, True, (96, 32)),
        ("BT.709", LIMITED, True, (96, 32)),
        ("BT.601", FULL, True, (96, 32)),
        ("BT.709", FULL, True, (96, 32)),
        ("BT.601", LIMITED, False, (96, 32)),
        ("BT.709", LIMITED, False, (1296, 32)),
    ],
)
def test_colours_are_read_by_matrix_and_range(tmp_path, matrix, colour_range, tagged, size):
    """Of a video without tags, the size decides, as in players."""
    width, height = size
    rows = np.repeat(yuv(matrix, colour_range), width // len(PATCHES), axis=1)
    luma, *chroma = (
        np.repeat(row[None, ::step], height // step, 0)
        for row, step in zip(rows, (1, 2, 2), strict=True)
    )
    picture = np.concatenate([plane.ravel() for plane in (luma, *chroma)])
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        frame = av.VideoFrame.from_ndarray(picture.reshape(-1, width), format="yuv420p")
        if tagged:
            for one in (stream.codec_context, frame):
                one.colorspace, one.color_range = MATRICES[matrix][0], colour_range
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (frame,), _ = read(tmp_path / "a.mp4")
    np.testing.assert_allclose(patches(frame.image), PATCHES, atol=4)


@pytest.mark.parametrize(
    ("matrix", "width", "height"), [("BT.601", 96, 32), ("BT.709", 1296, 32), ("BT.709", 96, 720)]
)
def test_colours_are_written_as_the_tags_say_and_the_size_suggests(tmp_path, matrix, width, height):
    row = np.repeat(PATCHES.astype(np.uint8), width // len(PATCHES), 0)
    with write_video(tmp_path / "a.mp4", 25, (width, height)) as write:
        write(np.repeat(row[None], height, 0))
    with av.open(str(tmp_path / "a.mp4")) as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_range) == (MATRICES[matrix][0], LIMITED)
    assert (frame.color_primaries, frame.color_trc) == (1, 1)
    side = width // len(PATCHES)
    planes = frame.to_ndarray(format="yuv444p", channel_last=True)[height // 2, side // 2 :: side]
    np.testing.assert_allclose(planes.T, yuv(matrix, LIMITED), atol=3)


@pytest.mark.parametrize(("turned", "corner"), [(0, 0), (90, 1), (180, 2), (270, 3)])
def test_a_turned_uneven_video_of_wide_pixels(network, tmp_path, turned, corner):
    """`corner` counts the bright one's quarter turns against the clock from the top left."""
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


def test_a_damaged_video_has_a_row_and_a_drawn_frame_for_each_that_is_read(network, tmp_path):
    video = encoded(tmp_path / "a.mov", noise(20), "png", "rgb24", options=IN_FRONT)
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


def test_what_was_there_is_replaced(network, tmp_path):
    video = encoded(tmp_path / "a.mp4", steps(2), "libx264", "yuv420p")
    named = {kind: tmp_path / f"b.{kind}" for kind in ("mp4", "csv", "jsonl")}
    for path in named.values():
        path.write_text("before")
    track_file(
        video,
        checkpoint=network,
        out=named["mp4"],
        landmarks=named["csv"],
        jsonl=named["jsonl"],
    )
    assert len(read(named["mp4"])[0]) == 2
    assert len(read_landmarks_csv(named["csv"])[0]) == 2
    assert len(named["jsonl"].read_text().splitlines()) == 2
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("name", ["b.avi", "b", "b.mp4.gif"])
def test_another_extension_is_one_line(network, tmp_path, name):
    video = encoded(tmp_path / "a.mp4", steps(2), "libx264", "yuv420p")
    with pytest.raises(RednetError, match=r"cannot be written \(it will be an MP4 file"):
        track_file(video, checkpoint=network, out=tmp_path / name)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_that_cannot_be_written_to_is_one_line(network, tmp_path):
    video = encoded(tmp_path / "a.mp4", steps(2), "libx264", "yuv420p")
    closed = tmp_path / "closed"
    closed.mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    for kind in ("out", "landmarks", "jsonl"):
        with pytest.raises(RednetError, match=r"cannot be written \(Permission denied\)"):
            track_file(video, checkpoint=network, **{kind: closed / "b.mp4"})


@pytest.mark.slow
def test_four_thousand_pixels_take_no_absurd_memory(network, tmp_path):
    video = encoded(tmp_path / "a.mp4", steps(12, (3840, 2160)), "libx264", "yuv420p")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    track_file(video, checkpoint=network, out=tmp_path / "b.mp4")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert len(read(tmp_path / "b.mp4")[0]) == 12
    # In KiB; twenty frames are 0.5 GB, and the encoder has some of its own.
    assert grown < 2_000_000
