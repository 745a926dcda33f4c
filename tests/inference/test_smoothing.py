"""The one-euro filter removes jitter, lags little, and smooths each face separately."""

from __future__ import annotations

import numpy as np
import pytest

from rednet_jax.evaluate.metrics import jitter
from rednet_jax.inference.face import Face
from rednet_jax.inference.smoothing import OneEuro, Smoother
from rednet_jax.landmarks.builtin import IBUG68

FACE = IBUG68.shape * 200 + 300


def face(points, identity=0):
    confidence, box = np.ones(68, np.float32), np.zeros(4, np.float32)
    return Face(points.astype(np.float32), confidence, box, IBUG68, identity=identity)


def smoothed(track, config=None, fps=25):
    smoother = Smoother(config)
    return np.stack(
        [smoother.update([face(points)], n / fps)[0].landmarks for n, points in enumerate(track)]
    )


def test_the_filter_of_one_point_by_hand():
    """Two frames 0.1 s apart, with the paper's equations."""
    config = OneEuro(least_cutoff=1.0, speed_gain=2.0, speed_cutoff=3.0)
    eyes = np.linalg.norm(FACE[36] - FACE[45])
    second = smoothed([FACE, FACE + np.array([10.0, 0])], config, fps=10)[1]

    def alpha(cutoff):
        return 1 / (1 + 1 / (2 * np.pi * cutoff * 0.1))

    speed = alpha(3.0) * 100.0 / eyes
    np.testing.assert_allclose(second, FACE + np.array([10 * alpha(1 + 2 * speed), 0]), rtol=1e-5)


def test_noise_on_a_still_face_is_reduced():
    rng = np.random.default_rng(0)
    track = FACE + rng.normal(0, 1.0, (100, 68, 2))
    assert jitter(smoothed(track)[20:], IBUG68) < 0.5 * jitter(track[20:], IBUG68)


def test_the_lag_of_a_fast_face_is_less_than_a_frame():
    """At two inter-ocular distances per second, the lag of a fixed cutoff is more than 3 frames."""
    eyes = np.linalg.norm(FACE[36] - FACE[45])
    step = np.array([2 * eyes / 25, 0])
    track = FACE + step * np.arange(50)[:, None, None]
    lag = (track[-1] - smoothed(track)[-1])[:, 0] / step[0]
    fixed = (track[-1] - smoothed(track, OneEuro(speed_gain=0.0))[-1])[:, 0] / step[0]
    assert lag.max() < 0.5
    assert fixed.min() > 3


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_smoothing_does_not_depend_on_the_size(scale):
    track = FACE + np.random.default_rng(0).normal(0, 2.0, (20, 68, 2))
    np.testing.assert_allclose(smoothed(track * scale), smoothed(track) * scale, rtol=1e-4)


def test_faces_are_smoothed_separately_and_restart_after_an_absence():
    smoother = Smoother()
    smoother.update([face(FACE, 0), face(FACE + 100, 1)], 0.0)
    second, first = smoother.update([face(FACE + 101, 1), face(FACE + 1, 0)], 0.04)
    assert (second.identity, first.identity) == (1, 0)
    np.testing.assert_allclose(second.landmarks - first.landmarks, 100, atol=1e-3)
    smoother.update([face(FACE, 0)], 0.08)
    back = smoother.update([face(FACE + 200, 1)], 0.12)[0]
    np.testing.assert_allclose(back.landmarks, FACE + 200, atol=1e-3)
