"""Faces drawn by code, as samples of a split."""

from __future__ import annotations

import numpy as np
from train.miniature_300w import draw_face

from rednet_jax.data.samples import Sample
from rednet_jax.data.sources import Split
from rednet_jax.landmarks.boxes import landmark_box


def sample(name, seed=0, labelled=None):
    image, landmarks = draw_face(seed)
    labelled = np.ones(68, bool) if labelled is None else labelled
    return Sample(image, landmarks, labelled, landmark_box(landmarks, labelled), name)


def split_of(samples):
    return Split("any", "split", "digest", samples, lambda sample: sample)
