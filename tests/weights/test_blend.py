"""Means of weights."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from rednet_jax.errors import RednetError
from rednet_jax.model.rednet import init
from rednet_jax.weights.blend import blend
from rednet_jax.weights.store import load, write_weights


@pytest.fixture
def checkpoint(narrow, tmp_path):
    """`checkpoint(name, key)`: a file of initial weights."""

    def written(name, key, **changes):
        config = narrow("compact", **changes)
        write_weights(tmp_path / name, config, init(config, jax.random.key(key)))
        return tmp_path / name

    return written


@pytest.mark.parametrize("shares", [None, (0.5, 0.2, 0.3), (0.0, 1.0, 0.0)])
def test_every_number_is_the_mean(checkpoint, shares):
    files = [checkpoint(f"{key}.safetensors", key) for key in range(3)]
    config, mean = blend(files, shares)
    (first_config, first), (_, second), (_, third) = map(load, files)
    assert config == first_config
    a, b, c = shares or (1 / 3, 1 / 3, 1 / 3)
    expected = jax.tree.map(lambda x, y, z: a * x + b * y + c * z, first, second, third)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), mean, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(mean)} == {np.dtype(np.float32)}


def test_the_mean_of_one_checkpoint_is_the_checkpoint(checkpoint):
    file = checkpoint("one.safetensors", 0)
    jax.tree.map(np.testing.assert_array_equal, blend([file])[1], load(file)[1])


def test_another_network_is_an_error(checkpoint):
    first = checkpoint("first.safetensors", 0)
    second = checkpoint("second.safetensors", 0, feedback="none")
    with pytest.raises(RednetError, match=r"second\.safetensors: not the network of .*first"):
        blend([first, second])
