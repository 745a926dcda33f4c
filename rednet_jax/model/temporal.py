"""Recurrence over frames: f_tRNN, an LSTM on C_pe but not on C_id, and a gate for z."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.convolutions import wide
from rednet_jax.model.layers import Conv, Dense, Draw

Memory = tuple[jax.Array, jax.Array]
"""Hidden and cell state: [B, units], or [B, h, w, channels] for the convolutional LSTM.

The cell state is float32 even if activations are half-precision: it is a sum over frames."""


def recurrent_channels(config: RedNetConfig) -> int:
    """Returns how many of the code's last channels f_tRNN acts on."""
    shares = {"pose_expression": config.code_width // 2, "code": config.code_width, "none": 0}
    return shares[config.recurrence]


def memory_shape(config: RedNetConfig, batch: int) -> tuple[int, ...]:
    """Returns the shape of hidden and cell state; the last axis is 0 without recurrence."""
    width = config.recurrent_width if config.recurrence != "none" else 0
    if config.architecture in ("compact", "separable"):
        side = config.code_size
        return (batch, side, side, width)
    return (batch, width)


def _lstm_cell(gates: jax.Array, cell: jax.Array) -> Memory:
    input_gate, forget_gate, candidate, output_gate = jnp.split(wide(gates), 4, axis=-1)
    # A forget-gate bias of 1 lets an untrained cell keep its memory (Jozefowicz 2015).
    kept = jax.nn.sigmoid(forget_gate + 1) * cell
    cell = kept + jax.nn.sigmoid(input_gate) * jnp.tanh(candidate)
    hidden = jax.nn.sigmoid(output_gate) * jnp.tanh(cell)
    return hidden.astype(gates.dtype), cell


class PooledLSTM(nnx.Module):
    """The papers' form: an LSTM on the code's spatial mean; its output is added at every pixel.

    The output layer is initialised to zero, so a network trained on images is unchanged at first.
    """

    def __init__(self, channels: int, units: int, draw: Draw) -> None:
        self.gates = Dense(channels + units, 4 * units, draw=draw)
        self.back = Dense(units, channels, gain=0.0, draw=draw)

    def __call__(self, code: jax.Array, memory: Memory) -> tuple[jax.Array, Memory]:
        """Returns the code [B, h, w, channels] plus the LSTM's output, and the new memory."""
        hidden, cell = memory
        gates = self.gates(jnp.concatenate([code.mean((1, 2)), hidden], axis=-1))
        hidden, cell = _lstm_cell(gates, cell)
        return code + self.back(hidden)[:, None, None], (hidden, cell)


class ConvLSTM(nnx.Module):
    """The form of `compact` and `separable`: an LSTM with 3x3 convolutions on the code's grid.

    The output layer is initialised to zero, so a network trained on images is unchanged at first.
    """

    def __init__(self, channels: int, units: int, draw: Draw) -> None:
        self.gates = Conv(channels + units, 4 * units, bias=True, draw=draw)
        self.back = Conv(units, channels, 1, gain=0.0, draw=draw)

    def __call__(self, code: jax.Array, memory: Memory) -> tuple[jax.Array, Memory]:
        """Returns the code [B, h, w, channels] plus the LSTM's output, and the new memory."""
        hidden, cell = memory
        gates = self.gates(jnp.concatenate([code, hidden], axis=-1))
        hidden, cell = _lstm_cell(gates, cell)
        return code + self.back(hidden), (hidden, cell)


class MapGate(nnx.Module):
    """Mixes the feedback map of the previous frame with the new one. Not in the papers.

    Returns g * new + (1 - g) * old with g = sigmoid(conv(new, old)) for each pixel and channel:
    the update gate of a ConvGRU with the new map as its candidate. The initial g is 0.98, so a
    network trained on images changes little.
    """

    def __init__(self, channels: int, draw: Draw) -> None:
        self.conv = Conv(2 * channels, channels, bias=True, gain=0.0, draw=draw)

    def __call__(self, new: jax.Array, old: jax.Array) -> jax.Array:
        """Returns z for the next frame; all are [B, h, w, channels]."""
        gate = jax.nn.sigmoid(self.conv(jnp.concatenate([new, old], axis=-1)) + 4)
        return gate * new + (1 - gate) * old
