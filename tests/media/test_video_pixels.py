"""Pixel formats, frame sizes and colours of videos."""

from __future__ import annotations

import av
import numpy as np
import pytest
from media.encoded_video import HEIGHT, WIDTH, encoded, grey, read, steps
from PIL import Image

from rednet_jax.media.video import write_video

LIMITED, FULL = 1, 2
MATRICES = {"BT.601": (6, 0.299, 0.114), "BT.709": (1, 0.2126, 0.0722)}
"""FFmpeg's number of each matrix, and its weights of red and blue."""

PATCHES = np.array(
    [[220, 40, 40], [40, 200, 60], [30, 60, 220], [128, 128, 128], [250, 250, 250], [200, 150, 120]]
)


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
def test_every_pixel_format_is_read(tmp_path, name, codec, pixels):
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
def test_a_video_of_one_frame_is_read(tmp_path, name, codec, pixels):
    frames, reader = read(encoded(tmp_path / name, steps(1), codec, pixels))
    assert [frame.seconds for frame in frames] == [0]
    assert reader.broken is None


@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_a_still_image_is_read_as_a_video_of_one_frame(tmp_path, extension):
    path = tmp_path / f"a.{extension}"
    Image.fromarray(next(steps(1))).save(path)
    frames, reader = read(path)
    assert len(frames) == 1
    assert reader.broken is None


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
    """The mean colour of each patch of an image, without the edges."""
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
    """For a video without tags, the matrix depends on its size, as in players."""
    width, height = size
    rows = np.repeat(yuv(matrix, colour_range), width // len(PATCHES), axis=1)
    luma, *chroma = (
        np.repeat(row[None, ::step], height // step, 0)
        for row, step in zip(rows, (1, 2, 2), strict=True)
    )
    planes = np.concatenate([plane.ravel() for plane in (luma, *chroma)])
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        frame = av.VideoFrame.from_ndarray(planes.reshape(-1, width), format="yuv420p")
        if tagged:
            for target in (stream.codec_context, frame):
                target.colorspace, target.color_range = MATRICES[matrix][0], colour_range
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (frame,), _ = read(tmp_path / "a.mp4")
    np.testing.assert_allclose(patches(frame.image), PATCHES, atol=4)


@pytest.mark.parametrize(
    ("matrix", "width", "height"), [("BT.601", 96, 32), ("BT.709", 1296, 32), ("BT.709", 96, 720)]
)
def test_colours_are_written_with_tags_and_the_usual_matrix(tmp_path, matrix, width, height):
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
