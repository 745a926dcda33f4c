"""A larger network starts close to the trained one."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from rednet_jax.errors import RednetError
from rednet_jax.model.rednet import align_image, init
from rednet_jax.model.separable import SeparableDecoder, SeparableEncoder
from rednet_jax.weights.grow import grow


class LargeKernels(SeparableEncoder):
    kernel = 5


class Deep(SeparableEncoder):
    depths = (2, 3, 2, 2)


class DeepDecoder(SeparableDecoder):
    depths = (1, 2, 1)


@pytest.fixture
def trained(narrow):
    """A network whose normalisations have an effect."""
    config = narrow("separable", feedback_steps=2)
    variables = init(config, jax.random.key(0))
    rng = np.random.default_rng(0)
    stats = jax.tree.map(
        lambda leaf: leaf + rng.uniform(0, 0.2, leaf.shape).astype(np.float32),
        variables["batch_stats"],
    )
    return config, {"params": variables["params"], "batch_stats": stats}


def landmarks(config, variables):
    size = config.input_size
    images = np.random.default_rng(1).uniform(size=(2, size, size, 3)).astype(np.float32)
    return align_image(config, variables, images, feedback_steps=2)[0].landmarks


def test_larger_kernels_do_not_change_the_output(trained, narrow):
    config = narrow("separable", feedback_steps=2, encoder=LargeKernels)
    larger = grow(trained[1], config, jax.random.key(1))
    kernel = larger["params"]["encoder"]["eighth"]["blocks"]["block0"]["depthwise"]["kernel"]
    assert kernel.shape[:2] == (5, 5)
    np.testing.assert_allclose(landmarks(config, larger), landmarks(*trained), atol=1e-3)


def test_more_blocks_change_the_output_little_and_have_a_gradient(trained, narrow):
    config = narrow("separable", feedback_steps=2, encoder=Deep, decoder=DeepDecoder)
    larger = grow(trained[1], config, jax.random.key(1))
    before = landmarks(*trained)
    moved = np.abs(landmarks(config, larger) - before).max()
    initial = np.abs(landmarks(config, init(config, jax.random.key(2))) - before).max()
    assert 0 < moved < 0.1 * initial

    def total(params):
        return landmarks(config, {**larger, "params": params}).sum()

    gradient = jax.grad(total)(larger["params"])
    added = gradient["encoder"]["eighth"]["blocks"]["block2"]
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(added))


def test_a_smaller_network_is_refused(trained, narrow):
    config = narrow("separable", feedback_steps=2, encoder=Deep)
    larger = grow(trained[1], config, jax.random.key(1))
    with pytest.raises(RednetError, match=r"the larger network has no batch_stats/encoder/"):
        grow(larger, trained[0], jax.random.key(1))


def test_other_widths_are_refused(trained, narrow):
    config = narrow("separable", feedback_steps=2, regression_width=20)
    with pytest.raises(RednetError, match=r"shape \(.*\) cannot grow to"):
        grow(trained[1], config, jax.random.key(1))
