"""Initial variables: their distribution, and the same values for keys that are traced or mapped."""

from __future__ import annotations

import functools
import math

import jax
import numpy as np
import pytest

from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig

KEY = jax.random.key(3)


def by_path(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


@pytest.mark.parametrize("preset", ["compact", "separable", "eccv_vgg", "ijcv_resnet"])
def test_kernels_are_normal_scaled_by_fan_in(narrow, preset):
    params = by_path(rednet.init(narrow(preset, regression_width=64), KEY)["params"])
    zeros = {"temporal/back/kernel"}
    if preset in ("compact", "separable"):
        zeros.add("encoder/feedback/kernel")
    normalised = []
    for path, kernel in params.items():
        if not path.endswith("kernel"):
            continue
        if path in zeros:
            assert not kernel.any()
            continue
        fan_in = math.prod(kernel.shape[:-1])
        # He et al. (2015) before ReLU, LeCun et al. (1998) for dense layers, 0.1 for the last one.
        gain = math.sqrt(2) if kernel.ndim == 4 else 0.1 if "points" in path else 1.0
        if "depthwise" in path:
            # No ReLU follows, and each output has one input channel.
            fan_in, gain = math.prod(kernel.shape[:2]), 1.0
        normalised.append(np.ravel(kernel) * math.sqrt(fan_in) / gain)
        if kernel.size > 500:
            assert normalised[-1].std() == pytest.approx(1, rel=4 / math.sqrt(2 * kernel.size))
    values = np.concatenate(normalised).astype(np.float64)
    assert values.mean() == pytest.approx(0, abs=4 / math.sqrt(values.size))
    assert values.std() == pytest.approx(1, rel=4 / math.sqrt(2 * values.size))
    # No two kernels share values, and tails are those of the normal distribution.
    assert len(np.unique(values.astype(np.float32))) > 0.99 * values.size
    assert (np.abs(values) > 2).mean() == pytest.approx(0.0455, rel=0.2)


@pytest.mark.parametrize("preset", ["eccv_vgg", "ijcv_resnet"])
def test_with_gradients_through_z_its_input_layer_is_initialised_close_to_zero(narrow, preset):
    closed = by_path(rednet.init(narrow(preset), KEY))
    opened = by_path(rednet.init(narrow(preset, open_feedback_gradient=True), KEY))
    changed = {path for path in closed if not np.array_equal(closed[path], opened[path])}
    assert (
        changed
        == {
            "eccv_vgg": {"params/encoder/feedback/kernel"},
            "ijcv_resnet": {
                f"params/encoder/feedback/{part}/norm/scale" for part in ("expand", "shortcut")
            },
        }[preset]
    )
    for path in changed:
        np.testing.assert_allclose(opened[path], 1e-3 * closed[path], rtol=1e-6)


def test_values_depend_on_the_key_alone(narrow):
    config = narrow("compact")
    variables = rednet.init(config, KEY)
    same_key = rednet.init(config, jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, variables, same_key)
    with jax.default_device(jax.devices()[1]):
        on_other_device = rednet.init(config, KEY)
    jax.tree.map(np.testing.assert_array_equal, variables, on_other_device)
    other_key = rednet.init(config, jax.random.key(4))
    kernels = (
        np.asarray(tree["params"]["decoder"]["convs"]["up0"]["conv"]["kernel"])
        for tree in (variables, other_key)
    )
    assert not np.intersect1d(*kernels).size


def test_traced_and_mapped_keys_give_the_same_values(narrow):
    config = narrow("compact")
    variables = rednet.init(config, KEY)
    compiled = jax.jit(functools.partial(rednet.init, config))(KEY)
    jax.tree.map(np.testing.assert_array_equal, variables, compiled)
    keys = jax.random.split(KEY, 2)
    mapped = jax.vmap(functools.partial(rednet.init, config))(keys)
    second = rednet.init(config, keys[1])
    jax.tree.map(lambda leaf, both: np.testing.assert_array_equal(leaf, both[1]), second, mapped)


def test_eval_shape_gives_the_shapes_of_init():
    config = RedNetConfig.preset("compact")
    shapes = jax.eval_shape(functools.partial(rednet.init, config), KEY)
    variables = rednet.init(config, KEY)
    assert shapes == jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables
    )


def test_variables_are_float32_also_with_x64_enabled(narrow):
    config = narrow("ijcv_resnet")
    with jax.enable_x64(True):
        wide = rednet.init(config, KEY)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(wide)} == {"float32"}
    jax.tree.map(np.testing.assert_array_equal, wide, rednet.init(config, KEY))
