"""Crops around the labels' boxes, which may be displaced."""

from __future__ import annotations

import numpy as np
import pytest
from evaluate.faces import sample, split_of

from rednet_jax.evaluate import protocols
from rednet_jax.evaluate.protocols import crop_split
from rednet_jax.landmarks.builtin import IBUG68


def test_jitter_depends_on_the_name_only(narrow):
    config = narrow("compact")
    samples = [sample(f"folder/face{i}") for i in range(400)]
    forwards = crop_split(split_of(samples), config, "jitter")
    backwards = crop_split(split_of(samples[::-1]), config, "jitter")
    np.testing.assert_array_equal(forwards.affines, backwards.affines[::-1])
    np.testing.assert_array_equal(forwards.images, backwards.images[::-1])
    truth = crop_split(split_of(samples[:1]), config).affines[0]
    middle = np.array([(config.image_size - 1) / 2] * 2 + [1])
    side = config.image_size / config.crop_margin  # of the labels' box, crop pixels
    shift = (forwards.affines @ middle - truth @ middle) / (side * truth[0, 0])
    size = np.log(forwards.affines[:, 0, 0] / truth[0, 0])
    np.testing.assert_allclose(shift.std(0), 0.06, rtol=0.15)
    np.testing.assert_allclose(size.std(), 0.10, rtol=0.15)
    np.testing.assert_allclose(shift.mean(0), 0, atol=0.01)
    np.testing.assert_allclose(size.mean(), 0, atol=0.02)
    # Pinned, since results of different machines and releases must be comparable.
    known = [*shift[7], size[7]]
    np.testing.assert_allclose(known, [-0.01190, -0.00969, -0.02831], atol=2e-5)


class NoDetector:
    def detect(self, image):
        raise AssertionError("the detector is not for these boxes")


@pytest.mark.parametrize("boxes", ["truth", "jitter", "jitter-hard"])
def test_other_boxes_do_not_use_a_detector(narrow, boxes):
    samples, config = split_of([sample("a", 0)]), narrow("compact")
    crops = crop_split(samples, config, boxes, detector=NoDetector())
    np.testing.assert_array_equal(crops.affines, crop_split(samples, config, boxes).affines)


def test_hard_jitter_is_twice_the_displacement():
    face = sample("someone")
    boxes = [protocols._box(face, IBUG68, b) for b in ("truth", "jitter", "jitter-hard")]
    centres = [(box[:2] + box[2:]) / 2 for box in boxes]
    np.testing.assert_allclose(centres[2] - centres[0], 2 * (centres[1] - centres[0]), rtol=1e-4)
    sides = [box[2] - box[0] for box in boxes]
    assert sides[2] / sides[0] == pytest.approx((sides[1] / sides[0]) ** 2, rel=1e-4)
