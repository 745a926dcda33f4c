"""The commands of docs/tutorials/own_landmarks.md with fewer faces and steps."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rednet_jax
from rednet_jax import cli
from rednet_jax.landmarks.builtin import WFLW98, load_scheme
from rednet_jax.landmarks.table import read_landmarks_csv
from rednet_jax.media.video import write_video
from rednet_jax.quickstart import portrait_clip

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "experiments" / "own_landmarks"
FRESH = "detection,encoder/squeeze,regression/points,regression/squeeze"


def test_the_page_and_the_experiment_have_the_same_parts() -> None:
    page = (ROOT / "docs" / "tutorials" / "own_landmarks.md").read_text()
    assert f"--fresh {FRESH}" in page
    assert f"--fresh {FRESH}" in (EXAMPLE / "experiment.py").read_text()
    scheme = load_scheme(EXAMPLE / "mine98.json")
    assert scheme.mirror == WFLW98.mirror and scheme.groups == WFLW98.groups
    assert set(scheme.regions) == set(WFLW98.regions)
    fields = set(re.findall(r"^\| `(\w+)` \|", page, re.M))
    assert fields == set(scheme.to_json()) - {"count"}


@pytest.mark.slow
def test_from_labelled_images_to_an_export(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    faces = [sys.executable, str(EXAMPLE / "faces.py"), "mine", "--count", "24"]
    subprocess.run(faces, check=True)
    labelled = ["--labels", "mine/labels.csv"]
    propose = ["data", "scheme", "mine/images", *labelled, "--name", "mine98"]
    assert cli.main(propose) == 0
    proposed, committed = load_scheme("mine98.json"), load_scheme(EXAMPLE / "mine98.json")
    assert proposed.mirror == committed.mirror and proposed.groups == committed.groups
    np.testing.assert_allclose(proposed.shape, committed.shape, atol=0.05)
    prepared = ["--data-dir", "prepared"]
    scheme = ["--scheme", str(EXAMPLE / "mine98.json")]
    prepare = ["data", "prepare", "folder", "--name", "mine98", "--from", "mine/images"]
    assert cli.main([*prepare, *labelled, *scheme, *prepared]) == 0
    assert cli.main(["data", "show", "mine98", "--augmented", "--count", "4", *prepared]) == 0

    short = ["--stop-after", "6", "--batch", "4", "--one_pass_steps", "3", "--evaluate_every", "3"]
    short += ["--log_every", "1"]
    train = ["train", str(EXAMPLE / "experiment.py"), "--run-dir", "run", *prepared, *short]
    assert cli.main([*train, "--init-from", "compact"]) == 2
    assert f"can be initialised: --fresh {FRESH.split(',')[0]}" in capsys.readouterr().err
    assert cli.main([*train, "--init-from", "compact", "--fresh", FRESH]) == 0
    output = capsys.readouterr().out
    assert f"starts from the weights of compact; fresh: {FRESH.replace(',', ', ')}" in output
    assert json.loads(Path("run/init_from.json").read_text())["fresh"] == FRESH.split(",")
    # The run resumes without the options, and does not resume with other parts.
    assert cli.main([*train, "--stop-after", "7"]) == 0
    other = [*train, "--init-from", "compact", "--fresh", "detection"]
    assert cli.main(other) == 2
    assert "was started with --fresh detection,encoder/squeeze" in capsys.readouterr().err
    config, variables = rednet_jax.load("run")
    assert config.scheme == committed
    released = rednet_jax.load("compact")[1]["params"]["encoder"]["stem1"]["conv"]["kernel"]
    trained = variables["params"]["encoder"]["stem1"]["conv"]["kernel"]
    # The encoder changes little in so few steps.
    np.testing.assert_allclose(trained, released, atol=0.05)

    assert cli.main(["eval", "run", "--data", "mine98", "--split", "test", *prepared]) == 0
    assert "inter-ocular" in capsys.readouterr().out
    frames, _ = portrait_clip()
    with write_video(Path("talk.mp4"), 25, frames[0].shape[1::-1]) as write:
        for frame in frames[:5]:
            write(frame)
    track = ["track", "talk.mp4", "--checkpoint", "run", "--out", "talk_98.mp4"]
    assert cli.main([*track, "--landmarks", "talk.csv"]) in (0, 1)
    assert read_landmarks_csv("talk.csv")[1].shape[1:] == (98, 2)
    assert cli.main(["export", "run", "--to", "stablehlo", "--out", "exported"]) == 0
    exported = json.loads(Path("exported/export.json").read_text())
    assert exported["scheme"] == committed.to_json()
