"""Names of functions and classes in configs, which identify runs."""

from __future__ import annotations

import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from rednet_jax.errors import RednetError
from rednet_jax.functions import plain_function
from rednet_jax.train.experiment import OptimiserConfig
from rednet_jax.train.load import load_experiment


@dataclasses.dataclass(frozen=True, slots=True)
class Slots:
    decay: float

    def __call__(self, rate):
        return optax.lion(rate, b1=self.decay)


def a_module(width):
    class Module(nnx.Module):
        dtype = jnp.float32
        initial = nnx.initializers.variance_scaling(width, "fan_in", "normal")

        def __init__(self, width=width):
            super().__init__()
            self.width = width

        @property
        def half(self):
            return self.width / 2

        @nnx.jit
        def double(self):
            return 2 * self.width

    return Module


def lion(decay, clip=None):
    def transformation(rate):
        return optax.chain(optax.lion(rate, b1=decay), clip or optax.identity())

    return transformation


def with_default(decay):
    def transformation(rate, b1=decay):
        return optax.lion(rate, b1=b1)

    return transformation


def with_keyword(decay):
    def transformation(rate, *, b1=decay):
        return optax.lion(rate, b1=b1)

    return transformation


def a_class(decay):
    class Lion:
        b1 = decay

        def __new__(cls, rate):
            return optax.lion(rate, b1=cls.b1)

    return Lion


@dataclasses.dataclass(frozen=True)
class Lion:
    decay: float
    rates: list = dataclasses.field(default_factory=list)

    def __call__(self, rate):
        return optax.lion(rate, b1=self.decay)


MAKERS = [
    lion,
    with_default,
    with_keyword,
    a_class,
    a_module,
    Lion,
    Slots,
    lambda decay: lambda rate, made=Slots(decay): made(rate),
    lambda decay: functools.partial(optax.lion, b1=decay),
    lambda decay: functools.partial(lion(0.5), lion(decay)),
    lambda decay: lion(0.5, lion(decay)),
    lambda decay: lion({"decays": (decay, None)}),
    lambda decay: jax.jit(lion(decay)),
    lambda decay: Lion(decay).__call__,
    lambda decay: lambda rate: lion(decay),
]


@pytest.mark.parametrize("make", MAKERS)
def test_what_a_function_is_made_with_is_in_its_name(make):
    first, same, other = (plain_function(make(decay)) for decay in (0.9, 0.9, 0.1))
    assert first == same != other
    assert " at 0x" not in first


def test_bases_and_methods_are_in_the_digest_of_a_class():
    def made(factor):
        class Base:
            def double(self):
                return factor * super().__hash__()

        class Derived(Base):
            again: float = 1.0

        return Derived

    assert plain_function(made(2)) == plain_function(made(2)) != plain_function(made(3))


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (math.sin, "math.sin"),
        (jax.numpy.abs, "jax.numpy.abs"),
        (jax.numpy.add, "jax.numpy.add"),
        (lion, f"{__name__}.lion"),
        (Lion, f"{__name__}.Lion"),
        (functools.partial(lion, 0.5, clip="a"), f"{__name__}.lion(0.5, clip='a')"),
    ],
)
def test_the_name_in_a_module_is_sufficient(function, name):
    assert plain_function(function) == name


class Instance:
    def __init__(self, decay):
        self.decay = decay

    def __call__(self, rate):
        return optax.lion(rate, b1=self.decay)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Instance(0.1), "Instance"),
        (Instance(0.1).__call__, "Instance"),
        (lion(np.zeros(3)), "ndarray"),
        (functools.partial(lion, object()), "object"),
        (lion({1: 2}), "dict"),
    ],
)
def test_other_objects_are_errors(value, kind):
    with pytest.raises(RednetError) as caught:
        OptimiserConfig(transformation=value)
    field, _, cause = str(caught.value).partition(": ")
    assert field == "optimiser.transformation"
    assert cause.startswith(f"a run cannot record an object of the class {kind}; use functions,")


FILE = """
import dataclasses, functools, optax, rednet_jax as rednet
from rednet_jax.train.experiment import OptimiserConfig, Stage


def lion(rate, decay={decay}, inner=None):
    return optax.lion(rate, b1=decay)


class Maker:
    decay = {decay}

    def __new__(cls, rate):
        return optax.lion(rate, b1=cls.decay)


@dataclasses.dataclass(frozen=True)
class Frozen:
    decay: float = 0.5

    def __call__(self, rate):
        return optax.lion(rate, b1={decay} * self.decay)


experiment = rednet.Experiment(
    "own",
    rednet.RedNetConfig.preset("compact"),
    stages=(Stage(optimiser=OptimiserConfig(transformation={transformation})),),
)
"""


@pytest.mark.parametrize(
    ("transformation", "start"),
    [
        ("lion", "lion "),
        ("Maker", "Maker "),
        ("Frozen()", "Frozen "),
        ("functools.partial(lion, inner=lion)", "lion "),
    ],
)
def test_an_edited_file_has_other_names(tmp_path, transformation, start):
    file = tmp_path / "own.py"

    def loaded(decay):
        file.write_text(FILE.format(transformation=transformation, decay=decay))
        plain = load_experiment(file).to_json()
        assert json.loads(json.dumps(plain)) == plain
        return plain["stages"][0]["optimiser"]["transformation"]

    first = loaded("0.9")
    assert first.startswith(start)
    assert loaded("0.9") == first != loaded("0.1")
