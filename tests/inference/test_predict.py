"""Landmarks of batches of crops."""

from __future__ import annotations

import jax
import numpy as np

from rednet_jax.inference import predict
from rednet_jax.inference.predict import predict_crops


def test_the_landmarks_of_no_crops_are_empty(network):
    config, variables = network
    crops = np.zeros((0, config.input_size, config.input_size, 3), np.uint8)
    landmarks, confidence = predict_crops(config, variables, crops, 3)
    assert landmarks.shape == (3, 0, 68, 2) and confidence.shape == (3, 0, 68)
    assert landmarks.dtype == confidence.dtype == np.float32


def test_the_variables_are_copied_to_the_device_once(network, monkeypatch):
    config, variables = network
    passed = []

    def step(config, variables, crops, feedback_steps):
        passed.append(jax.tree.leaves(variables))
        return np.zeros((1, len(crops), 68, 2)), np.zeros((1, len(crops), 68))

    monkeypatch.setattr(predict, "_compiled", lambda: step)
    host = jax.tree.map(np.asarray, variables)
    predict_crops(config, host, np.zeros((4, 64, 64, 3), np.uint8), 1, batch=2)
    first, second = passed
    assert all(isinstance(leaf, jax.Array) for leaf in first)
    assert all(a is b for a, b in zip(first, second, strict=True))
