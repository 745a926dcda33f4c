"""Written videos are read back unchanged; rotation, truncated and invalid files."""

from __future__ import annotations

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from rednet_jax.errors import RednetError
from rednet_jax.media.video import VideoReader, write_video


def ramp(number: int, size: tuple[int, int]) -> np.ndarray:
    """A frame whose colour encodes its number, darker on the left than on the right."""
    width, height = size
    frame = np.full((height, width, 3), 40 + 10 * number, np.uint8)
    frame[:, width // 2 :] += 60
    return frame


def written(path, size=(64, 48), fps=25, count=10):
    with write_video(path, fps, size) as write:
        for number in range(count):
            write(ramp(number, size))
    return path


def read(path):
    with VideoReader(path) as reader:
        return [frame.image for frame in reader], reader


def avi(path, count=60, size=(64, 48)):
    """An AVI file of noise, whose frames are JPEG images of about the same length."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p"
        for _ in range(count):
            noise = rng.integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise)))
        container.mux(stream.encode(None))
    return path


def sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 800), np.int16), format="s16", layout="mono"
        )
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("size", "fps"),
    [((64, 48), Fraction(25)), ((63, 49), Fraction(30000, 1001)), ((17, 34), Fraction(25, 2))],
)
def test_round_trip(tmp_path, size, fps):
    frames, reader = read(written(tmp_path / "a.mp4", size, fps, count=11))
    width, height = (side + side % 2 for side in size)
    assert reader.size == (width, height)
    assert reader.fps == fps
    assert reader.frame_count == len(frames) == 11
    assert reader.broken is None
    for number, frame in enumerate(frames):
        assert frame.shape == (height, width, 3) and frame.dtype == np.uint8
        expected = np.pad(
            ramp(number, size), ((0, size[1] % 2), (0, size[0] % 2), (0, 0)), mode="edge"
        )
        assert abs(frame.astype(float) - expected).mean() < 4


def test_a_float_rate_is_kept(tmp_path):
    assert read(written(tmp_path / "a.mp4", fps=29.97))[1].fps == Fraction(2997, 100)


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        # (a, b, c, d): the pixel stored at (x, y) is displayed at (a x + c y, b x + d y).
        ((1, 0, 0, 1), lambda image: image),
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
        ((-1, 0, 0, -1), lambda image: image[::-1, ::-1]),
        ((0, -1, 1, 0), np.rot90),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
        ((1, 0, 0, -1), lambda image: image[::-1]),
        ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda image: image[::-1, ::-1].swapaxes(0, 1)),
        ((0.985, 0.174, -0.174, 0.985), lambda image: image),
        ((0, 0, 0, 0), lambda image: image),
    ],
)
def test_the_display_matrix_is_applied(tmp_path, matrix, shown):
    quarters = np.zeros((48, 64, 3), np.uint8)
    quarters[:24, 32:], quarters[24:, :32], quarters[24:, 32:] = 80, 160, 240
    with write_video(tmp_path / "a.mp4", 25, (64, 48)) as write:
        write(quarters)
    path = tmp_path / "a.mp4"
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    one = 1 << 16
    assert struct.unpack(">9i", data[place : place + 36]) == (one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    a, b, c, d = (round(value * one) for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    (frame,), reader = read(path)
    expected = shown(quarters)
    assert reader.size == expected.shape[1::-1]
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(float) - expected).mean() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_of_jpeg_frames_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    quarters = np.zeros((48, 64), np.uint8)
    quarters[:24, 32:], quarters[24:, :32], quarters[24:, 32:] = 80, 160, 240
    jpeg = tmp_path / "a.jpg"
    Image.fromarray(quarters).convert("RGB").save(jpeg, exif=exif)
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        packet = av.Packet(jpeg.read_bytes())
        packet.pts = packet.dts = 0
        packet.stream, packet.time_base = stream, Fraction(1, 25)
        container.mux(packet)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(jpeg))).astype(float)
    for path in (jpeg, tmp_path / "a.avi"):
        (frame,), _ = read(path)
        assert frame.shape == upright.shape
        assert np.abs(frame - upright).mean() < 3


def test_a_trimmed_file_is_complete(tmp_path):
    """A file trimmed without re-encoding contains earlier frames, which are not displayed."""
    whole, path = written(tmp_path / "whole.mp4", count=15), tmp_path / "trimmed.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copied = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                skipped = round(6 / 25 / packet.time_base)
                packet.pts, packet.dts = packet.pts - skipped, packet.dts - skipped
                packet.stream = copied
                target.mux(packet)
    frames, reader = read(path)
    assert reader.broken is None
    assert reader.frame_count == len(frames) == 9
    np.testing.assert_allclose(frames[0].mean(), read(whole)[0][6].mean(), atol=2)


def test_all_frames_have_the_size_of_the_first(tmp_path):
    """The frame size may change within a stream of JPEG images."""
    path = tmp_path / "a.mjpeg"
    with path.open("wb") as file:
        for size in ((64, 48), (32, 24), (64, 48)):
            Image.fromarray(ramp(0, size)).save(file, "JPEG")
    frames, reader = read(path)
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 3
    assert reader.size == (64, 48)


@pytest.mark.parametrize("kept", [0.3, 0.8])
def test_a_truncated_video_gives_the_frames_before_the_cut(tmp_path, kept):
    whole = avi(tmp_path / "whole.avi")
    assert read(whole)[1].broken is None
    cut = tmp_path / "cut.avi"
    data = whole.read_bytes()
    cut.write_bytes(data[: int(kept * len(data))])
    frames, reader = read(cut)
    assert 0.5 < len(frames) / (60 * kept) < 1.05
    assert "cut short" in reader.broken
    assert reader.frame_count == 60


def test_a_video_cut_between_frames_is_detected_from_its_length(tmp_path):
    """An MP4 file with its index at the start, cut after a frame: remaining frames are valid."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=25, options={"tune": "zerolatency"})
        stream.width, stream.height = 64, 48
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(ramp(number, (64, 48)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        end = packets[9].pos + packets[9].size
    path.write_bytes(path.read_bytes()[:end])
    frames, reader = read(path)
    assert len(frames) == 10
    assert reader.broken == "cut short (0.4 s of 0.8 s)"


def no_video(folder):
    """Files that are no videos, and a part of each error message."""
    (folder / "empty.mp4").touch()
    yield folder / "empty.mp4", "not a video"
    (folder / "text.mp4").write_text("This is no video.\n" * 100)
    yield folder / "text.mp4", "not a video"
    (folder / "text.txt").write_text("FFmpeg decodes text as terminal output.\n" * 100)
    yield folder / "text.txt", "not a video"
    yield sound(folder / "sound.wav"), "no video stream"
    yield folder / "missing.mp4", "No such file"
    yield folder, "Is a directory"
    index_cut = written(folder / "cut.mp4")
    index_cut.write_bytes(index_cut.read_bytes()[:-200])
    yield index_cut, "not a video"


def test_a_file_that_is_no_video_is_an_error_with_file_and_cause(tmp_path):
    for path, cause in no_video(tmp_path):
        with pytest.raises(RednetError, match=cause) as caught:
            VideoReader(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_exception_leaves_the_existing_file(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"before")
    for error in (KeyboardInterrupt, RednetError):
        with pytest.raises(error), write_video(path, 25, (64, 48)) as write:
            write(ramp(0, (64, 48)))
            raise error
    with pytest.raises(ValueError, match="64 x 48"), write_video(path, 25, (64, 48)) as write:
        write(ramp(0, (48, 64)))
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_a_video_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "a.mp4"):
        with pytest.raises(RednetError, match="cannot be written") as caught:
            written(path)
        assert str(path) in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_uneven_times_are_kept(tmp_path):
    """To 0.1 ms, although they are no multiples of the frame interval."""
    times = [0.0, 0.04, 0.05, 0.2345, 1.0, 1.0033]
    with write_video(tmp_path / "a.mp4", 25, (64, 48)) as write:
        for number, seconds in enumerate(times):
            write(ramp(number, (64, 48)), seconds)
    with VideoReader(tmp_path / "a.mp4") as reader:
        frames = list(reader)
    np.testing.assert_allclose([frame.seconds for frame in frames], times, atol=1e-4)
    assert [round(frame.image[:, :30].mean(), -1) for frame in frames] == [40, 50, 60, 70, 80, 90]


def test_times_that_do_not_increase_are_corrected(tmp_path):
    with write_video(tmp_path / "a.mp4", 25, (64, 48)) as write:
        for seconds in (0.0, 0.04, 0.04, 0.02, 0.08):
            write(ramp(0, (64, 48)), seconds)
    with VideoReader(tmp_path / "a.mp4") as reader:
        times = [frame.seconds for frame in reader]
    assert len(times) == 5
    assert (np.diff(times) > 0).all()


@pytest.mark.parametrize("options", [{}, {"duration": 0}, {"duration": 0, "loop": 0}])
@pytest.mark.parametrize("side", [8, 200])
def test_a_gif_without_delays_has_ten_frames_a_second(tmp_path, side, options):
    path = tmp_path / "still.gif"
    noise = np.random.default_rng(0).integers(256, size=(6, side, side, 3), dtype=np.uint8)
    images = [Image.fromarray(image) for image in noise]
    images[0].save(path, save_all=True, append_images=images[1:], **options)
    with VideoReader(path) as video:
        frames = list(video)
    assert video.broken is None
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    with Image.open(path) as stored:
        for number, frame in enumerate(frames):
            stored.seek(number)
            np.testing.assert_array_equal(frame.image, np.asarray(stored.convert("RGB")))


def test_a_missing_camera_is_an_error():
    with pytest.raises(RednetError, match=r"^camera 97: cannot be opened \(.+\)$"):
        VideoReader(97)
