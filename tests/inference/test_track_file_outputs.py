"""`track_file`: outputs that fail do not stop the others, and leave no partial files."""

from __future__ import annotations

import contextlib
import os
import re

import pytest

from rednet_jax.errors import RednetError
from rednet_jax.inference import track_file as module
from rednet_jax.inference.track_file import track_file
from rednet_jax.media.video import VideoReader


@contextlib.contextmanager
def standard_output(kind):
    """Context in which standard output is a pipe that nobody reads, or a file on a full disk."""
    if kind == "closed pipe":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open("/dev/full", os.O_WRONLY)
    file = os.fdopen(writer, "w")
    # Not in a fixture: pytest replaces standard output again before the test.
    with contextlib.redirect_stdout(file):
        yield
    with contextlib.suppress(OSError):
        file.close()


@pytest.mark.parametrize("kind", ("landmarks", "jsonl"))
def test_a_reader_that_ends_does_not_stop_the_other_outputs(network, video, tmp_path, kind):
    outputs = {"out": tmp_path / "a.mp4", "landmarks": tmp_path / "a", "jsonl": tmp_path / "b"}
    outputs[kind] = "-"
    with standard_output("closed pipe"):
        tracked = track_file(video, checkpoint=network, **outputs)
    assert (tracked.failures, tracked.frames) == ([], 12)
    assert tracked.files == [path for path in outputs.values() if path != "-"]
    with VideoReader(tmp_path / "a.mp4") as drawn:
        assert len(list(drawn)) == 12
    (other,) = set(outputs) - {"out", kind}
    assert len(outputs[other].read_text().splitlines()) == 12 + (other == "landmarks")


def test_tracking_ends_with_its_only_reader(network, video):
    done: list[int] = []
    with standard_output("closed pipe"), pytest.raises(BrokenPipeError):
        track_file(video, checkpoint=network, jsonl="-", report=lambda n, _: done.append(n))
    assert done == [1]
    with standard_output("closed pipe"), pytest.raises(BrokenPipeError):
        track_file(video, checkpoint=network, landmarks="-")


@pytest.mark.parametrize("kind", ("landmarks", "jsonl"))
def test_a_full_disk_of_standard_output_does_not_stop_the_others(network, video, tmp_path, kind):
    failure = "standard output: cannot be written (No space left on device)"
    with standard_output("full disk"):
        tracked = track_file(video, checkpoint=network, out=tmp_path / "a.mp4", **{kind: "-"})
    assert tracked.failures == [failure]
    assert tracked.files == [tmp_path / "a.mp4"]
    with VideoReader(tmp_path / "a.mp4") as drawn:
        assert len(list(drawn)) == 12
    message = "^" + re.escape(failure) + "$"
    with standard_output("full disk"), pytest.raises(RednetError, match=message):
        track_file(video, checkpoint=network, **{kind: "-"})


def test_an_error_leaves_no_outputs(network, video, tmp_path):
    def report(done, total):
        if done == 4:
            raise RednetError("broken")

    with pytest.raises(RednetError):
        track_file(
            video,
            checkpoint=network,
            out=tmp_path / "drawn.mp4",
            landmarks=tmp_path / "points.csv",
            jsonl=tmp_path / "faces.jsonl",
            report=report,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ("out", "landmarks", "jsonl"))
def test_an_unwritable_output_is_an_error_before_the_first_frame(network, video, tmp_path, kind):
    (tmp_path / "folder.mp4").mkdir()
    done: list[int] = []
    outputs = {"out": tmp_path / "a.mp4", "landmarks": tmp_path / "a", "jsonl": tmp_path / "b"}
    outputs[kind] = tmp_path / "folder.mp4"
    with pytest.raises(RednetError, match=r"folder\.mp4: cannot be written \(it is a folder\)"):
        track_file(
            video,
            checkpoint=network,
            **outputs,
            report=lambda count, total: done.append(count),
        )
    assert done == []
    assert [path.name for path in tmp_path.iterdir()] == ["folder.mp4"]


@pytest.mark.parametrize("kind", ("out", "landmarks", "jsonl"))
def test_an_output_that_fails_does_not_stop_the_others(network, video, tmp_path, kind):
    outputs = {"out": tmp_path / "a.mp4", "landmarks": tmp_path / "a", "jsonl": tmp_path / "b"}

    def report(done, total):
        if done == 3:
            outputs[kind].mkdir()
            (outputs[kind] / "file").touch()

    tracked = track_file(video, checkpoint=network, **outputs, report=report)
    (failure,) = tracked.failures
    assert failure.startswith(f"{outputs[kind]}: cannot be written (")
    kept = [path for name, path in outputs.items() if name != kind]
    assert tracked.files == kept and tracked.frames == 12
    assert all(path.is_file() for path in kept)
    assert len(list(tmp_path.iterdir())) == 3


def test_the_other_outputs_have_every_frame_after_one_has_failed(
    network, video, tmp_path, monkeypatch
):
    def draw(*arguments):
        raise RednetError("disk full")

    monkeypatch.setattr(module, "draw_landmarks", draw)
    drawn, lines = tmp_path / "a.mp4", tmp_path / "b.jsonl"
    tracked = track_file(video, checkpoint=network, out=drawn, jsonl=lines)
    assert tracked.failures == ["disk full"]
    assert tracked.files == [lines]
    assert len(lines.read_text().splitlines()) == 12
    assert list(tmp_path.iterdir()) == [lines]


def test_tracking_ends_when_no_output_is_left(network, video, tmp_path, monkeypatch):
    def full(*arguments):
        raise RednetError("disk full")

    done: list[int] = []
    monkeypatch.setattr(module, "draw_landmarks", full)
    with pytest.raises(RednetError, match="disk full"):
        track_file(
            video,
            checkpoint=network,
            out=tmp_path / "a.mp4",
            report=lambda count, total: done.append(count),
        )
    assert len(done) < 12
    assert list(tmp_path.iterdir()) == []
