"""Values that are float32 although activations are bfloat16."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rednet_jax.landmarks.heatmaps import soft_argmax
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.heads import Detection, Identity
from rednet_jax.model.layers import Mode, normal
from rednet_jax.model.temporal import PooledLSTM

Narrow = Callable[..., RedNetConfig]

EVALUATION = Mode(False, jnp.zeros(2, jnp.int32), 1)


@pytest.mark.parametrize("preset", ["compact", "ijcv_resnet"])
def test_landmarks_logits_and_cell_state_are_float32(shallow: Narrow, preset: str) -> None:
    config = shallow(preset)
    outputs: list[rednet.PassOutput] = []

    def run() -> tuple[rednet.Output, rednet.State]:
        def loss(output: rednet.PassOutput, targets: None) -> jax.Array:
            del targets
            outputs.append(output)
            return output.confidence_logits.sum(1)

        size = config.input_size
        clips = jnp.zeros((2, 2, size, size, 3), jnp.bfloat16)
        variables = rednet.init(config, jax.random.key(0))
        state = rednet.initial_state(config, 2, jnp.bfloat16)
        return rednet.align_clip(config, variables, clips, state, feedback_steps=2, loss=loss)[:2]

    output, state = jax.eval_shape(run)
    assert output.response_maps.dtype == state.feedback.dtype == jnp.bfloat16
    hidden, cell = state.memory
    assert (hidden.dtype, cell.dtype) == (jnp.bfloat16, jnp.float32)
    last = outputs[-1]
    single = [last.logits, last.landmarks, last.map_landmarks]
    single += [last.confidence_logits, last.identity_logits]
    if last.coarse_logits is not None:
        single.append(last.coarse_logits)
    assert {leaf.dtype for leaf in single} == {np.dtype("float32")}


def test_the_cell_state_accumulates_small_changes_over_many_frames() -> None:
    """A bfloat16 sum would stop growing once an increment is below half of its last bit."""
    units, frames = 4, 400
    lstm = PooledLSTM(2, units, normal(0))
    lstm.gates.kernel[...] = jnp.zeros_like(lstm.gates.kernel[...])
    # Each frame keeps sigmoid(5 + 1) of the cell state and adds 0.1 * tanh(0.1).
    enter, forget, candidate, leave = float(np.log(0.1 / 0.9)), 5.0, 0.1, 1.0
    gates = np.repeat([enter, forget, candidate, leave], units).astype(np.float32)
    lstm.gates.bias[...] = jnp.asarray(gates)
    code = jnp.zeros((1, 2, 2, 2), jnp.bfloat16)
    memory = (jnp.zeros((1, units), jnp.bfloat16), jnp.zeros((1, units), jnp.float32))
    (_, cell), _ = jax.lax.scan(
        lambda memory, _: (lstm(code, memory)[1], None), memory, None, length=frames
    )
    # The gates themselves are rounded to bfloat16 once.
    rounded = np.asarray(jnp.asarray(gates, jnp.bfloat16), np.float64)
    enter, forget, candidate, _ = rounded.reshape(4, units)[:, 0]
    kept, added = 1 / (1 + np.exp(-forget - 1)), np.tanh(candidate) / (1 + np.exp(-enter))
    expected = added * (1 - kept**frames) / (1 - kept)
    np.testing.assert_allclose(cell, np.full((1, units), expected), rtol=1e-4)


def test_logits_of_half_precision_features_are_rounded_once(narrow: Narrow) -> None:
    """Against float64: neighbouring pixels of a high peak do not tie."""
    config = narrow("compact")
    detection, identity = Detection(config, normal(0)), Identity(config, normal(1))
    width = detection.logits.kernel[...].shape[2]
    detection.logits.bias[...] = jnp.linspace(5, 15, config.scheme.count + 1)
    features = jax.random.normal(jax.random.key(0), (2, 16, 16, width), jnp.bfloat16)
    kernel, bias = (
        np.asarray(part[...], np.float64)
        for part in (detection.logits.kernel, detection.logits.bias)
    )
    expected = np.asarray(features, np.float64) @ kernel[0, 0] + bias
    actual = detection(features, EVALUATION)
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    exact = soft_argmax(jax.nn.softmax(jnp.asarray(expected, jnp.float32), axis=-1))
    np.testing.assert_allclose(soft_argmax(jax.nn.softmax(actual, axis=-1)), exact, atol=1e-3)
    code = jax.random.normal(jax.random.key(1), (2, 4, 4, config.code_width // 2), jnp.bfloat16)
    kernel, bias = (
        np.asarray(part[...], np.float64) for part in (identity.logits.kernel, identity.logits.bias)
    )
    expected = np.asarray(code, np.float64).mean((1, 2)) @ kernel + bias
    np.testing.assert_allclose(identity(code), expected, atol=1e-5)
