"""Values and texts of config fields are checked by their type hints."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rednet_jax
from rednet_jax.ablate.plan import Arm, Cell, Claim
from rednet_jax.data.augment import Augmentation, Drift
from rednet_jax.data.pipeline import ClipConfig
from rednet_jax.data.synthetic.generate import SyntheticConfig
from rednet_jax.errors import RednetError
from rednet_jax.fields import check_fields, field_types, integer, parse_field, with_defaults
from rednet_jax.inference.smoothing import OneEuro
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import (
    DataConfig,
    Experiment,
    GeneratedData,
    MeshConfig,
    OptimiserConfig,
    Stage,
)
from rednet_jax.train.losses import LossConfig

COMPACT = RedNetConfig.preset("compact")


def experiment(**fields: Any) -> Experiment:
    return Experiment("x", COMPACT, **fields)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LossConfig(coordinate="Wing"), "losses.coordinate: 'Wing' is not one of l1, wing"),
        (
            lambda: LossConfig(unit="inter-ocular"),
            "losses.unit: 'inter-ocular' is not one of inter_ocular, crop",
        ),
        (lambda: Stage(statistics="batches"), "statistics: 'batches' is not one of batch, running"),
        (
            lambda: experiment(compute="float16"),
            "compute: 'float16' is not one of float32, bfloat16",
        ),
        (lambda: experiment(compute="bf16"), "compute: 'bf16' is not one of float32, bfloat16"),
        (lambda: Stage(batch=16.0), "batch: 16.0 is not a whole number (int); write 16"),
        (lambda: Stage(batch=True), "batch: True is not a whole number (int)"),
        (lambda: experiment(seed=2.5), "seed: 2.5 is not a whole number (int)"),
        (
            lambda: experiment(seed=np.int64(2)),
            "seed: np.int64(2) is not a whole number (int); write 2",
        ),
        (
            lambda: OptimiserConfig(learning_rate=np.float64(0.5)),
            "optimiser.learning_rate: np.float64(0.5) is not a finite number (float); write 0.5",
        ),
        (
            lambda: OptimiserConfig(learning_rate=float("nan")),
            "optimiser.learning_rate: nan is not a finite number (float)",
        ),
        (
            lambda: OptimiserConfig(clip_norm=10**400),
            f"optimiser.clip_norm: 1{79 * '0'} ... is not a finite number (float)",
        ),
        (
            lambda: DataConfig(weights=[1]),
            "data.weights: [1] is not a tuple, each item a finite number (float); write (1,)",
        ),
        (
            lambda: DataConfig(train="300w/train"),
            "data.train: '300w/train' is not a tuple, each item a string (str); "
            "write ('300w/train',)",
        ),
        (lambda: OptimiserConfig(frozen=("a", 3)), "optimiser.frozen[1]: 3 is not a string (str)"),
        (
            lambda: dataclasses.replace(COMPACT, widths=[24, 32, 48, 96, 128, 160, 24]),
            "model.widths: [24, 32, 48, 96, 128, 160, 24] is not a tuple, each item a whole number "
            "(int); write (24, 32, 48, 96, 128, 160, 24)",
        ),
        (
            lambda: dataclasses.replace(COMPACT, statistics_per_pass=1),
            "model.statistics_per_pass: 1 is not true or false (bool)",
        ),
        (lambda: Stage(clips=True), "clips: True is not a ClipConfig or None"),
        (lambda: Stage(data="300w"), "data: '300w' is not a DataConfig or a GeneratedData"),
        (lambda: experiment(stages=(Stage(), 3)), "stages[1]: 3 is not a Stage"),
        (lambda: MeshConfig("2"), "mesh.data: '2' is not a whole number (int)"),
        (lambda: ClipConfig(reverse="0.5"), "clips.reverse: '0.5' is not a finite number (float)"),
        (lambda: Augmentation(mirror=None), "augmentation.mirror: None is not a finite number"),
        (lambda: Drift("0"), "drift.shift: '0' is not a finite number (float)"),
        (lambda: SyntheticConfig(size=64.0), "data.faces.size: 64.0 is not a whole number (int)"),
        (lambda: GeneratedData(validation=1.5), "data.validation: 1.5 is not a whole number (int)"),
        (lambda: Arm("a", experiment(), readout="map"), "arm.readout: 'map' is not one of regr"),
        (lambda: Cell("a", 1, figure="NME"), "cell.figure: 'NME' is not one of nme, jitter"),
        (lambda: Claim("a", Cell("a", 1), "b"), "claim.higher: 'b' is not a Cell"),
        (lambda: OneEuro(speed_gain=None), "smoothing.speed_gain: None is not a finite number"),
    ],
)
def test_a_value_of_a_wrong_type_is_an_error_with_the_fields_name(build, message):
    with pytest.raises(RednetError) as caught:
        build()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_an_integer_argument_may_be_of_any_integer_type():
    for value in (3, np.int64(3), np.uint8(3), np.array(3)):
        number = integer(value, "faces")
        assert type(number) is int and number == 3
    for value in (True, np.True_, 2.0, "2", None, np.array([2])):
        with pytest.raises(RednetError, match="faces must be an integer, not "):
            integer(value, "faces")
    with pytest.raises(RednetError, match="camera must be 0 or more, not -1"):
        integer(np.int64(-1), "camera", least=0)
    assert integer(100, "faces", most=100) == 100
    with pytest.raises(RednetError, match=r"^faces must be at most 100, not 101$"):
        integer(101, "faces", most=100)


def test_an_int_is_accepted_for_a_float_and_not_converted():
    assert type(OptimiserConfig(clip_norm=2).clip_norm) is int


CONFIGS = [
    value
    for info in pkgutil.walk_packages(rednet_jax.__path__, "rednet_jax.")
    # The only module that cannot be imported without an extra.
    if info.name != "rednet_jax.export.rednet_torch"
    for value in vars(importlib.import_module(info.name)).values()
    if isinstance(value, type)
    and value.__module__ == info.name
    and dataclasses.is_dataclass(value)
    and (value.__name__.endswith("Config") or hasattr(value, "__post_init__"))
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_every_config_is_checked(config):
    first = dataclasses.fields(config)[0].name
    with pytest.raises(RednetError, match=rf"{first}: <object object at"):
        config(*(object() for _ in dataclasses.fields(config)))


def test_the_list_of_configs_is_complete():
    assert {LossConfig, Experiment, Stage, RedNetConfig, Arm, OneEuro, Drift} <= {*CONFIGS}


@dataclasses.dataclass(frozen=True)
class Every:
    """A field of every type that can be parsed from text."""

    flag: bool
    count: int
    share: float
    name: str
    choice: Literal["one", "two"]
    counts: tuple[int, ...]
    shares: tuple[float, ...]
    choices: tuple[Literal["one", "two"], ...]

    def __post_init__(self) -> None:
        check_fields(self, "every.")


words = st.text(
    st.characters(exclude_characters=",", exclude_categories=("C", "Z")), min_size=1, max_size=9
)
shares = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.builds(
        Every,
        flag=st.booleans(),
        count=st.integers(),
        share=shares,
        name=words,
        choice=st.sampled_from(["one", "two"]),
        counts=st.lists(st.integers()).map(tuple),
        shares=st.lists(shares).map(tuple),
        choices=st.lists(st.sampled_from(["one", "two"])).map(tuple),
    )
)
def test_the_text_of_a_value_is_parsed_to_the_value(every):
    for name, hint in field_types(Every).items():
        value = getattr(every, name)
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert parse_field(hint, text, name) == value


@given(st.sampled_from(sorted(field_types(Every))), words)
def test_parsed_values_are_valid(name, text):
    try:
        value = parse_field(field_types(Every)[name], text, name)
    except RednetError as error:
        assert str(error).startswith(f"{name}: '{text}' is not ")
        return
    config = Every(True, 1, 1.0, "a", "one", (), (), ())
    assert getattr(dataclasses.replace(config, **{name: value}), name) == value


def test_missing_fields_of_nested_configs_get_their_defaults_as_json() -> None:
    filled = with_defaults({"name": "x"}, experiment())
    assert filled["stages"] == experiment().to_json()["stages"]
