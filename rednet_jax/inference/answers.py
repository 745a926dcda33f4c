"""What a network says of crops, batch by batch; needs no data set."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig

BATCH = 50


@functools.partial(jax.jit, static_argnums=(0, 3))
def _per_step(
    config: RedNetConfig, variables: dict[str, Any], crops: jax.Array, feedback_steps: int
) -> tuple[jax.Array, jax.Array]:
    images = crops.astype(jnp.float32) / 255
    out, _ = rednet.align_image(config, variables, images, feedback_steps=feedback_steps)
    return out.per_step.landmarks, out.per_step.confidence


def answer_crops(
    config: RedNetConfig,
    variables: dict[str, Any],
    crops: NDArray[np.uint8],
    feedback_steps: int,
    batch: int = BATCH,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns each pass's landmarks [K, N, L, 2] in crop pixels, and their confidence [K, N, L].

    Args:
        config: of the network.
        variables: of the network.
        crops: uint8 [N, S, S, 3].
        feedback_steps: K.
        batch: crops at a time; the last batch is filled up, so that one shape is compiled.
    """
    batch = min(batch, len(crops))
    landmarks, confidence = [], []
    for start in range(0, len(crops), batch):
        part = crops[start : start + batch]
        full = np.zeros((batch, *crops.shape[1:]), np.uint8)
        full[: len(part)] = part
        points, certain = _per_step(config, variables, full, feedback_steps)
        landmarks.append(np.asarray(points)[:, : len(part)])
        confidence.append(np.asarray(certain)[:, : len(part)])
    return np.concatenate(landmarks, axis=1), np.concatenate(confidence, axis=1)


def align_crops(
    config: RedNetConfig,
    variables: dict[str, Any],
    crops: NDArray[np.uint8],
    feedback_steps: int,
    batch: int = BATCH,
) -> NDArray[np.float32]:
    """Returns the landmarks alone of `answer_crops`."""
    return answer_crops(config, variables, crops, feedback_steps, batch)[0]
