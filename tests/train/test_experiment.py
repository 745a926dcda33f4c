"""Experiment files, changes from the command line, and what is refused."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from rednet_jax.errors import RednetError
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import (
    DataConfig,
    Experiment,
    OptimiserConfig,
    load_experiment,
)

FOLDER = Path(__file__).parents[2] / "experiments"


def one_line(caught) -> str:
    text = str(caught.value)
    assert text and "\n" not in text
    return text


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "some.py"
    path.write_text(
        "from rednet_jax.model.config import RedNetConfig\n"
        "from rednet_jax.train.experiment import Experiment, OptimiserConfig\n"
        "experiment = Experiment(\n"
        "    name='some', model=RedNetConfig.preset('compact'),\n"
        "    steps=7_000, one_pass_steps=5_000,\n"
        "    optimiser=OptimiserConfig(warmup_steps=300),\n"
        ")\n"
    )
    return path


EXPERIMENTS = sorted(
    path for path in FOLDER.glob("*.py") if re.search("^experiment = ", path.read_text(), re.M)
)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_loads_and_is_plain_json(path):
    experiment = load_experiment(path)
    assert experiment.name == path.stem
    plain = experiment.to_json()
    assert json.loads(json.dumps(plain)) == plain
    assert RedNetConfig.from_json(plain["model"]) == experiment.model


def test_there_are_experiments():
    assert "compact_300w" in [path.stem for path in EXPERIMENTS]


def test_fields_of_each_type_can_be_changed(file):
    changed = load_experiment(
        file,
        {
            "name": "other",
            "steps": "1_000",
            "one_pass_steps": "0",
            "optimiser.learning_rate": "1e-3",
            "losses.coordinate": "wing",
            "model.feedback": "none",
            "model.statistics_per_pass": "False",
            "model.widths": "8, 8,16,16,32,32,8",
            "data.cover": "2",
        },
    )
    assert (changed.name, changed.steps, changed.one_pass_steps) == ("other", 1000, 0)
    assert changed.optimiser == OptimiserConfig(1e-3, 300)
    assert (changed.losses.coordinate, changed.model.feedback) == ("wing", "none")
    assert changed.model.statistics_per_pass is False
    assert changed.model.widths == (8, 8, 16, 16, 32, 32, 8)
    assert changed.data == DataConfig(cover=2.0) and type(changed.data.cover) is float
    assert load_experiment(file, {}) == load_experiment(file)


def test_changes_that_only_fit_together_are_checked_together(file):
    changes = {"model.architecture": "eccv_vgg", "model.widths": "8,8,8,8,16"}
    changed = load_experiment(file, {**changes, "model.code_width": "16"})
    assert changed.model.architecture == "eccv_vgg"
    with pytest.raises(RednetError, match=r"code as wide as"):
        load_experiment(file, changes)


@pytest.mark.parametrize(
    ("field", "text", "told"),
    [
        ("stepz", "3", "stepz.*known: .*steps"),
        ("model.depth", "3", "model.depth.*known: .*widths"),
        ("model", "compact", "model.*model.FIELD"),
        ("steps.more", "3", "steps.*more"),
        ("steps", "3.5", "steps.*'3.5'.*whole number"),
        ("steps", "many", "steps.*'many'.*whole number"),
        ("optimiser.learning_rate", "fast", "optimiser.learning_rate.*'fast'.*number"),
        ("optimiser.learning_rate", "nan", "optimiser.learning_rate.*'nan'.*finite"),
        ("model.open_feedback_gradient", "maybe", "open_feedback_gradient.*true or false"),
        ("losses.coordinate", "l2", "losses.coordinate.*'l2'.*l1, wing"),
        ("model.widths", "8,x", "model.widths.*'x'.*whole number"),
        ("batch", "0", "batch.*at least 1.*0"),
        ("seed", "-1", "seed.*-1"),
        ("one_pass_steps", "7000", "one_pass_steps.*7000.*steps"),
        ("steps", "200", "one_pass_steps|warmup_steps"),
        ("optimiser.warmup_steps", "7000", "warmup_steps.*7000.*steps"),
        ("optimiser.learning_rate", "-1", "optimiser.learning_rate.*above 0"),
        ("optimiser.average", "1", "optimiser.average.*below 1"),
        ("losses.sigma", "0", "losses.sigma.*above 0"),
        ("data.cover", "0.5", "data.cover.*at least 1"),
        ("data.cached_size", "0", "data.cached_size.*at least 1"),
        ("model.image_size", "100", "image_size 100"),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_the_field(file, field, text, told):
    with pytest.raises(RednetError, match=told) as caught:
        load_experiment(file, {field: text})
    one_line(caught)


def test_maps_without_background_have_no_loss_yet():
    with pytest.raises(RednetError, match=r"model.architecture.*ijcv_resnet"):
        Experiment(name="journal", model=RedNetConfig.preset("ijcv_resnet"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1", "no Experiment"),
        ("experiment = 3", "no Experiment"),
        ("import no_such_module", "ModuleNotFoundError.*no_such_module"),
        ("def f(:", "SyntaxError"),
        ("raise ValueError('two\\nlines')", "ValueError: two"),
        (
            "from rednet_jax.model.config import RedNetConfig\n"
            "RedNetConfig.preset('compact', image_size=100)",
            "image_size 100",
        ),
    ],
)
def test_a_file_that_builds_no_experiment_is_one_line_with_its_name(tmp_path, text, told):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(RednetError, match=f"broken.py: .*{told}") as caught:
        load_experiment(path)
    one_line(caught)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RednetError, match=r"absent.py: no such"):
        load_experiment(tmp_path / "absent.py")


def test_experiments_are_frozen_and_hashable(file):
    experiment = load_experiment(file)
    assert hash(experiment) == hash(load_experiment(file))
    with pytest.raises(dataclasses.FrozenInstanceError):
        experiment.steps = 3
