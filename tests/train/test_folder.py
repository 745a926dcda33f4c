"""The run folder: fields that may change when a run is resumed, and the initial weights."""

from __future__ import annotations

import dataclasses
import json

import jax
import pytest

from rednet_jax.errors import RednetError
from rednet_jax.model.rednet import init
from rednet_jax.train.experiment import Experiment
from rednet_jax.train.folder import Initial, changed_data, claim, initial_weights
from rednet_jax.train.load import changed
from rednet_jax.weights.store import fingerprint, load, write_weights


def config(folder):
    return json.loads((folder / "config.json").read_text())


def begin(folder) -> None:
    """Logs a step of the folder's run."""
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')


def claim_error(folder, experiment: Experiment) -> str:
    begin(folder)
    before = (folder / "config.json").read_bytes()
    with pytest.raises(RednetError) as caught:
        claim(folder, experiment, None)
    assert (folder / "config.json").read_bytes() == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_fields_without_effect_on_the_result_may_change(experiment, tmp_path):
    claim(tmp_path, experiment, None)
    (stage,) = experiment.stages
    now = changed(experiment, {"name": "other", "log_every": "7", "keep": "3", "mesh.data": "2"})
    now = dataclasses.replace(now, stages=(dataclasses.replace(stage, name="faces"),))
    claim(tmp_path, now, None)
    assert config(tmp_path) == now.to_json()


def test_the_mesh_may_not_change_with_batch_statistics_of_devices(experiment, tmp_path):
    device = changed(experiment, {"batch_statistics": "device"})
    claim(tmp_path, device, None)
    assert claim_error(tmp_path, changed(device, {"mesh.data": "2"})).endswith(
        "; mesh.data was 1, now is 2"
    )


def test_all_changed_fields_are_named_in_one_line(experiment, tmp_path):
    claim(tmp_path, experiment, None)
    fields = {"seed": "3", "losses.sigma": "2", "evaluate_every": "4", "data.weights": "2"}
    message = claim_error(tmp_path, changed(experiment, fields | {"log_every": "7"}))
    assert message == (
        f"{tmp_path}/config.json: the folder holds another run; "
        "stages[0].data.weights[0] was 1.0, now is 2.0; "
        "stages[0].losses.sigma was 1.0, now is 2.0; "
        "seed was 0, now is 3; evaluate_every was 5, now is 4"
    )
    message = claim_error(tmp_path, changed(experiment, {"steps": "40"}))
    hint = f"to train on, begin another run with --init-from {tmp_path}"
    assert message.endswith(f"; stages[0].steps was 20, now is 40; {hint}")
    more = dataclasses.replace(
        experiment, stages=(*experiment.stages, dataclasses.replace(experiment.stages[0], name="b"))
    )
    assert "stages[1] was None, now is {'name': 'b', 'steps': 20" in claim_error(tmp_path, more)


def test_a_folder_of_an_earlier_version_can_be_resumed(experiment, tmp_path):
    """Fields that were added since have their defaults; unknown fields are named."""
    plain = experiment.to_json()
    del plain["stages"][0]["accumulate"], plain["stages"][0]["drift"], plain["keep"]
    plain["model"]["register"] = plain["model"].pop("recrop")
    (tmp_path / "config.json").write_text(json.dumps(plain))
    claim(tmp_path, experiment, None)
    assert config(tmp_path) == experiment.to_json()
    (tmp_path / "config.json").write_text(json.dumps(plain | {"made_by_the_future": 1}))
    assert claim_error(tmp_path, experiment).endswith("; made_by_the_future was 1, now is None")
    (tmp_path / "config.json").write_text(json.dumps(plain))
    assert "accumulate was 1, now is 2" in claim_error(
        tmp_path, changed(experiment, {"accumulate": "2"})
    )


def test_a_folder_with_checkpoints_but_no_config_is_an_error(experiment, tmp_path):
    (tmp_path / "checkpoints" / "20").mkdir(parents=True)
    with pytest.raises(RednetError, match=r"config\.json: missing, and the folder holds checkpoin"):
        claim(tmp_path, experiment, None)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


@pytest.fixture
def files(experiment, tmp_path):
    """Weights of the experiment's network: two different files, and a copy of the first."""
    for name, seed in (("one", 0), ("other", 1), ("copy", 0)):
        variables = init(experiment.model, jax.random.key(seed))
        write_weights(tmp_path / f"{name}.safetensors", experiment.model, variables)
    return tmp_path


def test_the_initial_weights_of_a_run_are_recorded(experiment, files, monkeypatch):
    run, one = files / "run", files / "one.safetensors"
    monkeypatch.chdir(files)
    assert initial_weights(run, None, experiment) is None
    began = initial_weights(run, "one.safetensors", experiment)
    assert began == Initial(str(one), fingerprint(load(one)[1]))
    claim(run, experiment, began)
    begin(run)
    # Without the option, with it, in another working directory, and with a copy.
    monkeypatch.chdir("/")
    for checkpoint in None, str(one), str(files / "copy.safetensors"):
        assert initial_weights(run, checkpoint, experiment) == began
    message = f"--init-from {files}/other.safetensors: the run in {run} started from those of {one}"
    with pytest.raises(RednetError, match=f"^{message}$"):
        initial_weights(run, f"{files}/other.safetensors", experiment)
    claim(run, experiment, None)
    assert initial_weights(run, None, experiment) == began


def test_a_run_does_not_accept_other_fresh_parts(experiment, files):
    run, one = files / "run", str(files / "one.safetensors")
    claim(run, experiment, initial_weights(run, one, experiment, ["detection"]))
    begin(run)

    def error(*fresh):
        with pytest.raises(RednetError) as caught:
            initial_weights(run, one, experiment, fresh)
        return str(caught.value)

    began = f"the run in {run} was started with --fresh detection"
    assert error("encoder", "decoder") == f"--fresh encoder,decoder: {began}"
    assert error() == f"--init-from {one} without --fresh: {began}"
    claim(files / "other", experiment, initial_weights(files / "other", one, experiment))
    begin(files / "other")
    with pytest.raises(
        RednetError, match=r"^--fresh encoder: .*other was started without --fresh$"
    ):
        initial_weights(files / "other", one, experiment, ["encoder"])


def test_a_run_that_started_from_random_weights_accepts_no_others(experiment, files):
    claim(files / "run", experiment, None)
    begin(files / "run")
    assert initial_weights(files / "run", None, experiment) is None
    with pytest.raises(RednetError, match="started from random weights"):
        initial_weights(files / "run", str(files / "one.safetensors"), experiment)
    # An earlier version did not record them.
    (files / "run" / "init_from.json").unlink()
    claim(files / "run", experiment, None)
    assert not (files / "run" / "init_from.json").exists()
    initial = initial_weights(files / "run", str(files / "one.safetensors"), experiment)
    assert initial.checkpoint.endswith("one.safetensors")
    claim(files / "run", experiment, initial)
    assert initial_weights(files / "run", None, experiment) == initial
    (files / "run" / "init_from.json").write_text("[1, 2, 3]")
    with pytest.raises(RednetError, match=r"init_from.json: not a record of initial weights"):
        initial_weights(files / "run", None, experiment)


def test_a_folder_whose_start_failed_is_new(experiment, files):
    run, one, other = (files / name for name in ("run", "one.safetensors", "other.safetensors"))
    claim(run, experiment, initial_weights(run, str(one), experiment))
    # Opened before the first step.
    (run / "metrics.jsonl").touch()
    corrected = changed(experiment, {"batch": "2"})
    initial = initial_weights(run, str(other), corrected)
    assert initial is not None and initial.checkpoint == str(other)
    claim(run, corrected, initial)
    assert config(run) == corrected.to_json()
    begin(run)
    assert initial_weights(run, None, corrected) == initial
    assert "batch was 2, now is 4" in claim_error(run, experiment)
    # A folder of another program is not.
    (files / "config.json").write_text('{"architectures": []}')
    with pytest.raises(RednetError, match="the folder holds another run"):
        claim(files, experiment, None)


def test_the_fields_that_differ_in_another_network_are_named(experiment, files):
    wider = dataclasses.replace(
        experiment,
        model=dataclasses.replace(experiment.model, regression_width=9, crop_margin=1.5),
    )
    with pytest.raises(RednetError) as caught:
        initial_weights(files / "run", str(files / "one.safetensors"), wider)
    assert str(caught.value).endswith(
        "one.safetensors: holds another network than the experiment's: "
        "model.regression_width is 9, not 6 as in the checkpoint"
    )


def test_data_that_changed_since_the_last_start_are_named(tmp_path):
    data = {"a": {"train x/train": "1", "validation x/val": "2"}, "b": {"train x/train": "3"}}
    assert changed_data(tmp_path, data) == []
    earlier = {"a": {"train x/train": "0", "validation x/val": "2"}}
    starts = [{"step": 0}, {"step": 10, "data": earlier}]
    (tmp_path / "environment.jsonl").write_text("\n".join(map(json.dumps, starts)))
    assert changed_data(tmp_path, data) == ["a: train x/train"]
    (tmp_path / "environment.jsonl").write_text('{"step": 0}')
    assert changed_data(tmp_path, data) == []
