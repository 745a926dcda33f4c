"""Faults that mutated inputs revealed, each with a minimal input."""

from __future__ import annotations

import io
import json
import math

import av
import numpy as np
import pytest
from PIL import Image

from rednet_jax.data.builders.label_files import read_labels
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.builtin import REDNET7, load_scheme
from rednet_jax.landmarks.pts import read_pts
from rednet_jax.landmarks.table import read_landmarks_csv
from rednet_jax.media.images import read_image
from rednet_jax.media.video import VideoReader, write_video
from rednet_jax.reading import DEEPEST_JSON, parse_json
from rednet_jax.train.report import write_report
from rednet_jax.train.watch import read_rows


def test_a_message_is_one_printable_line():
    error = RednetError("a.json: 'x\nfirst\x1b[31m\x07' is no scheme")
    assert str(error) == r"a.json: 'x first\x1b[31m\x07' is no scheme"
    assert len(str(RednetError("a.json: " + "x" * 100_000 + ": no scheme"))) < 1600
    assert str(RednetError("b" * 100_000 + ": no scheme")).endswith("b: no scheme")


def test_a_long_value_is_shortened_in_the_message(tmp_path):
    (tmp_path / "a.pts").write_text(f"n_points: {'9' * 40_000}\n{{\n1 2\n}}\n")
    with pytest.raises(RednetError) as caught:
        read_pts(tmp_path / "a.pts")
    assert len(str(caught.value)) < 1600 and str(tmp_path) in str(caught.value)


def test_a_weight_that_overflows_a_float(tmp_path):
    plain = {**REDNET7.to_json(), "name": "mine"}
    plain["conversions"] = {"ibug68": [[[0, 10**400]]] * 7}
    (tmp_path / "a.json").write_text(json.dumps(plain))
    with pytest.raises(RednetError, match="neither an index nor a list"):
        load_scheme(tmp_path / "a.json")


def test_json_is_limited_in_depth_and_digits():
    deepest = "[" * DEEPEST_JSON + "]" * DEEPEST_JSON
    assert parse_json(deepest) is not None
    for text in (f"[{deepest}]", "[" * 100_000, '{"a":' * 50_000):
        with pytest.raises(ValueError):
            parse_json(text)
    assert parse_json("[12345678901234567890, 1e999]") == [12345678901234567890, math.inf]
    assert parse_json("1" + "0" * 4000) == math.inf


def test_a_table_without_coordinates(tmp_path):
    (tmp_path / "a.csv").write_text("name\na\nb\n")
    with pytest.raises(RednetError, match="the first line is not name,x0,y0"):
        read_landmarks_csv(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b"], ids=["long", "zero byte"])
def test_a_name_that_the_file_system_does_not_allow(name, tmp_path):
    (tmp_path / "a.csv").write_text(f"name,x0,y0\n{name},1,2\n")
    with pytest.raises(RednetError, match="no labelled image"):
        read_labels(tmp_path, tmp_path / "a.csv", None)


def test_an_error_of_a_reader_of_pillow(tmp_path):
    """Pillow raises NotImplementedError for an unknown pixel format."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "DDS")
    data = bytearray(file.getvalue())
    data[80:84] = bytes(4)
    (tmp_path / "a.dds").write_bytes(data)
    with pytest.raises(RednetError, match=r"a\.dds: cannot be read"):
        read_image(tmp_path / "a.dds", upright=True)


def test_a_video_stream_without_decoder(tmp_path):
    file = io.BytesIO()
    with av.open(file, "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 48
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 48, 3), np.uint8))
        container.mux([*stream.encode(frame.reformat(format="yuv420p")), *stream.encode(None)])
    unknown = file.getvalue().replace(b"FMP4", b"ZZZZ")
    assert unknown != file.getvalue()
    (tmp_path / "a.avi").write_bytes(unknown)
    with pytest.raises(RednetError, match="no decoder for its video stream"):
        VideoReader(tmp_path / "a.avi")


def test_a_video_that_is_too_large(tmp_path):
    with write_video(tmp_path / "a.mp4", 25, (48, 48)) as write:
        write(np.zeros((48, 48, 3), np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rednet_jax.media.video.LARGEST", 2000)
        with pytest.raises(RednetError, match="48 x 48 pixels, more than"):
            VideoReader(tmp_path / "a.mp4")


def test_a_title_that_is_not_utf_8(tmp_path):
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        container.metadata["title"] = "abcdefgh"
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 48
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 48, 3), np.uint8))
        container.mux([*stream.encode(frame.reformat(format="yuv420p")), *stream.encode(None)])
    foreign = file.getvalue().replace(b"abcdefgh", b"abc\xb0\xffgh.")
    assert foreign != file.getvalue()
    (tmp_path / "a.mp4").write_bytes(foreign)
    with VideoReader(tmp_path / "a.mp4") as video:
        assert len(list(video)) == 1


def test_a_run_with_metrics_that_are_not_numbers(tmp_path):
    stage = {"name": "images", "steps": 9, "data": {}, "losses": {}}
    (tmp_path / "config.json").write_text(json.dumps({"name": "tiny", "stages": [stage]}))
    rows = [
        {"step": 1, "loss": [3.0]},
        {"step": "2", "loss": 2.0},
        {"step": 3, "validation_nme": []},
        {"step": 4, "validation_nme": 5.0},
        {"step": 5, "loss": 1.5},
        ["step"],
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 5]
    assert "step 5 of 9" in write_report(tmp_path).read_text()


@pytest.mark.parametrize("change", [{"steps": "9"}, {"data": []}], ids=["steps", "data"])
def test_a_run_with_a_config_of_wrong_types(change, tmp_path):
    stage = {"name": "images", "steps": 9, "data": {}, "losses": {}, **change}
    (tmp_path / "config.json").write_text(json.dumps({"name": "tiny", "stages": [stage]}))
    with pytest.raises(RednetError, match="not the config of a run"):
        write_report(tmp_path)
