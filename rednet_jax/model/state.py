"""The state that is carried from frame to frame, and how it moves to another crop."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rednet_jax.landmarks.crops import compose_affine, invert_affine
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.convolutions import wide
from rednet_jax.model.feedback import move
from rednet_jax.model.recrop import first_crop
from rednet_jax.model.temporal import Memory, memory_shape

Tree = Any


class State(NamedTuple):
    """What is carried from frame to frame.

    Attributes:
        feedback: z, [B, feedback_size, feedback_size, feedback_channels].
        memory: f_tRNN's hidden and cell state, [B, units] or [B, h, w, channels] each; the cell
            state is at least float32.
        passes: [B] int32, passes since z was blank.
        crop: [B, 2, 3], crop of the next pass, in which z and the memory are: pixels of that crop
            -> pixels of the image. The identity unless the config has re-crops.
    """

    feedback: jax.Array
    memory: Memory
    passes: jax.Array
    crop: jax.Array


def initial_state(config: RedNetConfig, batch: int, dtype: Any = jnp.float32) -> State:
    """Returns the state before the first frame: a blank feedback map and a memory of zeros.

    Args:
        config: of the network.
        batch: B.
        dtype: of the feedback map and the hidden state, which is that of the images. The cell state
            and the crop are at least float32.
    """
    side = config.feedback_size
    shape = memory_shape(config, batch)
    return State(
        feedback=jnp.zeros((batch, side, side, config.feedback_channels), dtype),
        # The cell state is a sum over frames.
        memory=(jnp.zeros(shape, dtype), wide(jnp.zeros(shape, dtype))),
        passes=jnp.zeros(batch, jnp.int32),
        crop=first_crop(config, batch, dtype),
    )


def on_new_image(config: RedNetConfig, state: State, warp: jax.Array) -> State:
    """Returns the state for the next image; `warp` maps its pixels to those of the image before."""
    if config.recrop != "none":
        # The crop stays on the face, and the maps in the crop: only the crop's coordinates change.
        return state._replace(crop=compose_affine(invert_affine(warp), state.crop))
    return state._replace(
        feedback=move_feedback(config, state.feedback, warp),
        memory=move_memory(config, state.memory, warp),
    )


def move_feedback(config: RedNetConfig, feedback: jax.Array, warp: jax.Array) -> jax.Array:
    """Returns z resampled into a new crop; `warp` maps its pixels to those of the old crop."""
    if config.feedback == "none":
        return feedback
    nearest = config.feedback == "label_map"
    return move(feedback, warp, config.image_size, nearest=nearest)


def move_memory(config: RedNetConfig, memory: Tree, warp: jax.Array) -> Tree:
    """Returns the memory resampled likewise; unchanged if it is None or has no spatial axes."""
    if memory is None or memory[0].ndim != 4 or not memory[0].shape[-1]:
        return memory
    return tuple(move(part, warp, config.image_size) for part in memory)
