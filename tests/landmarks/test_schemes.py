"""The built-in schemes are consistent with each other and with the geometry of faces."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rednet_jax.landmarks.builtin import IBUG68, REDNET7
from rednet_jax.landmarks.convert import convert, indices_in
from rednet_jax.landmarks.mean_shape import average_shape
from rednet_jax.landmarks.pts import read_pts
from rednet_jax.landmarks.schemes import Scheme, mirror_landmarks

both = pytest.mark.parametrize("scheme", [IBUG68, REDNET7], ids=["68", "7"])


@both
def test_scheme_is_consistent(scheme: Scheme) -> None:
    every = list(range(scheme.count))
    assert sorted(scheme.mirror) == every
    assert [scheme.mirror[i] for i in scheme.mirror] == every
    assert sorted(i for part in scheme.parts for i in part.points) == every
    assert scheme.groups is not None
    (right,), (left,) = scheme.groups
    assert scheme.mirror[right] == left
    parts = {part.name: set(part.points) for part in scheme.parts}
    for name, members in parts.items():
        side = name.split("_")[0]
        opposite = {"right": "left", "left": "right"}.get(side, side)
        assert {scheme.mirror[i] for i in members} == parts[name.replace(side, opposite)]


def test_each_landmark_is_in_one_region() -> None:
    sizes = {region: len(points) for region, points in IBUG68.regions.items()}
    assert sizes == {"jaw": 17, "brows": 10, "nose": 9, "eyes": 12, "mouth": 20}
    assert sorted(i for points in IBUG68.regions.values() for i in points) == list(range(68))
    assert REDNET7.regions == {"nose": (4,), "eyes": (0, 1, 2, 3), "mouth": (5, 6)}


def test_rednet7_is_a_subset_of_ibug68() -> None:
    seven = indices_in(IBUG68, REDNET7)
    assert seven == (36, 39, 42, 45, 30, 48, 54)
    assert [IBUG68.mirror[i] for i in seven] == [seven[i] for i in REDNET7.mirror]
    assert REDNET7.groups is not None
    assert tuple(tuple(seven[i] for i in group) for group in REDNET7.groups) == IBUG68.groups
    np.testing.assert_array_equal(REDNET7.shape, convert(IBUG68.shape, IBUG68, REDNET7))
    np.testing.assert_array_equal(REDNET7.shape, IBUG68.shape[list(seven)])


@both
@given(width=st.integers(1, 4000), seed=st.integers(0, 99))
def test_mirror_twice_is_identity(scheme: Scheme, width: int, seed: int) -> None:
    shape = (3, scheme.count, 2)
    points = np.random.default_rng(seed).uniform(-10, width, shape).astype(np.float32)
    once = mirror_landmarks(points, width, scheme)
    assert once.dtype == np.float32
    np.testing.assert_allclose(mirror_landmarks(once, width, scheme), points, atol=1e-3)


def test_mirror_by_hand() -> None:
    """In an image of width 10, column 2 becomes column 7, and right eyes become left eyes."""
    points = np.arange(14, dtype=np.float32).reshape(7, 2)
    mirrored = mirror_landmarks(points, 10, REDNET7)
    np.testing.assert_array_equal(mirrored[:2], [[3, 7], [5, 5]])
    on_device = mirror_landmarks(jnp.asarray(points), 10, REDNET7)
    np.testing.assert_array_equal(on_device, mirrored)


def test_mean_shape_is_a_face() -> None:
    """Right parts are left of left parts in the image, and points are in anatomical order."""
    x, y = IBUG68.shape.T
    assert (np.diff(x[:17]) > 0)[1:-1].all() and y[:17].argmax() == 8
    assert (np.diff(x[17:27]) > 0).all() and (np.diff(y[27:31]) > 0).all()
    assert (np.diff(x[31:36]) > 0).all()
    for first in (36, 42):
        assert (np.diff(x[first : first + 4]) > 0).all() and x[first + 5] < x[first + 4]
        assert y[first + 1 : first + 3].max() < y[first + 4 : first + 6].min()
    assert (np.diff(x[48:55]) > 0).all() and (np.diff(x[54:60]) < 0).all()
    assert (np.diff(x[60:65]) > 0).all() and (np.diff(x[64:68]) < 0).all()
    heights = [y[17:27].mean(), y[36:48].mean(), y[30], y[48:68].mean(), y[8]]
    assert all(above < below for above, below in pairwise(heights))
    np.testing.assert_allclose([x.min() + x.max(), x.mean()], 0, atol=1e-4)


def test_mirror_pairs_are_symmetric_on_real_faces(real_data: Path) -> None:
    """On the mean of labelled faces, each mirrored landmark is nearest to its partner."""
    shapes = np.stack([read_pts(file) for file in sorted((real_data / "300w").rglob("*.pts"))])
    low, high = shapes.min(1, keepdims=True), shapes.max(1, keepdims=True)
    mean = ((shapes - (low + high) / 2) / (high - low).max(-1, keepdims=True)).mean(0)
    apart = np.linalg.norm(mean[:, None] * [-1, 1] - mean[None], axis=-1)
    assert tuple(apart.argmin(1)) == IBUG68.mirror
    np.testing.assert_allclose(IBUG68.shape, average_shape(shapes), atol=1e-4)


def test_mean_of_faces_is_independent_of_position_and_size() -> None:
    face = IBUG68.shape
    low, high = face.min(0), face.max(0)
    alone = (face - (low + high) / 2) / (high - low).max()
    many = np.stack([face * 90 + 40, face * 300 - 7]).astype(np.float32)
    np.testing.assert_allclose(average_shape(many), alone, atol=1e-4)
