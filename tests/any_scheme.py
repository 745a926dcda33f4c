"""Random landmark schemes."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.schemes import Part, Scheme


def random_scheme(count: int, seed: int) -> Scheme:
    """Returns a scheme of `count` landmarks: random mirror pairs and points on the axis.

    Its parts, their regions and its normaliser are random, too.
    """
    rng = np.random.default_rng([count, seed])
    pairs = int(rng.integers(0, count // 2 + 1))
    order = rng.permutation(count)
    mirror, shape = np.arange(count), np.zeros((count, 2))
    for right, left in order[: 2 * pairs].reshape(-1, 2):
        mirror[right], mirror[left] = left, right
        shape[right] = rng.uniform([-0.45, -0.45], [-0.02, 0.45])
        shape[left] = shape[right] * [-1, 1]
    for on_axis in order[2 * pairs :]:
        shape[on_axis] = 0, rng.uniform(-0.45, 0.45)
    grouped = np.array_split(rng.permutation(count), int(rng.integers(1, 5)))
    parts = [
        Part(f"part{number}", tuple(map(int, points)), bool(rng.integers(2)), f"region{number % 2}")
        for number, points in enumerate(grouped[:3])
        if len(points)
    ]
    right, left = (order[0], mirror[order[0]]) if pairs else (0, 0)
    spans_two = pairs > 0 and rng.integers(2)
    return Scheme(
        name=f"random{count}-{seed}",
        mirror=tuple(map(int, mirror)),
        mean_shape=tuple((float(x), float(y)) for x, y in shape),
        parts=tuple(parts),
        normaliser=((int(right),), (int(left),)) if spans_two else "box",
        outline=IBUG68.mean_shape[:27],
    )


SCHEMES = st.builds(random_scheme, st.integers(1, 200), st.integers(0, 2**32 - 1))
"""Schemes of 1 to 200 landmarks."""
