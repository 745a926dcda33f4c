"""A small release: weights, figures and card are consistent."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import skimage.data
from PIL import Image
from train.miniature_300w import draw_300w

from rednet_jax.data.builders.tree_300w import validation_names
from rednet_jax.data.prepare import prepare
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.protocols import evaluate_split
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.drawing import write_image
from rednet_jax.landmarks.pts import write_pts
from rednet_jax.model.heads import scale_confidence
from rednet_jax.model.rednet import init
from rednet_jax.train.experiment import Experiment, Stage
from rednet_jax.weights.card import model_card
from rednet_jax.weights.store import load, parameter_count, released, write_weights

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
LINE = (1.25, -0.125)
"""Slope and intercept of the confidence."""

SCRIPT = runpy.run_path(str(EXPERIMENTS / "release.py"))


@pytest.fixture(scope="module")
def folder(narrow, tmp_path_factory):
    """A folder with run/ (untrained), data/ (300-W with the astronaut in validation) and out/."""
    root = tmp_path_factory.mktemp("release")
    tree = draw_300w(root / "tree", train=5, validation=3)
    name = validation_names()[0]
    Image.fromarray(skimage.data.astronaut()).save(tree / f"{name}.png")
    write_pts(tree / f"{name}.pts", [222, 125] + 110 * IBUG68.shape)
    prepare("300w", tree, root / "data")
    config = narrow("compact")
    run = root / "run"
    write_weights(run / "best.safetensors", config, init(config, jax.random.key(0)))
    experiment = Experiment("miniature", config, (Stage(steps=700, one_pass_steps=60),), seed=3)
    (run / "config.json").write_text(json.dumps(experiment.to_json()))
    metrics = [{"step": 50, "loss": 1.0, "images_per_second": 32.0}]
    metrics += [{"step": 300, "loss": 0.5, "frames_per_second": 16.0}]
    metrics += [{"step": 100 * i, "validation_nme": [9.0, e]} for i, e in enumerate((8, 6, 7), 1)]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in metrics))
    environment = {"git_commit": "0" * 40, "machine": {"cores": 3, "device": "cpu"}}
    environment |= {"versions": {"jax": "1.2.3"}}
    (run / "environment.jsonl").write_text(f"{json.dumps(environment)}\n" * 2)
    out = root / "out"
    release = SCRIPT["release"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(release.__globals__, "calibrate", fake_calibration)
        patch.setitem(release.__globals__, "measure_generated", fake_generated_figures)
        release([run], "tiny", root / "data", weights_dir=out, results_dir=out / "results")
    return root


def fake_calibration(checkpoint, out, *, data_dir):
    """Scales the confidence by `LINE`: that of an untrained network cannot be calibrated."""
    config, variables = load(checkpoint)
    file = Path(out) / Path(checkpoint).name
    write_weights(file, config, scale_confidence(config, variables, *LINE))
    slope, intercept = LINE
    ece = {when: {"ece": value} for when, value in {"before": 0.0321, "after": 0.0123}.items()}
    return {"slope": slope, "intercept": intercept, **ece}


def fake_generated_figures(checkpoint, *, sheet):
    """Figures without generated faces, for which the compilation takes long."""
    write_image(sheet, np.zeros((1, 1, 3), np.uint8))
    rows = []
    for varied, value, nme, above in (("nothing", 0, 4, 0.0), ("yaw", -60, 30, 96.0)):
        step = {"feedback_steps": 1, "nme": nme + 0.123, "interval": [nme - 1.0, nme + 1.0]}
        step |= {"above_10": above, "nme_of_diagonal": nme / 2 + 0.004}
        per_step = [step, {**step, "feedback_steps": 3, "nme": nme + 0.456}]
        rows.append({"varied": varied, "value": value, "per_step": per_step})
    return {"faces": 7, "seed": 2, "level": 0.95, "settings": rows}


@pytest.fixture(scope="module")
def slices(folder):
    return json.loads((folder / "out/results/tiny_slices.json").read_text())


@pytest.fixture(scope="module")
def result(folder):
    return json.loads((folder / "out/results/tiny_300w_validation.json").read_text())


def test_weights_are_those_of_the_run_calibrated_and_in_float16(folder, result):
    config, expected = load(str(folder / "run"))
    released_config, variables = load(str(folder / "out/tiny.safetensors"))
    assert config == released_config
    expected = scale_confidence(config, expected, *LINE)
    for leaf, exact in zip(jax.tree.leaves(variables), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, exact, rtol=1e-3, atol=1e-6)
    assert result["file_bytes"] == (folder / "out/tiny.safetensors").stat().st_size
    assert result["parameters"] == parameter_count(variables)


def test_figures_are_those_of_the_evaluation_of_the_released_file(folder, result):
    assert [measured["boxes"] for measured in result["results"]] == ["truth", "jitter", "detector"]
    for measured in result["results"]:
        again = evaluate_split(
            str(folder / "out/tiny.safetensors"),
            "300w",
            "validation",
            data_dir=folder / "data",
            boxes=measured["boxes"],
        )
        command = measured["command"]
        assert measured == json.loads(json.dumps({"command": command, **again}))
        assert command.startswith("rednet eval tiny --data 300w --split validation ")
        assert f"--boxes {measured['boxes']} " in command


def test_the_figures_have_the_run_and_the_machine(folder, result):
    assert result["training_faces"] == 5 and result["seed"] == 3
    assert (result["best_step"], result["last_step"]) == (200, 300)
    assert result["trained_on"]["versions"] == {"jax": "1.2.3"}
    # 50 and 250 steps of 64 faces.
    assert result["training_seconds"] == pytest.approx(50 * 64 / 32 + 250 * 64 / 16)
    assert result["training_curve"] == [
        {"step": 100 * i, "validation_nme": [9.0, e]} for i, e in enumerate((8, 6, 7), 1)
    ]
    assert result["experiment"] == json.loads((folder / "run/config.json").read_text())
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", result["git_commit"])
    assert result["machine"]["cores"] >= 1 and result["machine"]["cpu"]
    assert result["versions"]["jax"] == jax.__version__


def test_figures_and_card_have_no_path_of_this_machine(folder, result):
    text = json.dumps(result) + card(folder)
    assert str(folder) not in text and str(Path.home()) not in text


def test_each_pass_adds_the_same_number_of_operations(result):
    """XLA counts the body of a loop once; in an unrolled program every pass must count."""
    one, two, three = (result["gflop"][k] for k in "123")
    assert two - one > 0.1 * one
    assert two - one == pytest.approx(three - two, rel=0.1)


def card(folder):
    return (folder / "out/tiny.md").read_text()


LICENCES = SCRIPT["licences"]()


def test_the_card_agrees_with_the_figures(folder, result, slices):
    text = card(folder)
    assert text == model_card(result, slices, LICENCES)
    assert "validation, used for selection" in text
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()]
    rows = [row for row in rows if row[0] in ("truth", "jitter", "detector") and len(row) == 9]
    expected = [(measured, row) for measured in result["results"] for row in measured["per_step"]]
    assert len(rows) == len(expected) == 9
    for (boxes, steps, *values), (measured, row) in zip(rows, expected, strict=True):
        assert (boxes, int(steps)) == (measured["boxes"], row["feedback_steps"])
        names = ("nme", "median", "failure_rate_8", "failure_rate_10", "auc_8")
        numbers = [float(value) for value in values]
        # A face that the detector does not find counts as a failure.
        rates = {**row, **row["with_missed"]}
        assert numbers[:5] == pytest.approx([rates[name] for name in names], abs=0.051)
        assert numbers[:2] == pytest.approx([row["nme"], row["median"]], abs=0.0051)
        assert numbers[5:] == [measured["images"], measured["missed"]]
    for fact in (
        f"| {result['parameters']:,} |",
        f"{result['gflop']['1']:.2f} at K = 1, {result['gflop']['3']:.2f} at K = 3",
        "64 px, 1.25 times",
        "5 faces of the 300-W",
        "700 steps of 64 faces",
        "exclude commercial products",
        "The released step is 200.",
        "Trained on 3 CPU cores with jax 1.2.3; stopped after step 300 of 700.",
        "The steps took 0.3 hours.",
        "| 200 | 9.00 | 6.00 |",
        "- 300w: The annotations are for research; commercial products are excluded.",
        "| frontal, all else random | 4.12 (3.00 to 5.00) | 4.46 (3.00 to 5.00) | 0 | 2.00 |",
        "more than one face in ten is above 10 % with yaw -60.",
        "at most 5 %",
        "1.250 times, -0.125",
        "0.0321 before and 0.0123 after",
        "It was trained on single images.",
    ):
        assert fact in text, fact
    assert result["steadiness"] is None


def test_the_card_has_a_row_for_each_kind_of_face(folder, slices):
    text = card(folder)
    rows = slices["real"]["slices"]
    assert [row["boxes"] for row in rows].count("detector") == len(rows) / 2 > 3
    lines = [line.strip("| ").split(" | ") for line in text.splitlines()]
    for row in rows:
        nme = row["per_step"][-1]["nme"]
        name = row["slice"] if row["range"] is None else f"{row['by']} {row['slice']}: "
        (line,) = (
            cells for cells in lines if cells[0] == row["boxes"] and cells[1].startswith(name)
        )
        assert line[2:4] == [str(row["faces"]), str(row["missed"])]
        assert line[-1].startswith("none" if nme is None else f"{nme:.2f}")


def test_a_release_is_measured_again_without_its_run(folder, result, monkeypatch, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    folders = {"weights_dir": out, "results_dir": out / "results"}
    assert SCRIPT["check"]("tiny", folder / "data", **folders) == []
    measure = SCRIPT["measure"]
    monkeypatch.setitem(measure.__globals__, "measure_generated", fake_generated_figures)
    measure("tiny", folder / "data", **folders)
    path = out / "results/tiny_300w_validation.json"
    again = json.loads(path.read_text())
    assert again["command"] == "python experiments/release.py --measure tiny"
    assert again["released_by"]["command"] == result["command"]
    facts = ("experiment", "best_step", "training_curve", "trained_on", "calibration", "seed")
    for fact in (*facts, "training_seconds", "training_faces", "note", "results", "parameters"):
        assert again[fact] == result[fact], fact
    again["results"][0]["per_step"][0]["nme"] += 0.02
    again["results"][1]["per_step"][0]["nme"] += 0.005
    again["results"][2]["missed"] += 1
    path.write_text(json.dumps(again))
    lines = SCRIPT["check"]("tiny", folder / "data", **folders)
    assert [line.partition(" is ")[0] for line in lines] == [
        "tiny.md:",
        "boxes truth: per_step 0 nme",
        "boxes detector: missed",
    ]
    SCRIPT["write_card"]("tiny", **folders)
    assert len(SCRIPT["check"]("tiny", folder / "data", **folders)) == 2


def test_an_unknown_release_is_an_error(tmp_path):
    for function in ("measure", "check", "write_card"):
        with pytest.raises(RednetError, match=r"none_300w_validation\.json: cannot be read"):
            SCRIPT[function]("none", results_dir=tmp_path)


def test_the_card_of_a_network_trained_on_clips_has_a_row_for_each_way(result, slices):
    way = {"way": "recurrence", "nme_inner": 1.234, "nme_all": 2.345, "lost": 0.5}
    way |= {"jitter_inner": 3.456, "jitter_all": 4.567}
    clips = {"clips": 9, "labelled_frames": 1593, "ways": [way]}
    clips |= {"label_jitter_inner": 1.6419, "label_jitter_all": 1.6483}
    text = model_card(result | {"steadiness": clips}, slices, LICENCES)
    assert "| recurrence | 1.23 | 2.35 | 3.46 | 4.57 | 0.5 |" in text
    assert "9 clips" in text and "1,593 frames" in text and "1.64 and 1.65" in text
    assert "single images" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_card_describes_the_previous_run_and_recrops(result, slices):
    stage = result["experiment"]["stages"][0]
    first = {**stage, "name": "all", "steps": 1234, "data": {"train": ["helen/train"]}}
    before = {
        "experiment": {"name": "earlier", "seed": 5, "stages": [first, {**stage, "name": "end"}]},
        "best_step": 1100,
        "last_step": 1934,
        "trained_on": {"machine": {"device": "Some GPU"}, "versions": {"jax": "4.5.6"}},
    }
    model = {"recrop": "shift_scale", "context": 1.5, "recrop_margin": 1.2}
    experiment = result["experiment"]
    experiment = {**experiment, "model": {**experiment["model"], **model}}
    text = model_card(result | {"begun_with": before, "experiment": experiment}, slices, LICENCES)
    assert "In addition helen/train" in text
    assert "Stage `all`: 1,234 steps" in text and "seed 5" in text and "700 steps" in text
    assert "starts from step 1,100 of this run, `earlier`" in text
    assert "Trained on Some GPU with jax 4.5.6.\n" in text
    assert "The total time was not recorded; `experiments/earlier.py`" in text
    assert f"- helen: {LICENCES['helen'][:40]}" in text
    assert "| input | 96 px; the first pass has the crop at its centre |" in text
    assert "(shift and scale), 1.2 times" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_card_describes_all_averaged_runs(result, slices):
    stage = result["experiment"]["stages"][0]
    mixed = {**stage["data"], "train": ["300w/train", "lfw/train"], "weights": [0.75, 0.25]}
    slow = {**stage["optimiser"], "rates": ["encoder*0.05", "feedback*2"]}
    other = {
        "experiment": {"seed": 8, "stages": [{**stage, "data": mixed, "optimiser": slow}]},
        "best_step": 150,
        "last_step": 700,
        "training_seconds": 1800.0,
        "training_curve": [{"step": 150, "validation_nme": [4.56, 5.67]}],
        "trained_on": {"machine": {"device": "Some GPU"}, "versions": {"jax": "4.5.6"}},
    }
    text = model_card(result | {"averaged_with": [other]}, slices, LICENCES)
    for fact in (
        "the mean of 2 runs",
        "- Run 1: 300w/train (1).\n  700 steps",
        "seed 3.\n  Its step 200 is used.",
        "- Run 2: 300w/train (0.75), lfw/train (0.25); factors of the learning rate: encoder 0.05, "
        "feedback 2.",
        "seed 8.\n  Its step 150 is used.\n  Trained on Some GPU with jax 4.5.6.\n",
        "In addition lfw/train",
        f"- lfw: {LICENCES['lfw'][:40]}",
        "Run 2:\n\n| step | K = 1 | K = 2 |\n|---|---|---|\n| 150 | 4.56 | 5.67 |\n",
    ):
        assert fact in text.replace("feedback\n  2.", "feedback 2."), fact
    assert text.count("Run 1:") == 2
    assert max(map(len, text.splitlines())) <= 100


def test_a_folder_without_a_run_is_an_error(folder, tmp_path):
    with pytest.raises(RednetError, match=r"config\.json") as caught:
        SCRIPT["release"]([tmp_path], "tiny", folder / "data", weights_dir=tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", released())
def test_the_error_of_every_release_is_reproduced(real_300w, name):
    figures = EXPERIMENTS / "results" / f"{name}_300w_validation.json"
    recorded = json.loads(figures.read_text())["results"][0]
    again = evaluate_split(name, "300w", "validation", data_dir=real_300w, feedback_steps=[1])
    faces, boxes = recorded["images"], recorded["boxes"]
    assert (again["images"], again["boxes"]) == (faces, boxes) == (200, "truth")
    row, recorded_row = again["per_step"][0], recorded["per_step"][0]
    for figure in ("nme", "median", "auc_8"):
        assert row[figure] == pytest.approx(recorded_row[figure], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", released())
def test_every_figure_of_the_card_is_reproduced(real_300w, name):
    if not (EXPERIMENTS / "results" / f"{name}_slices.json").exists():
        pytest.skip(f"{name} has no slices: its card is from an earlier version")
    assert SCRIPT["check"](name, real_300w) == []


@pytest.mark.parametrize("name", released())
def test_the_card_of_every_release_agrees_with_its_figures(name):
    results = EXPERIMENTS / "results"
    if not (results / f"{name}_slices.json").exists():
        pytest.skip(f"{name} has no slices: its card is from an earlier version")
    result, slices = (
        json.loads((results / f"{name}_{kind}.json").read_text())
        for kind in ("300w_validation", "slices")
    )
    text = model_card(result, slices, LICENCES)
    assert (SCRIPT["WEIGHTS"] / f"{name}.md").read_text() == text
    _, variables = load(name)
    assert result["parameters"] == parameter_count(variables)
    assert max(map(len, text.splitlines())) <= 100
