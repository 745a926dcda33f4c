"""The installed command in a process of its own, with its files and messages."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import jax
import numpy as np
import pytest

from rednet_jax.evaluate.metrics import face_errors
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.crops import apply_affine
from rednet_jax.landmarks.pts import read_pts
from rednet_jax.landmarks.table import read_landmarks_csv
from rednet_jax.media.video import VideoReader
from rednet_jax.model.rednet import init
from rednet_jax.quickstart import FRAMES, portrait_clip, portrait_path
from rednet_jax.train.demonstration import MESH, RESUMED, STOPPED
from rednet_jax.weights.store import released, write_weights

REDNET = Path(sys.executable).with_name("rednet")

needs_weights = pytest.mark.skipif(
    "compact" not in released(), reason="the weights 'compact' are not released yet"
)


def rednet(*words, cwd) -> subprocess.CompletedProcess[str]:
    command = [str(REDNET), *(str(word) for word in words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def checkpoint(narrow, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    config = narrow("compact")
    write_weights(path, config, init(config, jax.random.key(0)))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """An AVI file of JPEG images that repeats the moving portrait eight times."""
    path = tmp_path_factory.mktemp("clip") / "clip.avi"
    frames, _ = portrait_clip()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=24)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuvj420p"
        for frame in np.concatenate([frames] * 8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode(None))
    return path


def test_a_truncated_video_keeps_its_frames_and_is_status_1(checkpoint, clip, tmp_path):
    data = clip.read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 10])
    done = rednet("track", "cut.avi", "--checkpoint", checkpoint, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    count = int(
        re.fullmatch(r"rednet: cut.avi: .*; the (\d+) frames that could be read are kept", line)[1]
    )
    assert 20 < count < 40
    names, _ = read_landmarks_csv(tmp_path / "cut_landmarks.csv")
    assert names == [str(n + 1) for n in range(count)]
    with VideoReader(tmp_path / "cut_landmarks.mp4") as video:
        assert len(list(video)) == count


def test_an_invalid_video_is_one_error_line_and_status_2(checkpoint, tmp_path):
    (tmp_path / "text.mp4").write_text("This is no video.\n")
    done = rednet("track", "text.mp4", "--checkpoint", checkpoint, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "rednet: text.mp4: not a video, or its index is cut off\n"
    assert done.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["text.mp4"]


@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM))
def test_ctrl_c_and_sigterm_leave_complete_outputs(checkpoint, clip, tmp_path, number):
    command = [str(REDNET), "track", str(clip), "--checkpoint", str(checkpoint)]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    (line,) = errors.splitlines()
    count = int(
        re.fullmatch(rf"rednet: {clip}: interrupted; the (\d+) frames before are kept", line)[1]
    )
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{clip.stem}_landmarks.mp4",
        f"{clip.stem}_landmarks.csv",
    }
    names, _ = read_landmarks_csv(tmp_path / f"{clip.stem}_landmarks.csv")
    with VideoReader(tmp_path / f"{clip.stem}_landmarks.mp4") as video:
        assert len(list(video)) == len(names) == count


def test_standard_output_that_fails_is_one_line_at_most(checkpoint, clip, tmp_path):
    words = f"{REDNET} track {clip} --checkpoint {checkpoint} --jsonl -"

    def shell(command):
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    alone = shell(f"{words} | head -c 20")
    assert (alone.returncode, alone.stdout, alone.stderr) == (1, '{"frame": 1, "second', "")
    drawn = shell(f"{words} --out a.mp4 | head -c 20")
    (line,) = drawn.stderr.splitlines()
    assert drawn.returncode == 0 and line.endswith(": a.mp4")
    full = shell(f"{words} --out b.mp4 > /dev/full")
    assert full.returncode == 1
    assert full.stderr.splitlines()[-1] == (
        "rednet: standard output: cannot be written (No space left on device)"
    )
    assert len(full.stderr.splitlines()) == 2
    for name in ("a.mp4", "b.mp4"):
        with VideoReader(tmp_path / name) as video, VideoReader(clip) as source:
            assert len(list(video)) == len(list(source))
    full = shell(f"{words} > /dev/full")
    assert (full.returncode, len(full.stderr.splitlines())) == (2, 1)


@needs_weights
def test_quickstart(tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = rednet("quickstart", "--out", "shown", cwd=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # CPU time, so that other processes do not matter: 90 s on two cores.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2 * 90
    assert (done.returncode, done.stderr) == (0, "")
    rows = re.findall(r"^ (\d) +(\d+) +([\d.]+) +([\d.]+)$", done.stdout, re.M)
    assert [(int(k), int(count)) for k, count, _, _ in rows] == [(k, FRAMES) for k in (1, 2, 3)]
    for _, _, milliseconds, jitter in rows:
        assert 0 < float(milliseconds) < 200
        assert 0 < float(jitter) < 3
    for name in ("overlay.png", "track.mp4", "track.webp", "landmarks.csv"):
        assert (tmp_path / "shown" / name).stat().st_size > 0
        assert f"shown/{name}" in done.stdout
    _, landmarks = read_landmarks_csv(tmp_path / "shown" / "landmarks.csv")
    _, motion = portrait_clip()
    in_portrait = apply_affine(motion, landmarks)
    # The centres of the eyes and of the mouth in the portrait, labelled by hand.
    for members, centre in [
        (slice(36, 42), (204, 101)),
        (slice(42, 48), (248, 104)),
        (slice(48, 60), (224, 146)),
    ]:
        assert np.abs(in_portrait[:, members].mean(1) - centre).max() < 6
    run = tmp_path / "shown" / "smoke"
    assert f"resumed at step {STOPPED} from disk\nshown/smoke: report.html" in done.stdout
    assert json.loads((run / "config.json").read_text())["mesh"] == MESH
    starts = (run / "environment.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in starts] == [0, STOPPED]
    trained = re.findall(r"^ +(\d+) +([\d.]+) +([\d.]+)$", done.stdout, re.M)
    assert [int(step) for step, _, _ in trained] == [STOPPED, RESUMED]
    assert (run / "checkpoints" / str(RESUMED)).is_dir()
    assert (run / "report.html").is_file()


@needs_weights
def test_align_by_default(tmp_path):
    done = rednet("align", portrait_path(), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(",")[0] for line in done.stdout.splitlines()] == ["name", "astronaut"]


@needs_weights
@pytest.mark.parametrize("name", ["lbbc2a/vid.mpg", "changeLighting/vid.wmv"])
def test_real_faces_are_tracked(real_data, tmp_path, name):
    video = real_data / "clips" / name
    done = rednet("track", video, "--landmarks", "points.csv", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    frames, landmarks = read_landmarks_csv(tmp_path / "points.csv")
    truth = np.full_like(landmarks, np.nan)
    for row, frame in enumerate(frames):
        label = video.parent / "annot" / f"{int(frame):06d}.pts"
        if label.is_file():
            truth[row] = read_pts(label)
    errors = face_errors(landmarks, truth, IBUG68)
    assert np.isfinite(errors).mean() > 0.9
    assert np.nanmean(errors) < 5
