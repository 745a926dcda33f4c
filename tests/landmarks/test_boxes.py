"""Bounding boxes of landmarks, random jitter, and intersection over union."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from rednet_jax.data.builders.aflw import SHARED
from rednet_jax.landmarks.boxes import (
    face_roll,
    intersection_over_union,
    jitter_box,
    landmark_box,
    turned_face_box,
    whole_face_box,
)
from rednet_jax.landmarks.builtin import IBUG68, REDNET7
from rednet_jax.landmarks.convert import convert, indices_in
from rednet_jax.landmarks.pts import read_pts
from rednet_jax.landmarks.schemes import Scheme

POINTS = np.asarray([[3.5, 10], [-1, 4], [8, 6]], np.float32)


def test_landmark_box_encloses_the_labelled_points() -> None:
    np.testing.assert_array_equal(landmark_box(POINTS), [-1, 4, 8, 10])
    labelled = np.asarray([True, False, True])
    np.testing.assert_array_equal(landmark_box(POINTS, labelled), [3.5, 6, 8, 10])
    with pytest.raises(ValueError, match="at least one labelled"):
        landmark_box(POINTS, np.zeros(3, bool))


@pytest.mark.parametrize("known", [slice(17, 68), slice(36, 48), slice(36, 38)])
def test_the_box_of_a_whole_face_from_some_of_its_points(known: slice) -> None:
    """Any two points of a rotated and scaled mean face determine all the others."""
    turn = np.asarray([[0.9, 0.4], [-0.4, 0.9]])
    landmarks = IBUG68.shape @ turn * 80 + [50, 70]
    labelled = np.zeros(68, bool)
    labelled[known] = True
    expected = landmark_box(landmarks)
    box = whole_face_box(np.where(labelled[:, None], landmarks, 0), IBUG68, labelled)
    np.testing.assert_allclose(box, expected, atol=0.01)
    assert box.dtype == np.float32


def test_the_box_of_a_whole_face_encloses_the_labelled_points() -> None:
    landmarks = IBUG68.shape * 80
    landmarks[8] = [0, 70]
    np.testing.assert_array_equal(
        whole_face_box(landmarks, IBUG68, np.ones(68, bool)), landmark_box(landmarks)
    )
    assert whole_face_box(landmarks, IBUG68, np.arange(68) != 30)[3] == 70


def test_the_box_of_a_face_with_one_labelled_point_has_the_expected_size() -> None:
    landmarks = IBUG68.shape * 80 + [50, 70]
    one = np.arange(68) == 30
    with pytest.raises(ValueError, match="one labelled landmark needs an expected box"):
        whole_face_box(landmarks, IBUG68, one)
    with pytest.raises(ValueError, match="at least one labelled"):
        whole_face_box(landmarks, IBUG68, np.zeros(68, bool), expected=np.float32([0, 0, 80, 80]))
    box = whole_face_box(landmarks, IBUG68, one, expected=np.float32([300, 200, 360, 280]))
    np.testing.assert_allclose(box, landmark_box(landmarks), atol=0.01)
    # With more points, the expected box is not used.
    many = np.arange(68) >= 17
    np.testing.assert_array_equal(
        whole_face_box(landmarks, IBUG68, many, expected=np.float32([0, 0, 9, 9])),
        whole_face_box(landmarks, IBUG68, many),
    )


def test_the_box_of_rednet7_is_that_of_the_whole_face() -> None:
    turn = np.asarray([[0.8, 0.5], [-0.5, 0.8]])
    face = IBUG68.shape @ turn * 120 + [300, 200]
    seven = convert(face, IBUG68, REDNET7)
    np.testing.assert_allclose(whole_face_box(seven, REDNET7), landmark_box(face), atol=0.01)
    two = np.isin(np.arange(7), [0, 3])
    box = whole_face_box(np.where(two[:, None], seven, 0), REDNET7, two)
    np.testing.assert_allclose(box, landmark_box(face), atol=0.01)


EYE, CHIN, JAW = range(36, 42), range(6, 11), range(17)
HALF = (*range(8), *range(17, 22), *EYE, 31, 32, 48, 49, 59, 60, 67)


@given(
    missing=st.sampled_from([CHIN, JAW, EYE, HALF, (*JAW, *EYE), (*JAW, *range(48, 68))]),
    angle=st.floats(-np.pi, np.pi),
    side=st.floats(20, 800),
    place=arrays(np.float64, 2, elements=st.floats(-500, 3000)),
    seed=st.integers(0, 99),
)
def test_any_part_of_a_face_determines_its_box(
    missing: Sequence[int], angle: float, side: float, place: NDArray[np.float64], seed: int
) -> None:
    """For deviations of 1 % of the side from the mean face, the box is within 10 % of the side."""
    turn = np.asarray([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    shape = IBUG68.shape + np.random.default_rng(seed).normal(0, 0.01, (68, 2))
    face = shape @ turn * side + place
    labelled = ~np.isin(np.arange(68), list(missing))
    box = whole_face_box(np.where(labelled[:, None], face, 0), IBUG68, labelled)
    whole = landmark_box(face)
    np.testing.assert_allclose(box, whole, atol=0.1 * side)
    assert max(box[2:] - box[:2]) / max(whole[2:] - whole[:2]) == pytest.approx(1, abs=0.1)


def test_the_box_of_partly_labelled_real_faces(real_data: Path) -> None:
    """With the labels of AFLW, or without the chin, crops are as large as with all labels."""
    faces = [read_pts(path) for path in sorted((real_data / "300w").rglob("*.pts"))[::4]]
    parts = {"no jaw": [*range(17, 68)], "aflw": sorted(SHARED.values())}
    parts["aflw, no chin"] = parts["aflw"][1:]
    parts["seven"] = list(indices_in(IBUG68, REDNET7) or ())
    for name, points in parts.items():
        labelled = np.isin(np.arange(68), points)
        sides = np.asarray(
            [
                [
                    max(box[2:] - box[:2])
                    for box in (whole_face_box(face, IBUG68, labelled), landmark_box(face))
                ]
                for face in faces
            ]
        )
        ratios = sides[:, 0] / sides[:, 1]
        assert np.median(ratios) == pytest.approx(1, abs=0.05), name
        assert np.percentile(abs(ratios - 1), 90) < 0.15, name


@given(
    st.floats(-3.1, 3.1),
    st.floats(5, 500),
    st.integers(0, 99),
    st.sampled_from([IBUG68, REDNET7]),
)
def test_a_turned_box_is_the_rotated_upright_box(
    angle: float, side: float, seed: int, scheme: Scheme
) -> None:
    """Roll and box of a rotated face are those of the upright face, rotated."""
    noise = np.random.default_rng(seed).normal(0, 0.02, (68, 2))
    upright = convert((IBUG68.shape + noise) * side, IBUG68, scheme)
    turn = np.asarray([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    turned = upright @ turn + 40
    error = face_roll(turned, scheme) - face_roll(upright, scheme) - angle
    assert abs(np.angle(np.exp(1j * error))) < 1e-4
    box, whole = turned_face_box(turned, scheme, angle), whole_face_box(upright, scheme)
    np.testing.assert_allclose(box[2:] - box[:2], whole[2:] - whole[:2], rtol=1e-3)
    centre = (whole[:2] + whole[2:]) / 2 @ turn + 40
    np.testing.assert_allclose((box[:2] + box[2:]) / 2, centre, atol=1e-3 * side)
    np.testing.assert_array_equal(
        turned_face_box(turned, scheme, 0.0), whole_face_box(turned, scheme)
    )


def test_distribution_of_jitter() -> None:
    """Centre N(0, 0.06 side) on each axis, log size N(0, 0.10), all independent."""
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
    # Normal, not uniform: 4.55 % are beyond two standard deviations.
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
