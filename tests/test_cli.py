"""The command line: what is wrong ends with status 2 and one line, what failed in part with 1."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from rednet_jax import cli
from rednet_jax import quickstart as quickstart_module
from rednet_jax.bench import scan
from rednet_jax.data.prepare import prepare
from rednet_jax.errors import RednetError
from rednet_jax.inference import track_file
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.pts import write_pts
from rednet_jax.landmarks.table import read_landmarks_csv
from rednet_jax.media.video import write_video
from rednet_jax.model.rednet import init
from rednet_jax.quickstart import Quickstart, portrait_path
from rednet_jax.train import demonstration, loop
from rednet_jax.weights.store import load, write_torch_weights, write_weights

ROOT = Path(__file__).parents[1]
PORTRAIT = str(portrait_path())


@pytest.fixture(scope="module")
def checkpoint(narrow, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    config = narrow("compact")
    write_weights(path, config, init(config, jax.random.key(0)))
    return str(path)


@pytest.fixture(scope="module")
def grey_video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "grey.mp4"
    with write_video(path, 20, (160, 120)) as write:
        for _ in range(5):
            write(np.full((120, 160, 3), 128, np.uint8))
    return str(path)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capfd):
    """Runs a command line; returns (status, standard output, lines on standard error)."""

    def run(*words):
        capfd.readouterr()
        status = cli.main([str(word) for word in words])
        out, err = capfd.readouterr()
        return status, out, err.splitlines()

    return run


# Command lines that nothing can be made of, and what is said of them. `W` is a good checkpoint,
# `V` a good video, `P` a good image; the other files are made by `bad_files`.
WRONG = {
    "no command": ("", "COMMAND"),
    "unknown command": ("fly", "'fly'"),
    "unknown option": ("align P --colour red", "--colour red"),
    "no image named": ("align", "IMAGE"),
    "option without value": ("align P --csv", "--csv"),
    "K is no number": ("track V --feedback-steps two", "'two'"),
    "K is 0, align": ("align P --checkpoint W --feedback-steps 0 --csv a.csv", "not 0"),
    "K is 0, track": ("track V --checkpoint W --feedback-steps 0", "not 0"),
    "K is -1, track": ("track V --checkpoint W --feedback-steps -1", "not -1"),
    "K is 0, eval": ("eval W --data 300w --split validation --data-dir . --feedback-steps 0", "0"),
    "Ks are no numbers": ("eval W --data 300w --split full --feedback-steps 1,x", "'1,x'"),
    "text as video": ("track text.mp4 --checkpoint W", "text.mp4: not a video"),
    "empty video": ("track empty.mp4 --checkpoint W", "empty.mp4: not a video"),
    "video without its index": ("track cut.mp4 --checkpoint W", "cut.mp4: not a video"),
    "sound as video": ("track sound.wav --checkpoint W", "sound.wav: has no video stream"),
    "missing video": ("track none.mp4 --checkpoint W", "none.mp4: cannot be read"),
    "empty image": ("align empty.png --checkpoint W --csv a.csv", "empty.png: not an image"),
    "missing image": ("align none.png --checkpoint W --overlay drawn", "none.png: cannot be"),
    "folder without image": ("align . --checkpoint W --csv a.csv", "no image in this folder"),
    "unknown checkpoint": ("align P --checkpoint nobody --csv a.csv", "nobody: no such"),
    "unknown checkpoint, track": ("track V --checkpoint nobody", "nobody: no such"),
    "unknown checkpoint, quickstart": ("quickstart --checkpoint nobody", "nobody: no such"),
    "unknown checkpoint, export": ("export nobody --to safetensors --out x", "nobody: no such"),
    "foreign checkpoint": ("align P --checkpoint foreign.safetensors", "foreign.safetensors"),
    "damaged checkpoint": ("track V --checkpoint damaged.safetensors", "damaged.safetensors"),
    "text as checkpoint": ("track V --checkpoint text.mp4", "text.mp4"),
    "folder as checkpoint": ("track V --checkpoint .", "no run with weights"),
    "unknown data set": ("eval W --data 400w --split full --data-dir .", "no data set '400w'"),
    "unknown split": ("eval W --data 300w --split half --data-dir .", "no split 'half'"),
    "data set not prepared": ("eval W --data 300w --split full --data-dir .", "is not prepared"),
    "nothing to measure": ("eval --data 300w --split full", "CHECKPOINT or --predictions-in"),
    "two things to measure": (
        "eval W --predictions-in a.csv --data 300w --split full",
        "checkpoint has no use beside --predictions-in",
    ),
    "boxes of predictions": (
        "eval --predictions-in a.csv --data 300w --split full --boxes jitter",
        "boxes has no use",
    ),
    "corrupted images": (
        "eval W --data 300w --split full --corrupt dark",
        "--corrupt is for clips, and 300w holds images",
    ),
    "unknown corruption": ("eval W --data 300vw --split a --corrupt fog", "corrupt.kind: 'fog'"),
    "corruption without strength": (
        "eval W --data 300vw --split a --corrupt dark:0",
        "corrupt.strength: must be 0.05 to 4, not 0",
    ),
    "corruption of predictions": (
        "eval --predictions-in a.csv --data 300vw --split a --corrupt dark",
        "corrupt has no use beside --predictions-in",
    ),
    "missing predictions": (
        "eval --predictions-in none.csv --data 300w --split full --data-dir .",
        "none.csv: cannot be read",
    ),
    "unknown normaliser": ("eval W --data 300w --split full --normaliser nose", "'nose'"),
    "boxes without header": ("align P --checkpoint W --boxes text.mp4", "text.mp4"),
    "boxes without area": ("align P --checkpoint W --boxes flat.csv", "flat.csv: line 2"),
    "missing boxes": ("align P --checkpoint W --boxes none.csv", "none.csv"),
    "missing experiment": ("train none.py", "none.py: no such experiment file"),
    "field without value": ("train none.py --batch", "--batch"),
    "field without name": ("train none.py batch 3", "batch"),
    "report of no run": ("report .", "no run's folder"),
    "unknown data set, show": ("data show 400w --data-dir .", "no data set '400w'"),
    "data set to show not prepared": ("data show 300w --data-dir .", "300w is not prepared"),
    "no sample to show": ("data show 300w --count 0 --data-dir .", "samples, not 0"),
    "unknown bench": ("bench speed", "'speed'"),
    "unknown file, import": ("import nobody.safetensors --out x", "nobody.safetensors: no such"),
    "unknown target": ("export W --to tarball --out x", "'tarball'"),
    "output is a folder": ("track V --checkpoint W --out .", "cannot be written"),
}


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory, checkpoint, grey_video):
    folder = tmp_path_factory.mktemp("bad")
    for name in ("empty.mp4", "empty.png"):
        (folder / name).touch()
    (folder / "text.mp4").write_text("This is no video.\n" * 100)
    wave = b"RIFF$\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00"
    wave += b"@\x1f\x00\x00@\x1f\x00\x00\x01\x00\x08\x00data\x00\x10\x00\x00" + b"\x80" * 4096
    (folder / "sound.wav").write_bytes(wave)
    (folder / "cut.mp4").write_bytes(Path(grey_video).read_bytes()[:-300])
    save_file({"a": np.zeros(3, np.float32)}, folder / "foreign.safetensors")
    (folder / "damaged.safetensors").write_bytes(Path(checkpoint).read_bytes()[:-1000])
    (folder / "flat.csv").write_text("name,x0,y0,x1,y1\nastronaut,5,5,5,9\n")
    return folder


@pytest.mark.parametrize("line", WRONG, ids=lambda line: line.replace(" ", "_"))
def test_what_is_wrong_is_one_line_and_status_2(
    line, bad_files, checkpoint, grey_video, here, run, monkeypatch
):
    monkeypatch.delenv("REDNET_JAX_DATA", raising=False)
    command, said = WRONG[line]
    given = {"W": checkpoint, "V": grey_video, "P": PORTRAIT}
    for path in bad_files.iterdir():
        given[path.name] = str(path)
    status, out, errors = run(*(given.get(word, word) for word in command.split()))
    assert status == 2
    assert len(errors) == 1, errors
    assert errors[0].startswith("rednet: ") and said in errors[0]
    assert out == ""
    assert list(here.iterdir()) == []


def help_of_commands(run, *words) -> dict[str, str]:
    """The help of every command below some words, as it is typed."""
    status, text, errors = run(*words, "--help")
    assert (status, errors) == (0, [])
    listed = re.search(r"^commands:\n.*\n((?:  .*\n)+)", text, re.M)
    if listed is None:
        return {" ".join(words): text}
    names = re.findall(r"^    (\S+)", listed[1], re.M)
    assert names
    return {
        name: one for word in names for name, one in help_of_commands(run, *words, word).items()
    }


def test_help_of_every_command_groups_its_options_and_has_an_example(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "10000")
    helps = help_of_commands(run)
    assert {"align", "data prepare", "bench torch"} <= set(helps)
    for command, text in helps.items():
        assert f"Example: rednet {command}" in text
        assert "\noptions:" not in text and "\ngeneral:" in text
        for option in re.findall(r"^  (--.*(?:\n {9,}.*)*)$", text, re.M):
            assert "(default: " in option or "(required" in option, f"{command}: {option}"


def test_version_names_what_a_report_of_a_fault_needs(run):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    status, out, errors = run("--version")
    assert (status, errors) == (0, [])
    devices = f"cpu x{jax.device_count()}"
    assert out == f"rednet_jax {project['version']} (jax {jax.__version__}, devices: {devices})\n"


def test_version_is_told_where_no_device_can_be_used(run, monkeypatch):
    def fail():
        raise RuntimeError("Unable to initialize backend 'tpu':\nno TPU")

    monkeypatch.setattr(jax, "devices", fail)
    status, out, errors = run("--version")
    assert (status, errors) == (0, [])
    assert out.endswith("devices: none (Unable to initialize backend 'tpu': no TPU))\n")


def test_a_quick_start_whose_training_fails_keeps_the_rest(here, run, monkeypatch):
    shown = Quickstart([], *(Path(name) for name in ("overlay.png", "track.mp4", "points.csv")))
    monkeypatch.setattr(quickstart_module, "quickstart", lambda out, **how: shown)

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
    where = "--csv", "a.csv", "--overlay", "drawn"
    status, told, errors = run("align", PORTRAIT, "--checkpoint", checkpoint, *where)
    assert (status, errors) == (0, [])
    assert told == "1 face in 1 of 1 images: a.csv and drawn\n"
    assert (here / "a.csv").read_text() == out
    assert [path.name for path in (here / "drawn").iterdir()] == ["astronaut.png"]


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


def test_a_file_whose_name_is_a_number_is_no_camera(checkpoint, grey_video, here, run):
    (here / "0001").write_bytes(Path(grey_video).read_bytes())
    status, _, errors = run("track", "0001", "--checkpoint", checkpoint, "--landmarks", "a.csv")
    assert (status, errors) == (1, ["rednet: 0001: no face found in 5 frames"])


def test_standard_output_holds_the_data_alone(checkpoint, grey_video, here, run):
    words = ("track", grey_video, "--checkpoint", checkpoint, "--jsonl", "-", "--out", "a.mp4")
    status, out, errors = run(*words)
    assert status == 1 and [json.loads(line)["frame"] for line in out.splitlines()] == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert errors[0].startswith("a face in 0 of 5 frames") and errors[0].endswith(": a.mp4")


def test_a_video_without_a_face_is_status_1(checkpoint, grey_video, here, run):
    status, out, errors = run("track", grey_video, "--checkpoint", checkpoint)
    assert status == 1
    assert errors == [f"rednet: {grey_video}: no face found in 5 frames"]
    assert out.startswith("a face in 0 of 5 frames, ")
    assert len((here / "grey_landmarks.csv").read_text().splitlines()) == 6
    assert (here / "grey_landmarks.mp4").is_file()


def test_eval_prints_and_writes_its_figures(checkpoint, here, run):
    """On black images that have the split's names."""
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


def test_train_hands_over_folder_steps_and_fields(here, run, monkeypatch):
    (here / "tiny.py").write_text(
        "from rednet_jax.model.config import RedNetConfig\n"
        "from rednet_jax.train.experiment import Experiment\n"
        "experiment = Experiment(name='tiny', model=RedNetConfig.preset('compact'))\n"
    )
    calls = []
    monkeypatch.setattr(loop, "train", lambda *args, **options: calls.append((args, options)))
    words = "--stop-after", 7, "--batch", 6, "--optimiser.learning-rate=1e-3", "--seed", 5
    words += "--mesh", "data=3,fsdp=2"
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
        "parallel": "jit",
        "init_from": None,
        "from_step": None,
        "fresh": (),
        "profile": 0,
    }
    (_, folder), options = calls[1]
    assert (str(folder), str(options["data_dir"]), options["stop_after"]) == ("r", "d", None)
    for mesh in ("data", "data=x", "model=2", "data=2;fsdp=2"):
        assert run("train", "tiny.py", "--mesh", mesh)[0] == 2


def test_report_writes_a_page_and_names_it(here, run):
    (here / "runs").mkdir()
    stage = {"name": "images", "steps": 5, "data": {}, "losses": {}}
    (here / "runs/config.json").write_text(json.dumps({"name": "tiny", "stages": [stage]}))
    status, out, errors = run("report", "runs")
    assert (status, out, errors) == (0, "runs/report.html\n", [])
    assert "step 0 of 5" in (here / "runs/report.html").read_text()


@pytest.mark.usefixtures("noise_faces")
def test_export_writes_and_tells_the_difference(checkpoint, here, run):
    words = "--to", "safetensors", "--out", "out", "--dtype", "float16"
    status, out, errors = run("export", checkpoint, *words)
    assert (status, errors) == (0, [])
    told = json.loads((here / "out" / "export.json").read_text())
    assert out == (
        "out/tiny.safetensors\n"
        f"{told['points']} landmarks differ by at most {told['max_difference_px']:.3g} crop "
        "pixels\n"
    )


def test_import_says_what_became_of_every_array(checkpoint, here, run):
    config, variables = load(checkpoint)
    write_torch_weights("theirs.safetensors", config, variables, feedback_steps=1)
    status, out, errors = run("import", "theirs.safetensors", "--out", "ours.safetensors")
    assert (status, errors) == (0, [])
    *arrays, last = out.splitlines()
    count = len(jax.tree.leaves(variables))
    assert len(arrays) == count
    assert last == (
        f"ours.safetensors: compact, {count} arrays matched, 0 not used, 0 drawn afresh"
    )
    jax.tree.map(np.testing.assert_array_equal, variables, load("ours.safetensors")[1])


def test_bench_prints_what_it_measures(here, run, monkeypatch):
    monkeypatch.setattr(scan, "bench_scan", lambda: {"device": "cpu", "step_ms": 4.56789})
    status, out, errors = run("bench", "scan", "--json", "a.json")
    assert (status, errors) == (0, [])
    assert out == "device cpu\nstep_ms 4.568\n"
    assert json.loads((here / "a.json").read_text()) == {"device": "cpu", "step_ms": 4.56789}


def test_ctrl_c_is_one_line(checkpoint, grey_video, here, run, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(track_file, "draw_landmarks", interrupted)
    monkeypatch.setattr(track_file.Tracker, "update", interrupted)
    status, out, errors = run("track", grey_video, "--checkpoint", checkpoint)
    assert (status, out, errors) == (130, "", ["rednet: interrupted"])
    assert list(here.iterdir()) == []
