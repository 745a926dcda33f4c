"""What commands print, write and return as exit status."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from rednet_jax import quickstart as quickstart_module
from rednet_jax.bench import scan
from rednet_jax.data.prepare import prepare
from rednet_jax.errors import RednetError
from rednet_jax.inference import track_file
from rednet_jax.inference.aligner import Aligner
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.pts import write_pts
from rednet_jax.landmarks.table import read_landmarks_csv
from rednet_jax.quickstart import Quickstart, portrait_path
from rednet_jax.train import demonstration, loop
from rednet_jax.weights.store import load, write_torch_weights

PORTRAIT = str(portrait_path())


def test_align_uses_every_box_of_a_boxes_file_by_default(here, run, checkpoint):
    rows = ["A,175,80,270,180", "A,170,75,275,185", "A,165,70,280,190"]
    Path("boxes.csv").write_text("\n".join(["name,x0,y0,x1,y1", *rows]) + "\n")
    shutil.copy(portrait_path(), "A.png")
    words = ("align", "A.png", "--checkpoint", checkpoint, "--boxes", "boxes.csv")
    for options, count in (((), 3), (("--faces", "2"), 2), (("--faces", "all"), 3)):
        status, out, errors = run(*words, *options)
        assert (status, errors) == (0, [])
        assert [row[:4] for row in out.splitlines()[1:]] == [f"A,{n}," for n in range(count)]


def test_quickstart_prints_the_tracking_results_if_training_fails(here, run, monkeypatch):
    names = ("overlay.png", "track.mp4", "track.webp", "points.csv")
    result = Quickstart([], *map(Path, names))
    monkeypatch.setattr(quickstart_module, "quickstart", lambda out, **options: result)

    def fail(folder):
        raise RednetError("smoke: training failed (no memory)")

    monkeypatch.setattr(demonstration, "demonstrate", fail)
    status, out, errors = run("quickstart")
    assert (status, errors) == (1, ["rednet: smoke: training failed (no memory)"])
    assert "overlay.png" in out and "rednet align" in out and "resumed" not in out


def test_align_prints_the_table_or_writes_it(checkpoint, here, run):
    status, out, errors = run("align", PORTRAIT, "--checkpoint", checkpoint)
    assert (status, errors) == (0, [])
    assert (
        out.splitlines()[0].startswith("name,face,score,confidence,x0,")
        and len(out.splitlines()) == 2
    )
    outputs = "--csv", "a.csv", "--overlay", "drawn"
    status, summary, errors = run("align", PORTRAIT, "--checkpoint", checkpoint, *outputs)
    assert (status, errors) == (0, [])
    assert summary == "1 face in 1 of 1 images: a.csv and drawn\n"
    assert (here / "a.csv").read_text() == out
    assert [path.name for path in (here / "drawn").iterdir()] == ["astronaut.png"]


def test_align_prints_json(checkpoint, here, run):
    command = "align", PORTRAIT, "--checkpoint", checkpoint
    status, out, errors = run(*command, "--json", "-")
    assert (status, errors) == (0, [])
    (image,) = json.loads(out)["images"]
    assert image["name"] == "astronaut" and len(image["faces"]) == 1
    status, table, errors = run(*command, "--json", "a.json", "--csv", "-")
    assert (status, errors, len(table.splitlines())) == (0, [], 2)
    assert (here / "a.json").read_text() == out
    status, out, errors = run(*command, "--json", "-", "--csv", "-")
    assert (status, out) == (2, "")
    assert errors == ["rednet: --csv and --json cannot both go to standard output"]
    assert [path.name for path in here.iterdir()] == ["a.json"]


def test_one_bad_image_among_good_ones_is_status_1(checkpoint, here, run):
    (here / "bad.png").touch()
    status, out, errors = run(
        "align", "bad.png", PORTRAIT, "--checkpoint", checkpoint, "--csv", "a.csv"
    )
    assert status == 1
    assert errors == ["rednet: bad.png: not an image that can be read"]
    assert out == "1 face in 1 of 2 images: a.csv\n"
    _, landmarks = read_landmarks_csv(here / "a.csv")
    np.testing.assert_array_equal(np.isnan(landmarks[:, 0, 0]), [True, False])


def test_a_file_named_with_a_number_is_not_a_camera(checkpoint, grey_video, here, run):
    (here / "0001").write_bytes(Path(grey_video).read_bytes())
    status, _, errors = run("track", "0001", "--checkpoint", checkpoint, "--landmarks", "a.csv")
    assert (status, errors) == (1, ["rednet: 0001: no face found in 5 frames"])


def test_standard_output_has_only_the_data(checkpoint, grey_video, here, run):
    words = ("track", grey_video, "--checkpoint", checkpoint, "--jsonl", "-", "--out", "a.mp4")
    status, out, errors = run(*words)
    frames = [json.loads(line)["frame"] for line in out.splitlines()]
    assert (status, frames) == (1, [1, 2, 3, 4, 5])
    assert errors[0].startswith("a face in 0 of 5 frames") and errors[0].endswith(": a.mp4")


def test_a_video_without_a_face_is_status_1(checkpoint, grey_video, here, run):
    status, out, errors = run("track", grey_video, "--checkpoint", checkpoint)
    assert status == 1
    assert errors == [f"rednet: {grey_video}: no face found in 5 frames"]
    assert out.startswith("a face in 0 of 5 frames, ")
    assert len((here / "grey_landmarks.csv").read_text().splitlines()) == 6
    assert (here / "grey_landmarks.mp4").is_file()


def test_eval_prints_and_writes_its_figures(checkpoint, here, run):
    """On black images with the names of the split's images."""
    points = IBUG68.shape * 80 + 100
    names = "ibug/a", "ibug/b", "ibug/c"
    (here / "tree/ibug").mkdir(parents=True)
    for name in names:
        Image.new("RGB", (200, 200)).save(here / f"tree/{name}.jpg")
        write_pts(here / f"tree/{name}.pts", points)
    prepare("300w", here / "tree", here / "data")
    command = "eval", checkpoint, "--data", "300w", "--split", "challenging", "--data-dir", "data"
    rest = "--feedback-steps", "1,2", "--predictions", "points.csv", "--json"
    status, out, errors = run(*command, *rest, "a.json")
    assert (status, errors) == (0, [])
    written = json.loads((here / "a.json").read_text())
    assert written["images"] == 3
    assert [row["feedback_steps"] for row in written["per_step"]] == [1, 2]
    lines = out.splitlines()
    assert "images 3" in lines and f"nme {written['per_step'][1]['nme']:.4g}" in lines[-1]
    assert read_landmarks_csv(here / "points.csv")[0] == list(names)
    status, out, errors = run(*command, *rest, "-", "--plot", "ced.png")
    assert (status, errors, json.loads(out)) == (0, [], written)
    assert Image.open(here / "ced.png").format == "PNG"
    of_file = "eval", "--predictions-in", "points.csv", *command[2:], "--json", "b.json"
    status, out, errors = run(*of_file)
    assert (status, errors) == (0, [])
    (scored,), row = json.loads((here / "b.json").read_text())["per_step"], written["per_step"][1]
    assert scored["nme"] == pytest.approx(row["nme"], rel=1e-4)
    assert out.splitlines()[-1].startswith(f"nme {scored['nme']:.4g} [")
    (here / "points.csv").write_text((here / "points.csv").read_text().replace("ibug/b", "ibug/z"))
    status, out, errors = run(*of_file)
    assert (status, out) == (2, "")
    assert errors == ["rednet: points.csv: not in 300w challenging: 'ibug/z'"]


def test_train_passes_folder_steps_and_fields(here, run, monkeypatch):
    (here / "tiny.py").write_text(
        "from rednet_jax.model.config import RedNetConfig\n"
        "from rednet_jax.train.experiment import Experiment\n"
        "experiment = Experiment(name='tiny', model=RedNetConfig.preset('compact'))\n"
    )
    calls = []
    monkeypatch.setattr(loop, "train", lambda *args, **options: calls.append((args, options)))
    words = "--stop-after", 7, "--batch", 6, "--optimiser.learning-rate=1e-3", "--seed", 5
    words += "--mesh", "data=3,fsdp=2", "--from-step", 4, "--parallel", "pmap"
    assert run("train", "tiny.py", *words)[0] == 0
    assert run("train", "tiny.py", "--run-dir", "r", "--data-dir", "d")[0] == 0
    (experiment, folder), options = calls[0]
    (stage,) = experiment.stages
    assert (stage.batch, experiment.seed, stage.optimiser.learning_rate) == (6, 5, 1e-3)
    assert (experiment.mesh.data, experiment.mesh.fsdp) == (3, 2)
    assert str(folder) == "runs/tiny"
    assert options == {
        "data_dir": None,
        "stop_after": 7,
        "parallel": "pmap",
        "init_from": None,
        "from_step": 4,
        "fresh": (),
        "profile": 0,
    }
    (_, folder), options = calls[1]
    assert (str(folder), str(options["data_dir"]), options["stop_after"]) == ("r", "d", None)
    assert (options["parallel"], options["from_step"]) == ("jit", None)
    assert run("train", "tiny.py", "--parallel", "pjit")[0] == 2
    for mesh in ("data", "data=x", "model=2", "data=2;fsdp=2"):
        assert run("train", "tiny.py", "--mesh", mesh)[0] == 2


def test_report_writes_a_page_and_prints_its_path(here, run):
    (here / "runs").mkdir()
    stage = {"name": "images", "steps": 5, "data": {}, "losses": {}}
    (here / "runs/config.json").write_text(json.dumps({"name": "tiny", "stages": [stage]}))
    status, out, errors = run("report", "runs")
    assert (status, out, errors) == (0, "runs/report.html\n", [])
    assert "step 0 of 5" in (here / "runs/report.html").read_text()


@pytest.mark.usefixtures("noise_faces")
def test_export_writes_and_prints_the_difference(checkpoint, here, run):
    words = "--to", "safetensors", "--out", "out", "--dtype", "float16"
    status, out, errors = run("export", checkpoint, *words)
    assert (status, errors) == (0, [])
    written = json.loads((here / "out" / "export.json").read_text())
    assert out == (
        "out/tiny.safetensors\n"
        f"{written['points']} landmarks differ by at most {written['max_difference_px']:.3g} crop "
        "pixels\n"
    )


def test_import_lists_every_array(checkpoint, here, run):
    config, variables = load(checkpoint)
    write_torch_weights("theirs.safetensors", config, variables, feedback_steps=1)
    status, out, errors = run("import", "theirs.safetensors", "--out", "ours.safetensors")
    assert (status, errors) == (0, [])
    *arrays, last = out.splitlines()
    count = len(jax.tree.leaves(variables))
    assert len(arrays) == count
    assert last == (
        f"ours.safetensors: compact, {count} arrays matched, 0 not used, 0 initialised at random"
    )
    jax.tree.map(np.testing.assert_array_equal, variables, load("ours.safetensors")[1])


def test_bench_prints_what_it_measures(here, run, monkeypatch):
    result = {"device": "cpu", "step_ms": 4.56789, "memory_mb": float("nan")}
    monkeypatch.setattr(scan, "bench_scan", lambda: result)
    status, out, errors = run("bench", "scan", "--json", "a.json")
    assert (status, errors) == (0, [])
    assert out == "device cpu\nstep_ms 4.568\nmemory_mb nan\n"
    assert json.loads((here / "a.json").read_text()) == {**result, "memory_mb": None}
    assert run("bench", "scan", "--json", "-")[1] == (here / "a.json").read_text()


def test_sigterm_is_one_error_line(checkpoint, here, run, monkeypatch):
    Image.new("RGB", (200, 200)).save(here / "a.png")
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Aligner, "align", lambda *_: signal.raise_signal(signal.SIGTERM))
    status, out, errors = run("align", "a.png", "--checkpoint", checkpoint, "--csv", "a.csv")
    assert (status, out, errors) == (130, "", ["rednet: interrupted"])
    assert [path.name for path in here.iterdir()] == ["a.png"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_ctrl_c_is_one_error_line(checkpoint, grey_video, here, run, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(track_file, "draw_landmarks", interrupted)
    monkeypatch.setattr(track_file.Tracker, "update", interrupted)
    status, out, errors = run("track", grey_video, "--checkpoint", checkpoint)
    assert (status, out, errors) == (130, "", ["rednet: interrupted"])
    assert list(here.iterdir()) == []
