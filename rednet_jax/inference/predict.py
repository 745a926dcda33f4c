"""Predicts the landmarks of face crops, batch by batch."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from rednet_jax.compiler_options import inference_options
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig

BATCH = 50

MOST_STEPS = 100
"""Maximum K of inference and evaluation. Networks are trained with a few passes. One call runs all
of them and cannot be interrupted, and the results of every pass are in memory."""


def _per_step(
    config: RedNetConfig, variables: dict[str, Any], crops: jax.Array, feedback_steps: int
) -> tuple[jax.Array, jax.Array]:
    images = crops.astype(jnp.float32) / 255
    out, _ = rednet.align_image(config, variables, images, feedback_steps=feedback_steps)
    return out.per_step.landmarks, out.per_step.confidence


@functools.cache
def _compiled() -> jax.stages.Wrapped:
    return jax.jit(_per_step, static_argnums=(0, 3), compiler_options=inference_options())


def predict_crops(
    config: RedNetConfig,
    variables: dict[str, Any],
    crops: NDArray[np.uint8],
    feedback_steps: int,
    batch: int = BATCH,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns the landmarks [K, N, L, 2] of each pass, in crop pixels, and confidence [K, N, L].

    Args:
        config: of the network.
        variables: of the network.
        crops: uint8 [N, S, S, 3].
        feedback_steps: K.
        batch: batch size; the last batch is padded, so that only one shape is compiled.
    """
    if not len(crops):
        empty = np.zeros((feedback_steps, 0, config.scheme.count, 2), np.float32)
        return empty, empty[..., 0]
    # Otherwise, every batch would copy the variables to the device.
    variables = jax.device_put(variables)
    batch = min(batch, len(crops))
    landmarks, confidence = [], []
    for start in range(0, len(crops), batch):
        part = crops[start : start + batch]
        padded = np.zeros((batch, *crops.shape[1:]), np.uint8)
        padded[: len(part)] = part
        points, probabilities = _compiled()(config, variables, padded, feedback_steps)
        landmarks.append(np.asarray(points)[:, : len(part)])
        confidence.append(np.asarray(probabilities)[:, : len(part)])
    return np.concatenate(landmarks, axis=1), np.concatenate(confidence, axis=1)


def align_crops(
    config: RedNetConfig,
    variables: dict[str, Any],
    crops: NDArray[np.uint8],
    feedback_steps: int,
    batch: int = BATCH,
) -> NDArray[np.float32]:
    """Returns only the landmarks of `predict_crops`."""
    return predict_crops(config, variables, crops, feedback_steps, batch)[0]
