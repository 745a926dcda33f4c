"""Conversion of landmarks between schemes, compared with explicit sums."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.builtin import (
    AFLW19,
    BUILTIN,
    COFW29,
    HEAD70,
    IBUG68,
    REDNET7,
    WFLW98,
)
from rednet_jax.landmarks.convert import convert, convert_labelled, converts, indices_in
from rednet_jax.landmarks.schemes import Conversion, Scheme

PAIRS = [
    (source, target)
    for source in BUILTIN.values()
    for target in BUILTIN.values()
    if converts(source, target)
]
ids = [f"{source.name} to {target.name}" for source, target in PAIRS]


def test_conversions_of_the_builtin_schemes() -> None:
    sources = {
        target.name: {source.name for source, converted in PAIRS if converted == target}
        for target in BUILTIN.values()
    }
    assert sources == {
        "ibug68": {"ibug68", "wflw98", "head70"},
        "rednet7": {"rednet7", "ibug68", "wflw98", "cofw29", "aflw19", "head70"},
        "wflw98": {"wflw98", "ibug68", "head70"},
        "cofw29": {"cofw29", "ibug68", "wflw98", "head70"},
        "aflw19": {"aflw19", "ibug68", "wflw98", "head70"},
        "head70": {"head70"},
    }
    with pytest.raises(RednetError, match="cofw29 cannot be converted to ibug68: it has no conv"):
        convert(COFW29.shape, COFW29, IBUG68)


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=ids)
def test_a_mean_face_stays_a_mean_face(source: Scheme, target: Scheme) -> None:
    """Also if rotated, scaled and shifted: weights sum to 1 and coordinates are not mixed."""
    turn = np.array([[0.8, 0.6], [-0.6, 0.8]]) * 140
    points = source.shape @ turn + [300, 200]
    converted = convert(points, source, target)
    np.testing.assert_allclose(converted, target.shape @ turn + [300, 200], atol=0.02)
    on_device = convert(jnp.asarray(points, jnp.float32), source, target)
    assert on_device.dtype == jnp.float32
    np.testing.assert_allclose(on_device, converted, atol=1e-3)


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=ids)
def test_mirrored_landmarks_convert_to_mirrored_ones(source: Scheme, target: Scheme) -> None:
    points = source.shape + np.random.default_rng(0).normal(0, 0.02, (source.count, 2))
    mirrored = (points * [-1, 1])[list(source.mirror)]
    of_mirrored = convert(mirrored, source, target)
    then_mirrored = (convert(points, source, target) * [-1, 1])[list(target.mirror)]
    np.testing.assert_allclose(of_mirrored, then_mirrored, atol=1e-6)


def test_there_and_back() -> None:
    points = np.random.default_rng(0).normal(size=(3, 70, 2)).astype(np.float32)
    back = convert(convert(points, HEAD70, WFLW98), WFLW98, IBUG68)
    np.testing.assert_array_equal(back, points[:, :68])
    direct = convert(points, HEAD70, REDNET7)
    np.testing.assert_array_equal(convert(back, IBUG68, REDNET7), direct)
    for through in (COFW29, AFLW19):
        by_way = convert(convert(points, HEAD70, through), through, REDNET7)
        np.testing.assert_array_equal(by_way, direct)


def test_by_hand() -> None:
    """Halfway between the first two jaw points: 3/8, 6/8 and -1/8 of the first three."""
    points = np.zeros((68, 2))
    points[:3] = [[0, 0], [8, 16], [8, 32]]
    converted = convert(points, IBUG68, WFLW98)
    np.testing.assert_allclose(converted[:3], [[0, 0], [5, 8], [8, 16]])
    # The wing of the nose: 1.3 of its base's end, -0.5 of the base's middle, 0.2 of the tip.
    points[[31, 33, 30]] = [[10, 0], [20, 0], [20, -10]]
    np.testing.assert_allclose(convert(points, IBUG68, AFLW19)[12], [7, -2])


def test_a_landmark_is_known_if_all_its_terms_are_known() -> None:
    labelled = np.ones((2, 68), bool)
    labelled[1, 1] = False
    known = convert_labelled(labelled, IBUG68, WFLW98)
    assert known[0].all() and np.flatnonzero(~known[1]).tolist() == [1, 2, 3, 5]
    np.testing.assert_array_equal(convert_labelled(jnp.asarray(labelled), IBUG68, WFLW98), known)
    assert convert_labelled(labelled, IBUG68, IBUG68) is labelled


@given(st.integers(0, 99))
def test_conversion_through_a_builtin_scheme(seed: int) -> None:
    """A scheme with a conversion from ibug68 also accepts the sources of ibug68."""
    mine = dataclasses.replace(
        REDNET7,
        name="mine7",
        conversions=(Conversion("ibug68", tuple(((i, 0.5), (i + 1, 0.5)) for i in range(7))),),
    )
    points = np.random.default_rng(seed).normal(size=(70, 2))
    expected = (points[:7] + points[1:8]) / 2
    np.testing.assert_allclose(convert(points, HEAD70, mine), expected)
    assert indices_in(HEAD70, mine) is None and indices_in(HEAD70, REDNET7) is not None
    assert indices_in(mine, IBUG68) is None


def test_an_index_beyond_the_source_is_an_error() -> None:
    mine = dataclasses.replace(
        REDNET7,
        name="mine7",
        conversions=(Conversion("ibug68", tuple(((i + 65, 1.0),) for i in range(7))),),
    )
    with pytest.raises(RednetError, match="mine7: conversions: ibug68: row 3: landmark 68"):
        convert(IBUG68.shape, IBUG68, mine)
    # Through ibug68, too.
    with pytest.raises(RednetError, match="mine7: conversions: ibug68: row 3: landmark 68"):
        convert(HEAD70.shape, HEAD70, mine)


def test_integers_convert_to_float32() -> None:
    points = np.arange(136).reshape(68, 2)
    for source in (points, jnp.asarray(points)):
        for target in (IBUG68, WFLW98):
            converted = convert(source, IBUG68, target)
            assert converted.dtype == np.float32
            np.testing.assert_allclose(
                converted, convert(points.astype(np.float32), IBUG68, target), rtol=1e-6
            )


def test_convert_compiles_to_a_gather() -> None:
    compiled = jax.jit(lambda points: convert(points, HEAD70, COFW29))
    points = np.random.default_rng(0).normal(size=(5, 70, 2)).astype(np.float32)
    np.testing.assert_allclose(compiled(points), convert(points, HEAD70, COFW29), atol=1e-5)
    assert "dot" not in compiled.lower(points).as_text()
