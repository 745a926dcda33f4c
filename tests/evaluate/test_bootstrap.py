"""Intervals compared with theory, SciPy, and repeated simulations."""

import numpy as np
import pytest
import scipy.stats

from rednet_jax.evaluate.bootstrap import (
    bootstrap_interval,
    bootstrap_intervals,
    mean_difference,
    paired_interval,
)


def width(interval):
    return interval[1] - interval[0]


def test_interval_of_many_faces_agrees_with_the_central_limit_theorem():
    values = np.random.default_rng(0).gamma(4, 1.2, 400)
    error = values.std(ddof=1) / 20
    interval = bootstrap_interval(values)
    np.testing.assert_allclose(interval, values.mean() + error * np.array([-1.96, 1.96]), rtol=0.01)
    assert width(bootstrap_interval(values, level=0.8)) == pytest.approx(2 * 1.28 * error, rel=0.05)


def test_agrees_with_scipy():
    values = np.random.default_rng(1).gamma(2, 1.0, 60)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=10_000, rng=0
    ).confidence_interval
    np.testing.assert_allclose(bootstrap_interval(values), theirs, atol=0.03 * width(theirs))
    shifted = values + np.random.default_rng(2).normal(0.3, 0.5, 60)
    theirs = scipy.stats.bootstrap(
        (shifted - values,), np.mean, method="percentile", n_resamples=10_000, rng=0
    ).confidence_interval
    ours = paired_interval(shifted, values)
    np.testing.assert_allclose(ours, theirs, atol=0.03 * width(theirs))


def test_two_faces_have_two_means():
    # One of two is drawn, so both means are equally likely.
    assert bootstrap_interval([1.0, 5.0]) == (1.0, 5.0)


def test_the_variance_is_right_with_few_groups():
    """The expected variance of the resampled means is that of the mean of the groups."""
    values = np.random.default_rng(3).normal(size=(2000, 3))
    # Two of three are drawn: the variance of their mean over all nine pairs.
    pairs = (values[:, :, None] + values[:, None, :]) / 2
    assert pairs.reshape(2000, 9).var(1).mean() == pytest.approx(1 / 3, rel=0.05)
    level = np.quantile(pairs[0], [0.25, 0.75])
    np.testing.assert_allclose(bootstrap_interval(values[0], level=0.5), level, atol=1e-12)


def test_groups_are_resampled_as_a_whole():
    people = np.random.default_rng(4).normal(5, 1, 30)
    values, owners = np.repeat(people, 8), np.repeat([f"p{i}" for i in range(30)], 8)
    assert width(bootstrap_interval(values)) < 0.5 * width(bootstrap_interval(values, owners))
    np.testing.assert_allclose(bootstrap_interval(values, owners), bootstrap_interval(people))
    # One group is drawn; a group of two faces has twice the weight.
    assert bootstrap_interval([0.0, 3.0, 6.0], ["a", "b", "b"]) == (0.0, 4.5)


def test_coverage_of_the_interval():
    rng = np.random.default_rng(5)
    inside = 0
    for seed in range(300):
        first = rng.normal(0.5, 1, (3, 1)) + rng.normal(0, 1, (3, 40))
        low, high = bootstrap_interval(first, level=0.9, draws=500, seed=seed)
        inside += low <= 0.5 <= high
    # With three seeds a percentile interval covers less than 90 %, but far more than the 35 % of an
    # interval with fixed seeds.
    assert 0.65 < inside / 300 <= 0.95


def test_resampling_seeds_widens_the_interval():
    rng = np.random.default_rng(6)
    faces = rng.gamma(4, 1, 300)
    first = faces + rng.normal(0, 0.3, (5, 1)) + rng.normal(0, 0.1, (5, 300))
    second = faces + 0.2 + rng.normal(0, 0.3, (4, 1)) + rng.normal(0, 0.1, (4, 300))
    over_seeds = paired_interval(first, second)
    faces_only = paired_interval(first.mean(0), second.mean(0))
    spread = (first.mean(1).var(ddof=1) / 5 + second.mean(1).var(ddof=1) / 4) ** 0.5
    assert width(over_seeds) == pytest.approx(2 * 1.96 * spread, rel=0.1)
    assert width(faces_only) < 0.2 * width(over_seeds)
    middle = mean_difference(first, second)
    assert middle == pytest.approx(first.mean() - second.mean())
    assert over_seeds[0] < middle < over_seeds[1]


def test_paired_intervals_cancel_the_difficulty_of_faces():
    faces = np.random.default_rng(7).gamma(4, 1, 100)
    low, high = paired_interval(faces + 0.5, faces)
    assert (low, high) == (pytest.approx(0.5), pytest.approx(0.5))
    assert paired_interval(faces, faces + 0.5) == (pytest.approx(-0.5), pytest.approx(-0.5))


def test_faces_with_nan_are_excluded():
    values = np.random.default_rng(8).normal(size=(2, 50))
    holes = values.copy()
    holes[0, 3], holes[1, 40] = np.nan, np.nan
    rest = np.delete(np.arange(50), [3, 40])
    assert bootstrap_interval(holes) == bootstrap_interval(values[:, rest])
    assert paired_interval(holes, values) == paired_interval(values[:, rest], values[:, rest])
    assert paired_interval(holes[0], values[0]) == (0, 0)
    owners = np.arange(50) // 2
    assert bootstrap_interval(holes, owners) == bootstrap_interval(values[:, rest], owners[rest])
    assert mean_difference(holes[0], values[0]) == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", [[], [3.0], [np.nan, np.nan], [3.0, np.nan]])
def test_one_group_has_no_interval(values):
    assert np.isnan(bootstrap_interval(values)).all()
    assert np.isnan(bootstrap_interval([2.0, 3.0], ["same", "same"])).all()
    assert np.isnan(mean_difference([np.nan], [1.0]))


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(9).normal(size=50)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_interval([1.0, 2.0], [1.0, 2.0, 3.0]), "shape"),
        (lambda: bootstrap_interval(np.zeros((2, 2, 2))), "shape"),
        (lambda: bootstrap_interval([1.0, 2.0], ["a"]), "1 groups for 2 faces"),
        (lambda: bootstrap_interval([1.0, 2.0], level=95), "level 95"),
        (lambda: bootstrap_interval([1.0, 2.0], draws=0), "0 draws"),
    ],
)
def test_invalid_arguments_raise(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_intervals_of_columns_equal_those_of_single_columns():
    rng = np.random.default_rng(10)
    table = {name: rng.normal(size=40) for name in "abc"}
    table["b"][:5] = np.nan
    owners = np.arange(40) // 3
    intervals = bootstrap_intervals(table, owners)
    assert list(intervals) == ["a", "b", "c"]
    for name, values in table.items():
        assert intervals[name] == pytest.approx(bootstrap_interval(values, owners))
