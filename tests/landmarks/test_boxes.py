"""Bounding boxes: of landmarks, jittered as a detector would, and their overlap."""

from __future__ import annotations

import numpy as np
import pytest

from rednet_jax.landmarks.boxes import (
    intersection_over_union,
    jitter_box,
    landmark_box,
    whole_face_box,
)
from rednet_jax.landmarks.schemes import LANDMARKS_68, mean_shape

POINTS = np.asarray([[3.5, 10], [-1, 4], [8, 6]], np.float32)


def test_landmark_box_holds_the_labelled_points() -> None:
    np.testing.assert_array_equal(landmark_box(POINTS), [-1, 4, 8, 10])
    labelled = np.asarray([True, False, True])
    np.testing.assert_array_equal(landmark_box(POINTS, labelled), [3.5, 6, 8, 10])
    with pytest.raises(ValueError, match="at least one labelled"):
        landmark_box(POINTS, np.zeros(3, bool))


@pytest.mark.parametrize("known", [slice(17, 68), slice(36, 48), slice(36, 38)])
def test_the_box_of_a_whole_face_from_some_of_its_points(known: slice) -> None:
    """Of a mean face, turned and scaled, any two points tell where all the others are."""
    turn = np.asarray([[0.9, 0.4], [-0.4, 0.9]])
    landmarks = mean_shape(LANDMARKS_68) @ turn * 80 + [50, 70]
    labelled = np.zeros(68, bool)
    labelled[known] = True
    expected = landmark_box(landmarks)
    box = whole_face_box(np.where(labelled[:, None], landmarks, 0), labelled)
    np.testing.assert_allclose(box, expected, atol=0.01)
    assert box.dtype == np.float32


def test_the_box_of_a_whole_face_holds_labelled_points_as_they_are() -> None:
    landmarks = mean_shape(LANDMARKS_68) * 80
    landmarks[8] = [0, 70]
    np.testing.assert_array_equal(
        whole_face_box(landmarks, np.ones(68, bool)), landmark_box(landmarks)
    )
    assert whole_face_box(landmarks, np.arange(68) != 30)[3] == 70
    with pytest.raises(ValueError, match="at least two labelled"):
        whole_face_box(landmarks, np.arange(68) == 30)


def test_jitter_spreads_as_promised() -> None:
    """Centre N(0, 0.06 side) on each axis, log size N(0, 0.10), all of them independent."""
    rng = np.random.default_rng(0)
    box = np.asarray([10, 20, 90, 60], np.float32)
    drawn = np.stack([jitter_box(rng, box) for _ in range(20_000)]).astype(np.float64)
    centre = ((drawn[:, :2] + drawn[:, 2:]) / 2 - [50, 40]) / 80
    size = np.log((drawn[:, 2:] - drawn[:, :2]) / [80, 40])
    np.testing.assert_allclose(size[:, 0], size[:, 1], atol=1e-5)
    draws = np.column_stack([centre, size[:, 0]])
    np.testing.assert_allclose(draws.mean(0), 0, atol=0.003)
    np.testing.assert_allclose(draws.std(0), [0.06, 0.06, 0.10], rtol=0.02)
    np.testing.assert_allclose(np.corrcoef(draws.T), np.eye(3), atol=0.03)
    # Normal, not uniform: 4.55 % lie beyond two deviations.
    np.testing.assert_allclose((abs(draws) > 2 * draws.std(0)).mean(0), 0.0455, atol=0.006)


def test_jitter_is_a_function_of_the_seed() -> None:
    box = np.asarray([0, 0, 10, 10], np.float32)
    first, again, other = (jitter_box(np.random.default_rng(seed), box) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("other", "overlap"),
    [([0, 0, 4, 2], 1), ([2, 0, 6, 2], 1 / 3), ([4, 0, 8, 2], 0), ([1, 1, 2, 5], 1 / 11)],
)
def test_intersection_over_union(other: list[float], overlap: float) -> None:
    a, b = np.asarray([0.0, 0, 4, 2]), np.asarray(other, float)
    assert intersection_over_union(a, b) == pytest.approx(overlap)
    assert intersection_over_union(b, a) == pytest.approx(overlap)
