"""Landmarks of batches of crops."""

from __future__ import annotations

import numpy as np

from rednet_jax.inference.predict import predict_crops


def test_the_landmarks_of_no_crops_are_empty(network):
    config, variables = network
    crops = np.zeros((0, config.input_size, config.input_size, 3), np.uint8)
    landmarks, confidence = predict_crops(config, variables, crops, 3)
    assert landmarks.shape == (3, 0, 68, 2) and confidence.shape == (3, 0, 68)
    assert landmarks.dtype == confidence.dtype == np.float32
