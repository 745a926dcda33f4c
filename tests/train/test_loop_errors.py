"""Errors of the training loop: folders, options, data, and values that are not finite."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from train.runs import rows, saved, training_error

from rednet_jax.errors import RednetError
from rednet_jax.evaluate import protocols
from rednet_jax.model.rednet import init
from rednet_jax.train import inputs, validation
from rednet_jax.train.checkpoints import Checkpoints
from rednet_jax.train.inputs import Inputs
from rednet_jax.train.load import changed
from rednet_jax.train.loop import train
from rednet_jax.train.session import PendingStep, checked_metrics
from rednet_jax.weights.store import write_weights

pytestmark = pytest.mark.usefixtures("without_report")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": "3"}, "stages[0].batch was 4, now is 3"),
        ({"losses.sigma": "2"}, "stages[0].losses.sigma was 1.0, now is 2.0"),
        ({"model.crop_margin": "1.5"}, "model.crop_margin was 1.25, now is 1.5"),
    ],
)
def test_another_experiment_does_not_resume(finished, experiment, data_dir, changes, message):
    before = rows(finished.folder)
    text = training_error(changed(experiment, changes), finished.folder, data_dir)
    assert message in text and "config.json" in text
    assert rows(finished.folder) == before


def test_a_config_that_is_not_json(experiment, data_dir, tmp_path):
    (tmp_path / "config.json").write_text("{")
    assert "not a run's config" in training_error(experiment, tmp_path, data_dir)


def test_a_file_in_place_of_the_folder(experiment, data_dir, tmp_path):
    file = tmp_path / "run"
    file.write_text("in the way")
    assert str(file) in training_error(experiment, file, data_dir)
    assert str(file) in training_error(experiment, file / "below", data_dir)
    assert file.read_text() == "in the way"


@pytest.mark.parametrize("name", ["checkpoints", "metrics.jsonl"])
def test_a_file_and_a_folder_in_place_of_the_other(experiment, data_dir, tmp_path, name):
    if name == "checkpoints":
        (tmp_path / name).write_text("in the way")
    else:
        (tmp_path / name).mkdir()
    assert name in training_error(experiment, tmp_path, data_dir)


def test_missing_data_creates_no_run_folder(experiment, data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("REDNET_JAX_DATA", str(tmp_path / "elsewhere"))
    run = tmp_path / "run"
    for folder in ("elsewhere", "absent"):
        argument = None if folder == "elsewhere" else tmp_path / folder
        assert f"{folder}: 300w is not prepared" in training_error(experiment, run, argument)
    misspelt = changed(experiment, {"data.validation": "300w/valid"})
    assert "'valid'" in training_error(misspelt, run, data_dir)
    assert not run.exists()


def test_stopping_after_no_steps(experiment, data_dir, tmp_path):
    assert "--stop-after" in training_error(experiment, tmp_path / "run", data_dir, stop_after=0)


def test_errors_of_options_come_before_the_data(experiment, tmp_path):
    """Which may have to be cropped first; the run's folder is not created."""
    run, empty = tmp_path / "run", tmp_path / "data"
    assert training_error(experiment, run, empty, fresh=["encoder"]) == "--fresh needs --init-from"
    text = training_error(experiment, run, empty, profile=500)
    assert text.startswith("--profile 500 takes 502 steps") and text.endswith("20 are left to run")
    other = dataclasses.replace(experiment.model, regression_width=9)
    weights = tmp_path / "other.safetensors"
    write_weights(weights, other, init(other, jax.random.key(0)))
    text = training_error(experiment, run, empty, init_from=str(weights))
    assert "holds another network" in text
    assert not run.exists()


def test_validation_faces_that_cannot_be_measured(experiment, data_dir, tmp_path, monkeypatch):
    def crop_split(*args):
        crops = protocols.crop_split(*args)
        labelled = crops.labelled.copy()
        labelled[:, 36] = False
        return crops._replace(labelled=labelled)

    monkeypatch.setattr(inputs, "crop_split", crop_split)
    text = training_error(experiment, tmp_path / "run", data_dir)
    assert text == ("300w/validation: no face has both outer eye corners labelled, to validate on")
    assert not (tmp_path / "run").exists()


def set_label_to_nan(monkeypatch, name):
    """Sets one landmark of a face to nan in the crops that are read from now on."""
    read = inputs.face_crops

    def face_crops(*args, **kwargs):
        crops = read(*args, **kwargs)
        crops.landmarks[list(crops.names).index(name), 30] = np.nan
        return crops

    monkeypatch.setattr(inputs, "face_crops", face_crops)


def first_with(name, start, experiment, data_dir):
    """Returns the number of the first step after `start` that trains on the face."""
    reader = Inputs(experiment, data_dir).open(0)
    reader.set_state({"next_index": start})
    return next(step for step in itertools.count(start + 1) if name in reader.names(next(reader)))


@pytest.mark.parametrize(("start", "last_good"), [(0, "no checkpoint yet"), (5, "step 5")])
def test_a_label_of_nan_stops_the_run_and_the_face_is_named(
    experiment, data_dir, tmp_path, monkeypatch, start, last_good
):
    if start:
        train(experiment, tmp_path, data_dir=data_dir, stop_after=start)
    face = "helen/trainset/face4"
    set_label_to_nan(monkeypatch, face)
    text = training_error(experiment, tmp_path, data_dir)
    assert f"not finite at step {first_with(face, start, experiment, data_dir)}," in text
    assert "faces: helen/trainset/face4;" in text and last_good in text
    assert saved(tmp_path) == ([start] if start else [])
    assert all(np.isfinite(row["loss"]) for row in rows(tmp_path) if "loss" in row)
    # With the label corrected the run resumes.
    monkeypatch.undo()
    assert (
        int(train(experiment, tmp_path, data_dir=data_dir, stop_after=start + 2).step) == start + 2
    )


def test_if_all_faces_of_a_step_are_not_finite_a_few_are_named(tmp_path):
    def pending(step, loss, norm=1.0):
        metrics = {"loss_of_face": np.array(loss), "gradient_norm": np.array(norm)}
        return PendingStep(step, [f"face{i}" for i in range(len(loss))], metrics)

    with Checkpoints(tmp_path, keep=1) as checkpoints:
        with pytest.raises(RednetError, match=r"step 7, faces: face0, .*face4 and 4 more; no"):
            checked_metrics([pending(6, [1.0] * 9), pending(7, [np.nan] * 9)], checkpoints)
        with pytest.raises(RednetError, match=r"step 3, faces: none;"):
            checked_metrics([pending(3, [1.0] * 9, np.inf)], checkpoints)
        row = checked_metrics([pending(3, [1.0]), pending(4, [1.0], 2.5)], checkpoints)
    assert row == {"step": 4, "gradient_norm": 2.5}


def test_weights_with_a_validation_nme_of_nan_are_not_saved(
    experiment, data_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(validation, "validation_nme", lambda *_: [float("nan")])
    text = training_error(experiment, tmp_path, data_dir)
    assert "validation NME is not finite at step 5; no checkpoint yet" in text
    assert saved(tmp_path) == []
