"""Normalisers of any scheme, compared with lengths computed by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from any_scheme import SCHEMES
from hypothesis import given

from rednet_jax.errors import RednetError
from rednet_jax.evaluate.metrics import face_errors, jitter, part_errors
from rednet_jax.landmarks.boxes import whole_face_box
from rednet_jax.landmarks.builtin import AFLW19, COFW29, IBUG68, REDNET7, WFLW98
from rednet_jax.landmarks.normalisers import (
    check_normaliser,
    default_normaliser,
    face_lengths,
    inner_landmarks,
    measurable,
    normaliser_text,
)
from rednet_jax.landmarks.schemes import Scheme


def test_default_normalisers() -> None:
    own = {s.name: default_normaliser(s) for s in (IBUG68, REDNET7, WFLW98, COFW29, AFLW19)}
    assert own.pop("aflw19") == "box" and set(own.values()) == {"inter-ocular"}
    assert normaliser_text(WFLW98) == "inter-ocular (outer eye corners)"
    assert normaliser_text(IBUG68, "inter-pupil") == (
        "inter-pupil (means of each eye's six points)"
    )
    assert normaliser_text(AFLW19) == "box (geometric mean of its sides)"
    chin = dataclasses.replace(IBUG68, name="mine", normaliser=((8,), (27, 28)))
    assert normaliser_text(chin) == "inter-ocular (landmarks 8 and 27,28)"


def test_by_hand() -> None:
    points = np.zeros((19, 2))
    points[0], points[1] = (10, 20), (40, 68)
    # The landmarks' own box is 40 x 68; `boxes` replaces it.
    boxes = np.array([0, 0, 8, 50.0])
    assert face_lengths(points, AFLW19, boxes=boxes) == pytest.approx(20)
    assert face_lengths(points, AFLW19, "box", boxes=boxes) == pytest.approx(20)
    groups = dataclasses.replace(AFLW19, name="mine", normaliser=((0, 1), (2, 3)))
    assert face_lengths(points, groups) == pytest.approx(np.hypot(25, 44))


@pytest.mark.parametrize(
    ("scheme", "normaliser", "reason"),
    [
        (AFLW19, "inter-ocular", "has no landmarks for 'inter-ocular'"),
        (REDNET7, "inter-pupil", "no closed parts 'right_eye' and 'left_eye'"),
        (COFW29, "box-diagonal", "do not span the face's box"),
        (IBUG68, "ears", "no normaliser 'ears'; known: inter-ocular"),
    ],
)
def test_a_normaliser_that_a_scheme_does_not_define_is_an_error(scheme, normaliser, reason) -> None:
    with pytest.raises(RednetError, match=reason):
        check_normaliser(normaliser, scheme)


def test_inner_landmarks_are_not_on_the_jaw() -> None:
    assert inner_landmarks(IBUG68) == list(range(17, 68))
    assert inner_landmarks(WFLW98) == list(range(33, 98))
    assert inner_landmarks(REDNET7) == list(range(7))


@given(SCHEMES)
def test_errors_of_any_scheme(scheme: Scheme) -> None:
    """A shift of s pixels is an error of 100 s / length at every point, in every region."""
    rng = np.random.default_rng(0)
    face = scheme.shape * 90 + rng.normal(0, 0.5, (scheme.count, 2)) + 200
    truth = np.stack([face, face * 1.5 + 7])
    labelled = np.ones(truth.shape[:-1], bool)
    labelled[1, 0] = False
    boxes = np.stack(
        [whole_face_box(points, scheme, expected=np.array([0, 0, 90, 90])) for points in truth]
    )
    lengths = face_lengths(truth, scheme, None, labelled, boxes)
    known = measurable(labelled, scheme, boxed=True)
    np.testing.assert_array_equal(np.isfinite(lengths), known)
    assert known[0]
    errors = face_errors(truth + np.array([3, 4]), truth, scheme, labelled, boxes=boxes)
    np.testing.assert_allclose(errors, np.where(known & labelled.any(1), 500 / lengths, np.nan))
    for region, of_region in part_errors(
        truth + np.array([3, 4]), truth, scheme, boxes=boxes
    ).items():
        assert region in scheme.regions
        np.testing.assert_allclose(of_region[0], 500 / lengths[0])


@given(SCHEMES)
def test_uniform_motion_is_no_jitter(scheme: Scheme) -> None:
    track = np.stack([scheme.shape * 90 + 5 * t for t in range(5)]).astype(np.float64)
    if scheme.count == 1:
        assert np.isnan(jitter(track, scheme))
    else:
        assert jitter(track, scheme) == pytest.approx(0, abs=1e-3)
