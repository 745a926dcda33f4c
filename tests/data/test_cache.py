"""Faces cut once and kept as one array."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from skimage import data

from rednet_jax.data.cache import cache_faces
from rednet_jax.data.samples import Sample
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.crops import apply_affine, crop_transform, cut_crop
from rednet_jax.landmarks.schemes import LANDMARKS_68, mean_shape


class SampleList(list[Sample]):
    """Samples in memory."""

    def __init__(self, samples: list[Sample], skipped: list[str]) -> None:
        super().__init__(samples)
        self.skipped = skipped


@pytest.fixture(scope="module")
def face() -> Sample:
    landmarks = (mean_shape(LANDMARKS_68) * 90 + [224, 134]).astype(np.float32)
    return Sample(data.astronaut(), landmarks, np.ones(68, bool), landmark_box(landmarks), "a")


def test_faces_are_cut_by_the_crop_rule(face: Sample) -> None:
    cache, names = cache_faces(SampleList([face, face], []), margin=2.0, size=80)
    affine = crop_transform(face.box, margin=2.0, size=80)
    assert names == ["a", "a"]
    assert cache.images.shape == (2, 80, 80, 3) and cache.images.dtype == np.uint8
    assert cache.landmarks.dtype == np.float32
    np.testing.assert_array_equal(cache.images[1], cut_crop(face.image, affine, 80))
    np.testing.assert_allclose(apply_affine(affine, cache.landmarks[0]), face.landmarks, atol=1e-3)
    low, high = cache.landmarks[0].min(0), cache.landmarks[0].max(0)
    np.testing.assert_allclose((low + high) / 2, 39.5, atol=1e-4)
    np.testing.assert_allclose((high - low).max(), 40, atol=1e-4)


def test_points_without_label_stay_zero(face: Sample) -> None:
    labelled = np.arange(68) >= 17
    landmarks = np.where(labelled[:, None], face.landmarks, 0)
    part = dataclasses.replace(
        face, landmarks=landmarks, labelled=labelled, box=landmark_box(landmarks, labelled)
    )
    cache, _ = cache_faces(SampleList([part], []), margin=2.0, size=64)
    np.testing.assert_array_equal(cache.labelled[0], labelled)
    assert (cache.landmarks[0, :17] == 0).all() and (cache.landmarks[0, 17:] > 0).all()
    np.testing.assert_allclose(cache.landmarks[0, 17:].max(), 31.5 + 16, atol=1e-4)


def test_no_face_at_all_is_refused_with_the_first_cause() -> None:
    with pytest.raises(RednetError, match=r"none of 0 faces could be read, first: a\.pts: why"):
        cache_faces(SampleList([], ["a.pts: why", "b.pts: why"]), margin=2.0, size=64)
