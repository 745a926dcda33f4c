"""The cumulative error distribution compared with counting, a fine histogram, and SciPy."""

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from rednet_jax.errors import RednetError
from rednet_jax.evaluate.cumulative import (
    cumulative_auc,
    cumulative_distribution,
    draw_cumulative,
    face_areas,
    failure_rate,
)


def test_failure_rate_counts_errors_above_the_cut_and_nan():
    errors = np.array([2.0, 8.0, 8.5, np.nan])
    assert failure_rate(errors, 8) == 50
    assert failure_rate(errors[:2], 8) == 0
    assert failure_rate(errors[3:], 8) == 100


def test_auc_is_the_area_under_the_cumulative_curve():
    # The curve is 1/4 from an error of 2, 1/2 from 4, 3/4 from 6:
    # (2 * 1/4 + 2 * 1/2 + 2 * 3/4) / 8.
    assert cumulative_auc(np.array([2.0, 4.0, 6.0, 9.0]), 8) == pytest.approx(100 * 3 / 8)
    assert cumulative_auc(np.zeros(3), 8) == 100
    assert cumulative_auc(np.array([8.0, 50.0]), 8) == 0
    assert cumulative_auc(np.array([4.0, np.nan]), 8) == 25


def test_auc_agrees_with_a_fine_histogram():
    errors = np.random.default_rng(0).gamma(4, 1.2, 500)
    cuts = np.linspace(0, 8, 20_001)
    curve = np.searchsorted(np.sort(errors), cuts, side="right") / len(errors)
    assert cumulative_auc(errors, 8) == pytest.approx(100 * np.trapezoid(curve, cuts) / 8, abs=0.01)


def test_auc_is_the_mean_of_the_areas_of_faces():
    errors = np.array([2.0, 4.0, 9.0, np.nan])
    np.testing.assert_allclose(face_areas(errors, 8), [75, 50, 0, 0])
    assert cumulative_auc(errors, 8) == pytest.approx(125 / 4)


def test_distribution_counted_by_hand():
    steps, share = cumulative_distribution(np.array([3.0, 1.0, np.nan, 3.0]))
    assert steps.tolist() == [1, 3] and share.tolist() == [25, 75]
    assert [len(part) for part in cumulative_distribution(np.zeros(0))] == [0, 0]


def test_distribution_agrees_with_scipy():
    errors = np.random.default_rng(1).gamma(4, 1.2, 300).round(1)
    theirs = scipy.stats.ecdf(errors).cdf
    steps, share = cumulative_distribution(errors)
    np.testing.assert_allclose(steps, theirs.quantiles)
    np.testing.assert_allclose(share, 100 * theirs.probabilities)


def test_the_image_shows_every_curve(tmp_path):
    rng = np.random.default_rng(2)
    single, both = tmp_path / "single.png", tmp_path / "folder/both.png"
    curves = {"a": rng.gamma(4, 1, 99), "b": rng.gamma(5, 1, 99)}
    texts = {"title": "a split", "normaliser": "a length"}
    draw_cumulative({"a": curves["a"]}, single, **texts)
    draw_cumulative(curves, both, **texts)
    images = [np.asarray(Image.open(path).convert("RGB")) for path in (single, both)]
    for image, orange in zip(images, (False, True), strict=True):
        assert (image == (31, 119, 180)).all(-1).any()
        assert (image == (255, 127, 14)).all(-1).any() == orange
    (tmp_path / "file").touch()
    with pytest.raises(RednetError, match=r"a.png: cannot be written"):
        draw_cumulative(curves, tmp_path / "file/a.png", **texts)
