"""Experiment files, overrides from the command line, and invalid fields."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from rednet_jax.cli.values import fields_of
from rednet_jax.data.pipeline import ClipConfig
from rednet_jax.data.synthetic.generate import SyntheticConfig
from rednet_jax.errors import RednetError
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import (
    DataConfig,
    Experiment,
    GeneratedData,
    MeshConfig,
    OptimiserConfig,
    Stage,
)
from rednet_jax.train.load import load_experiment
from rednet_jax.train.losses import LossConfig

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
        "from rednet_jax.train.experiment import *\n"
        "optimiser = OptimiserConfig(warmup_steps=300)\n"
        "experiment = Experiment(\n"
        "    name='some', model=RedNetConfig.preset('compact'), stages=(\n"
        "        Stage('one', steps=7_000, one_pass_steps=5_000, optimiser=optimiser),\n"
        "        Stage('two', steps=3_000, one_pass_steps=0, optimiser=optimiser),\n"
        "    ),\n"
        ")\n"
    )
    return path


EXPERIMENTS = sorted(
    path for path in FOLDER.glob("*.py") if re.search("^experiment = ", path.read_text(), re.M)
)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_loads_and_converts_to_json(path):
    experiment = load_experiment(path)
    assert experiment.name == path.stem
    plain = experiment.to_json()
    assert json.loads(json.dumps(plain)) == plain
    model = experiment.model
    parts = {"encoder": model.encoder, "decoder": model.decoder}
    assert RedNetConfig.from_json({**plain["model"], **parts}) == model


def test_the_experiments_are_found():
    assert "compact_300w" in [path.stem for path in EXPERIMENTS]


def test_hyphens_of_fields_are_underscores_and_those_of_stages_stay():
    words = ["--one-pass-steps", "1", "--fine-tune.one-pass-steps=2", "--data.cached-size", "3"]
    assert fields_of(words) == {
        "one_pass_steps": "1",
        "fine-tune.one_pass_steps": "2",
        "data.cached_size": "3",
    }


def test_fields_of_each_type_can_be_changed(file):
    changed = load_experiment(
        file,
        {
            "name": "other",
            "steps": "1_000",
            "one_pass_steps": "0",
            "two.one_pass_steps": "500",
            "optimiser.learning_rate": "1e-3",
            "optimiser.frozen": "encoder,heads",
            "losses.coordinate": "wing",
            "model.feedback": "none",
            "model.statistics_per_pass": "False",
            "model.widths": "8, 8,16,16,32,32,8",
            "data.cover": "2",
            "data.train": "300w/train,helen/train",
            "data.weights": "3,1",
            "mesh.data": "2",
            "compute": "bfloat16",
        },
    )
    one, two = changed.stages
    assert (changed.name, changed.steps, changed.compute) == ("other", 2000, "bfloat16")
    assert (one.steps, one.one_pass_steps, two.one_pass_steps) == (1000, 0, 500)
    assert one.optimiser == OptimiserConfig(1e-3, 300, frozen=("encoder", "heads"))
    assert (one.losses.coordinate, changed.model.feedback) == ("wing", "none")
    assert changed.model.statistics_per_pass is False
    assert changed.model.widths == (8, 8, 16, 16, 32, 32, 8)
    assert two.data == DataConfig(("300w/train", "helen/train"), (3.0, 1.0), cover=2.0)
    assert changed.mesh == MeshConfig(2, 1)
    assert load_experiment(file, {}) == load_experiment(file)


def test_a_single_stage_can_be_changed_by_its_name(file):
    changed = load_experiment(file, {"two.batch": "8", "batch": "32", "one.losses.sigma": "2"})
    assert [stage.batch for stage in changed.stages] == [32, 8]
    assert [stage.losses.sigma for stage in changed.stages] == [2.0, 1.0]


def test_the_stage_and_the_passes_of_a_step(file):
    experiment = load_experiment(file)
    assert experiment.steps == 10_000
    assert [experiment.stage_at(step) for step in (0, 6_999, 7_000, 9_999)] == [
        (0, 0),
        (0, 6_999),
        (1, 0),
        (1, 2_999),
    ]
    assert [experiment.passes(step) for step in (0, 4_999, 5_000, 7_000)] == [1, 1, 2, 2]
    with pytest.raises(ValueError, match="no step"):
        experiment.stage_at(10_000)


def test_overrides_that_are_valid_only_together(file):
    changes = {"model.architecture": "eccv_vgg", "model.widths": "8,8,8,8,16"}
    changed = load_experiment(file, {**changes, "model.code_width": "16"})
    assert changed.model.architecture == "eccv_vgg"
    with pytest.raises(RednetError, match="must equal the width of its last stage"):
        load_experiment(file, changes)


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("stepz", "3", "stepz.*known: .*steps"),
        ("stages", "3", "no field 'stages'.*batch.*one.FIELD, two.FIELD"),
        ("stages.0.batch", "3", "no field 'stages'"),
        ("one.stepz", "3", "stepz.*known: .*steps"),
        ("one", "3", "no field 'one'"),
        ("clips", "3", "clips can be changed only in the experiment's file"),
        ("data.train", "300w", "'300w' is not NAME/SPLIT"),
        ("data.train", "a/b,c/d", r"data.weights needs a weight.*data.train \(2\)"),
        ("data.weights", "0", "data.weights needs a weight above 0"),
        ("compute", "float16", "'float16' is not one of float32, bfloat16"),
        ("optimiser.rates", "encoder", r"'encoder' is not PART\*FACTOR"),
        ("optimiser.rates", "encoder*0", r"factor of 'encoder\*0' must be above 0"),
        ("optimiser.epsilon", "0", "optimiser.epsilon.*above 0"),
        ("mesh.data", "0", "mesh.data must be at least 1"),
        ("mesh.data", "3", "one: a batch of 64 cannot be divided by mesh data=3,fsdp=1"),
        ("accumulate", "6", "64.*must be a multiple of accumulate"),
        ("losses.stability", "1", "losses.stability needs clips"),
        ("losses.identity", "-1", "losses.identity must be at least 0"),
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
        ("seed", "-1", r"seed must be at least 0 and below 2\*\*31, not -1"),
        ("seed", str(2**31), r"seed must be .* below 2\*\*31, not 2147483648"),
        ("one.one_pass_steps", "7001", "one_pass_steps.*7001.*steps"),
        ("steps", "200", "one_pass_steps|warmup_steps"),
        ("optimiser.warmup_steps", "7000", "warmup_steps.*7000.*steps"),
        ("optimiser.learning_rate", "-1", "optimiser.learning_rate.*above 0"),
        ("optimiser.average", "1", "optimiser.average.*below 1"),
        ("losses.sigma", "0", "losses.sigma.*above 0"),
        ("data.cover", "0.5", "data.cover.*at least 1"),
        ("data.cached_size", "0", "data.cached_size.*at least 1"),
        ("data.cached_size", "127", r"one: data.cached_size \(127\) is smaller than .*, 128 pix"),
        ("model.image_size", "100", "image_size 100"),
    ],
)
def test_the_error_for_an_override_is_one_line_that_names_the_field(file, field, text, message):
    with pytest.raises(RednetError, match=message) as caught:
        load_experiment(file, {field: text})
    one_line(caught)


def test_contradictions_between_parts_of_an_experiment():
    compact = RedNetConfig.preset("compact")
    generated = GeneratedData(SyntheticConfig(size=64))
    with pytest.raises(RednetError, match=r"\(64, 1.25\), but .* image has \(128, 1.25\)"):
        Experiment("x", compact, (Stage(data=generated),))
    with pytest.raises(RednetError, match="generated faces have no identity"):
        Stage(data=GeneratedData(), losses=LossConfig(identity=1.0))
    assert Stage(clips=ClipConfig(), losses=LossConfig(stability=1.0)).clips.frames == 10
    for stages, names in (((), "none"), ((Stage("a"), Stage("a")), "a, a")):
        with pytest.raises(RednetError, match=f"stages need one name each, not {names}"):
            Experiment("x", compact, stages)
    with pytest.raises(RednetError, match=r"data\.validation must be at least 1"):
        GeneratedData(validation=0)


def test_the_stability_term_needs_landmarks_with_a_gradient():
    journal = RedNetConfig.preset("ijcv_resnet")
    clips = Stage("clips", clips=ClipConfig())
    assert Experiment("journal", journal, (clips,)).stages == (clips,)
    stable = dataclasses.replace(clips, losses=LossConfig(stability=1.0))
    with pytest.raises(RednetError, match=r"clips: losses.stability needs .*ijcv_resnet"):
        Experiment("journal", journal, (stable,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "no Experiment"),
        ("experiment = 3", "no Experiment"),
        ("import no_such_module", "ModuleNotFoundError.*no_such_module"),
        ("def f(:", "SyntaxError"),
        ("raise ValueError('two\\nlines')", "line 1: ValueError: two"),
        ("import sys\nsys.exit('no faces here')", "line 2: the file exits: no faces here"),
        ("raise SystemExit", "line 1: the file exits: "),
        (
            "from rednet_jax.train.losses import *\n\ndef losses():\n"
            "    return LossConfig(coordinate='Wing')\n\nlosses()",
            "line 4: losses.coordinate: 'Wing' is not one of l1, wing",
        ),
        (
            "from rednet_jax.model.config import RedNetConfig\n"
            "RedNetConfig.preset('compact', image_size=100)",
            "image_size 100",
        ),
    ],
)
def test_the_error_for_a_broken_file_is_one_line_with_its_name(tmp_path, text, message):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(RednetError, match=f"broken.py: .*{message}") as caught:
        load_experiment(path)
    one_line(caught)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RednetError, match=r"absent.py: no such"):
        load_experiment(tmp_path / "absent.py")


def test_experiments_are_frozen_and_hashable(file):
    experiment = load_experiment(file)
    assert hash(experiment) == hash(load_experiment(file))
    with pytest.raises(dataclasses.FrozenInstanceError):
        experiment.seed = 3
