"""Validation of ablations, and identity of runs."""

import dataclasses
from pathlib import Path

import optax
import pytest
from ablate.tiny import FILE, experiment, tiny

from rednet_jax.ablate.plan import Arm, Cell, Claim, _settings, load_ablation, run_of
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.builtin import IBUG68, REDNET7
from rednet_jax.train.experiment import MeshConfig, OptimiserConfig

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def test_a_run_is_named_after_the_settings_that_affect_its_result():
    run = run_of(Arm("a", experiment()), 1)
    assert run.experiment.seed == 1
    assert run.folder == run.experiment.name
    assert run.folder.startswith("compact_seed1_")
    renamed = dataclasses.replace(experiment(), name="other", mesh=MeshConfig(2), seed=7)
    assert run_of(Arm("b", renamed, readout="maps"), 1).folder == run.folder
    others = [
        run_of(Arm("a", experiment()), 2),
        run_of(Arm("a", experiment(batch=4)), 1),
        run_of(Arm("a", experiment(), init_from="compact"), 1),
    ]
    assert len({run.folder, *(other.folder for other in others)}) == 4


def test_an_explicit_default_is_the_same_run():
    model = dataclasses.replace(experiment().model, crop_margin=1.25)
    explicit = dataclasses.replace(experiment(), model=model)
    assert run_of(Arm("a", explicit), 0).folder == run_of(Arm("a", experiment()), 0).folder


def test_a_field_keeps_its_first_name_in_the_digest():
    model = dataclasses.replace(experiment().model, recrop="similarity")
    settings = _settings(dataclasses.replace(experiment(), model=model))
    assert settings["model"]["register"] == "similarity" and "recrop" not in settings["model"]


@pytest.mark.parametrize(
    ("scheme", "folder"),
    [(IBUG68, "compact_seed1_8afd32f5075d"), (REDNET7, "compact_seed1_29e7f92af3c5")],
    ids=lambda value: getattr(value, "name", None),
)
def test_runs_from_before_named_schemes_keep_their_folders(scheme, folder):
    """A new digest would train them again."""
    model = dataclasses.replace(experiment().model, scheme=scheme)
    assert run_of(Arm("a", dataclasses.replace(experiment(), model=model)), 1).folder == folder


def lion(decay):
    return lambda rate: optax.lion(rate, b1=decay)


def with_optimiser(transformation):
    return experiment(optimiser=OptimiserConfig(warmup_steps=1, transformation=transformation))


def test_arms_that_differ_in_a_variable_of_a_function_have_runs_of_their_own():
    arms = tuple(Arm(str(decay), with_optimiser(lion(decay))) for decay in (0.9, 0.1, 0.9))
    first, second, third = (run_of(arm, 0).folder for arm in arms)
    assert first == third != second


def test_different_arms_that_would_share_a_run_raise():
    # Functions of one line have the same source.
    pair = (lambda rate: optax.lion(rate, b1=0.9)), (lambda rate: optax.lion(rate, b1=0.1))
    arms = tuple(Arm(str(number), with_optimiser(each)) for number, each in enumerate(pair))
    with pytest.raises(RednetError, match="arms '0' and '1' have different functions, but equal"):
        tiny(arms=arms, baseline="0", claims=())
    same = tuple(Arm(str(number), with_optimiser(lion(0.9))) for number in range(2))
    assert same[0].experiment != same[1].experiment
    tiny(arms=same, baseline="0", claims=())


@pytest.mark.skipif(not EXPERIMENTS.is_dir(), reason="no checkout")
def test_the_measured_runs_are_those_of_the_ablations():
    """A function or class with another name would be trained again."""
    measured = {path.parent.name for path in (EXPERIMENTS / "results/runs").glob("*/measured.json")}
    planned = {
        run_of(arm, seed).folder
        for file in EXPERIMENTS.glob("ablation_*.py")
        for ablation in [load_ablation(file)]
        for arm in ablation.arms
        for seed in ablation.seeds
    }
    assert measured and measured <= planned


def test_a_file_and_changes_to_every_arm(tmp_path):
    file = tmp_path / "one.py"
    file.write_text(FILE.format(name="one"))
    ablation = load_ablation(file, {"steps": "5"})
    assert ablation.name == "one"
    assert [arm.experiment.steps for arm in ablation.arms] == [5, 5]
    with pytest.raises(RednetError, match="no field 'stepz'"):
        load_ablation(file, {"stepz": "5"})
    file.write_text("ablation = 3")
    with pytest.raises(RednetError, match="assigns no Ablation"):
        load_ablation(file)
    with pytest.raises(RednetError, match="no such ablation file"):
        load_ablation(tmp_path / "none.py")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (0, 1)}, "3 or more"),
        ({"seeds": (0, 1, 1)}, "all different"),
        ({"baseline": "none"}, "is not an arm"),
        ({"claims": (Claim("x", Cell("long", 1), Cell("none", 1)),)}, "no arm 'none'"),
        ({"claims": (Claim("x", Cell("long", 5), Cell("short", 1)),)}, "K = 5.* is not measured"),
        ({"on": ("x",)}, r"on\[0\]: 'x' is not one of truth, jitter, jitter-hard, clips"),
        ({"on": ()}, "on must be of"),
        ({"seeds": [0, 1, 2]}, r"seeds: .* write \(0, 1, 2\)"),
        (
            {"claims": (Claim("x", Cell("long", 1, "truth", "jitter"), Cell("short", 1)),)},
            "only whole clips have jitter",
        ),
    ],
)
def test_invalid_ablations_raise(changes, message):
    with pytest.raises(RednetError, match=message):
        tiny(**changes)
