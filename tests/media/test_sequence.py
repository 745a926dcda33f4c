"""Image files as frames in the order of their numbers; unreadable files are reported."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from rednet_jax.errors import RednetError
from rednet_jax.media.sequence import ImageSequence, MissingFrame, open_frames
from rednet_jax.media.video import VideoReader, write_video


def save(folder, name, grey, size=(32, 24)):
    folder.mkdir(exist_ok=True)
    Image.new("RGB", size, (grey, grey, grey)).save(folder / name)


def greys(source, **options):
    with open_frames(source, **options) as reader:
        return [(int(frame.image[0, 0, 0]), frame.seconds) for frame in reader], reader


def test_a_folder_is_read_in_the_order_of_the_numbers_in_its_names(tmp_path):
    for number in (10, 9, 1, 100):
        save(tmp_path / "seq", f"frame{number}.png", number)
    (tmp_path / "seq" / "notes.txt").write_text("no image")
    (tmp_path / "seq" / "._frame1.png").write_bytes(b"\0\5\26\7")
    frames, reader = greys(tmp_path / "seq")
    assert frames == [(1, 0.0), (9, 0.04), (10, 0.08), (100, 0.12)]
    assert (reader.size, reader.fps, reader.frame_count) == ((32, 24), Fraction(25), 4)
    assert reader.broken is None and not reader.live


@pytest.mark.parametrize("pattern", ("f_%04d.png", "f_%d.png"))
def test_a_pattern_is_read_in_the_order_of_the_numbers(tmp_path, pattern):
    for number in (2, 1, 7):
        save(tmp_path, f"f_{number:04d}.png", 10 * number)
    save(tmp_path, "g_0003.png", 200)
    save(tmp_path, "f_0003.png.png", 200)
    frames, _ = greys(tmp_path / pattern, fps=10)
    assert frames == [(10, 0.0), (20, 0.1), (70, 0.2)]


def test_an_existing_file_is_not_read_as_a_pattern(tmp_path):
    path = tmp_path / "at_%d.mp4"
    with write_video(path, 25, (32, 24)) as write:
        write(np.zeros((24, 32, 3), np.uint8))
    with open_frames(path) as reader:
        assert isinstance(reader, VideoReader)


@pytest.mark.parametrize("name", ("a.jpg", "a.png", "a.tif", "a.webp"))
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_the_same_alone_and_in_a_folder(tmp_path, portrait, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(portrait[:200]).save(tmp_path / name, exif=exif)
    (alone,), (in_folder,) = (list(open_frames(path)) for path in (tmp_path / name, tmp_path))
    np.testing.assert_array_equal(alone.image, in_folder.image)
    assert alone.seconds == in_folder.seconds == 0


def test_the_frames_of_an_animation_are_those_of_a_video(tmp_path):
    images = [Image.new("RGB", (32, 24), (50 * n,) * 3) for n in range(4)]
    images[0].save(tmp_path / "a.png", save_all=True, append_images=images[1:], duration=100)
    frames, reader = greys(tmp_path / "a.png")
    assert isinstance(reader, VideoReader)
    assert [grey for grey, _ in frames] == [0, 50, 100, 150]


def test_unreadable_images_keep_their_place_and_are_reported(tmp_path):
    for number in range(4):
        save(tmp_path, f"{number}.png", number)
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes(b"broken")
    reader = open_frames(tmp_path)
    first, *missing, last = list(reader)
    assert missing == [MissingFrame(1 / 25), MissingFrame(2 / 25)]
    assert (first.image[0, 0, 0], last.image[0, 0, 0]) == (0, 3)
    assert last.seconds == 3 / 25
    assert reader.broken == f"{tmp_path / '1.png'}: not an image that can be read (and 1 more)"


def test_images_are_resized_to_the_first_and_reported(tmp_path):
    save(tmp_path, "1.png", 50)
    with ImageSequence(tmp_path) as reader:
        assert len(list(reader)) == 1 and reader.resized is None
    for number in (2, 4):
        save(tmp_path, f"{number}.png", 90, size=(64, 60))
    save(tmp_path, "3.png", 50)
    with ImageSequence(tmp_path) as reader:
        assert [frame.image.shape for frame in reader] == [(24, 32, 3)] * 4
    assert reader.resized == (
        f"{tmp_path / '2.png'}: 64x60 px, resized to the 32x24 px of the first image, in which its "
        "landmarks are (and 1 more)"
    )
    assert reader.broken is None


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("", {}, "no image in this folder"),
        ("f_%d.png", {}, r"f_%d\.png: no image has such"),
        ("none/f_%d.png", {}, r"f_%d\.png: no image has such"),
        ("", {"fps": 0}, "fps: 0 is not a frame rate"),
        ("a.mp4", {"fps": 30}, "fps is only for images"),
    ],
)
def test_invalid_sources_and_options_are_errors(tmp_path, source, options, message):
    with pytest.raises(RednetError, match=message):
        open_frames(tmp_path / source, **options)


def test_an_empty_path_is_not_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RednetError, match="the path of the video is empty"):
        open_frames("")
