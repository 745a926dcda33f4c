"""The boxes of five points are equivariant to rotation, translation and scale."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rednet_jax.detection.detector import (
    BOX_FIT,
    POINTS,
    Detection,
    by_prominence,
    landmarks_box,
    point_frame,
    upright_box,
)
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.crops import apply_affine, crop_transform, invert_affine

angles = st.floats(-math.pi, math.pi)
offsets = st.floats(-0.08, 0.08)


def face(points):
    points = np.asarray(points, np.float32)
    return Detection(landmarks_box(points), 0.9, points)


def turned(points, angle):
    cosine, sine = math.cos(angle), math.sin(angle)
    return points @ np.array([[cosine, sine], [-sine, cosine]])


@given(
    angles,
    st.floats(20, 800),
    st.tuples(st.floats(-500, 4000), st.floats(-500, 4000)),
    st.lists(offsets, min_size=10, max_size=10),
)
def test_upright_box_is_equivariant_to_similarities(angle, scale, shift, noise):
    points = 100 * (POINTS + np.reshape(noise, (5, 2)))
    box, roll = upright_box(face(points))
    moved, moved_roll = upright_box(face(scale / 100 * turned(points, angle) + shift))
    tolerance = 1e-3 * scale + 1e-2
    assert abs(math.remainder(moved_roll - roll - angle, 2 * math.pi)) < 1e-2
    np.testing.assert_allclose(moved[2:] - moved[:2], scale / 100 * (box[2:] - box[:2]), atol=2e-2)
    centre = scale / 100 * turned((box[:2] + box[2:]) / 2, angle) + shift
    np.testing.assert_allclose((moved[:2] + moved[2:]) / 2, centre, atol=tolerance)


@given(angles, st.lists(offsets, min_size=10, max_size=10))
def test_upright_crop_is_invariant_to_the_roll(angle, noise):
    points = 100 * (POINTS + np.reshape(noise, (5, 2)))

    def in_crop(five):
        box, roll = upright_box(face(five))
        affine = crop_transform(box, margin=1.5, size=64, roll=roll)
        return apply_affine(invert_affine(affine), np.asarray(five, np.float64))

    expected = in_crop(points + 300)
    np.testing.assert_allclose(in_crop(turned(points, angle) + 300), expected, atol=0.02)


@given(st.lists(offsets, min_size=10, max_size=10))
def test_mirror_image_has_the_mirrored_box(noise):
    points = 100 * (POINTS + np.reshape(noise, (5, 2)))
    x0, y0, x1, y1 = landmarks_box(points)
    # The reference is symmetric, so the roll of the mirror image has the opposite sign.
    mirrored = landmarks_box(points[[1, 0, 2, 4, 3]] * [-1, 1])
    roll = point_frame(points[[1, 0, 2, 4, 3]] * [-1, 1])[0]
    assert abs(roll + point_frame(points)[0]) < 1e-9
    # The mean shape is symmetric to within a few thousandths of its side.
    np.testing.assert_allclose(mirrored, [-x1, y0, -x0, y1], atol=2)


def test_box_of_the_mean_points_by_hand():
    box, roll = upright_box(face(200 * POINTS + [320, 240]))
    width, height = 200 * np.exp(BOX_FIT[2:, 3])
    centre = np.array([320, 240 + 200 * BOX_FIT[1, 3]])
    np.testing.assert_allclose(box[2:] - box[:2], [width, height], rtol=1e-3)
    np.testing.assert_allclose((box[:2] + box[2:]) / 2, centre, atol=0.1)
    assert abs(roll) < 1e-3


def test_landmarks_box_is_the_upright_box_of_an_upright_face_and_wider_at_45_degrees():
    points = 200 * POINTS + 300
    points = turned(points, -point_frame(points)[0])
    box, _ = upright_box(face(points))
    np.testing.assert_allclose(landmarks_box(points), box, atol=0.05)
    # At 45 degrees: the bounding box of the mean shape, stretched and turned, by hand.
    shape = np.asarray(IBUG68.shape, np.float64)
    shape = (
        (shape - (shape.min(0) + shape.max(0)) / 2) / np.ptp(shape, axis=0) * (box[2:] - box[:2])
    )
    expected = landmark_box(turned(shape + (box[:2] + box[2:]) / 2, math.pi / 4))
    np.testing.assert_allclose(landmarks_box(turned(points, math.pi / 4)), expected, atol=0.05)


def test_without_points_the_box_is_upright():
    box = np.array([10, 20, 60, 80], np.float32)
    upright, roll = upright_box(Detection(box, 0.5))
    np.testing.assert_array_equal(upright, box)
    assert roll == 0 and Detection(box, 0.5).roll == 0


def test_by_prominence_weighs_score_and_side():
    small = Detection(np.array([0, 0, 30, 30], np.float32), 0.9)
    large = Detection(np.array([0, 0, 60, 60], np.float32), 0.8)
    assert by_prominence([small, large]) == [large, small]


def test_crop_transform_rotates_about_the_centre_of_the_box():
    box = np.array([10.0, 20, 50, 80])
    upright = crop_transform(box, margin=2.0, size=60)
    np.testing.assert_array_equal(crop_transform(box, margin=2.0, size=60, roll=0.0), upright)
    # 90 degrees clockwise: the crop's right is down in the image, its bottom is left.
    quarter = crop_transform(jnp.asarray(box, jnp.float32), margin=2.0, size=60, roll=math.pi / 2)
    middle = [29.5, 29.5]
    points = apply_affine(np.asarray(quarter), np.array([middle, [39.5, 29.5], [29.5, 39.5]]))
    np.testing.assert_allclose(points, [[30, 50], [30, 70], [10, 50]], atol=1e-4)
    boxes = np.stack([box, box])
    both = crop_transform(boxes, margin=2.0, size=60, roll=np.array([0.0, math.pi / 2]))
    np.testing.assert_allclose(both, [upright, np.asarray(quarter)], atol=1e-4)
