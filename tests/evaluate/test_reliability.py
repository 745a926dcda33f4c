"""Scores of probabilities compared with cases computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rednet_jax.evaluate.reliability import reliability_bins, scores


def logits(*probabilities):
    p = np.array(probabilities)
    return np.log(p / (1 - p))


def test_scores_of_four_points():
    # Bins of 1/15: 0.9 twice in [13/15, 14/15), 0.4 twice in [6/15, 7/15).
    result = scores(logits(0.9, 0.9, 0.4, 0.4), np.array([True, False, True, False]))
    assert result["ece"] == pytest.approx((2 * abs(0.9 - 0.5) + 2 * abs(0.4 - 0.5)) / 4)
    assert result["brier"] == pytest.approx((0.01 + 0.81 + 0.36 + 0.16) / 4)
    assert result["log_loss"] == pytest.approx(-np.log([0.9, 0.1, 0.4, 0.6]).mean())


def test_the_intervals_of_the_curve_use_photos_as_clusters():
    values = np.broadcast_to(logits(0.9, 0.9, 0.9, 0.9, 0.2), (2, 5))
    right = np.array([[True, True, True, False, False]] * 2)
    low, high = reliability_bins(values, right, np.array([0, 0, 1, 1, 0]))
    assert (low["points"], low["right"], low["error"]) == (2, 0, None)
    assert (high["points"], high["right"]) == (8, 0.75)
    assert high["confidence"] == pytest.approx(0.9)
    assert (high["low"], high["high"]) == pytest.approx((13 / 15, 14 / 15))
    # Photo 0 has 4 of 4 correct, photo 1 has 2 of 4: sums +1 and -1 from the share of 0.75.
    assert high["error"] == pytest.approx(1.96 * np.sqrt(2 / 1 * (1 + 1) / 8**2))
