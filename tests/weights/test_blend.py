"""Weights between those of two checkpoints."""

from __future__ import annotations

import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

from rednet_jax.errors import RednetError
from rednet_jax.model.rednet import init
from rednet_jax.weights.store import load, write_weights

blend = runpy.run_path(str(Path(__file__).parents[2] / "experiments" / "blend.py"))["blend"]


@pytest.fixture
def checkpoint(narrow, tmp_path):
    """`checkpoint(name, key)`: a file of initial weights."""

    def written(name, key, **changes):
        config = narrow("compact", **changes)
        write_weights(tmp_path / name, config, init(config, jax.random.key(key)))
        return str(tmp_path / name)

    return written


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_every_number_lies_between(checkpoint, tmp_path, share):
    first, second = checkpoint("first.safetensors", 0), checkpoint("second.safetensors", 1)
    blend(first, second, share, tmp_path / "out.safetensors")
    (config, one), (_, two), (written, got) = map(
        load, (first, second, tmp_path / "out.safetensors")
    )
    assert written == config
    expected = jax.tree.map(lambda a, b: a + share * (b - a), one, two)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, expected)


def test_other_networks_are_refused(checkpoint, tmp_path):
    first = checkpoint("first.safetensors", 0)
    second = checkpoint("second.safetensors", 0, feedback="none")
    with pytest.raises(RednetError, match=r"second\.safetensors: not the network of .*first"):
        blend(first, second, 0.5, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
