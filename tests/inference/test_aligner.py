"""`Aligner`: faces in images, upright or rotated, and images without faces."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

import rednet_jax
from rednet_jax.detection.detector import Detection
from rednet_jax.errors import RednetError
from rednet_jax.inference.aligner import BATCH, Aligner
from rednet_jax.quickstart import portrait_path
from rednet_jax.weights.store import write_weights

FIVE = (slice(36, 42), slice(42, 48), slice(30, 31), slice(48, 49), slice(54, 55))
"""Landmarks whose means are a detector's five points: eyes, nose, corners of the mouth."""


class FixedDetector:
    """A detector that always returns the same faces."""

    def __init__(self, *faces: Detection) -> None:
        self.faces = list(faces)

    def detect(self, image):
        return self.faces


def at(x, y, side=100.0, score=0.9):
    return Detection(np.array([x, y, x + side, y + side], np.float32), score)


@pytest.fixture(scope="module")
def released():
    return Aligner("compact", feedback_steps=1)


def test_files_pil_images_and_arrays_give_the_same_landmarks(released, portrait):
    (face,) = released(portrait_path())
    assert face.scheme.count == 68 and face.identity is None
    assert face.score > 0.8 and face.confidence.mean() > 0.6
    from_image, from_array = released([Image.open(portrait_path()), portrait])
    from_align = rednet_jax.align(str(portrait_path()), feedback_steps=1)
    for (same,) in (from_image, from_array, from_align):
        np.testing.assert_allclose(same.landmarks, face.landmarks, atol=1e-3)


@pytest.mark.parametrize("degrees", range(45, 360, 45))
def test_landmarks_rotate_with_the_image(released, portrait, degrees):
    """Up to 2 % of the inter-ocular distance, because of resampling."""
    face = Image.fromarray(portrait[20:276, 100:356])
    canvas = Image.new("RGB", (512, 512), (90, 110, 130))
    canvas.paste(face, (128, 128))
    turned = canvas.rotate(degrees, resample=Image.Resampling.BICUBIC, fillcolor=(90, 110, 130))
    (upright,), (face,) = released([canvas, turned])
    angle = math.radians(degrees)
    back = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    points = (face.landmarks - 255.5) @ back.T + 255.5
    eyes = np.linalg.norm(upright.landmarks[45] - upright.landmarks[36])
    assert np.linalg.norm(points - upright.landmarks, axis=-1).mean() < 0.02 * eyes


@pytest.mark.parametrize("quarters", (1, 2, 3))
def test_the_box_of_a_rotated_face_is_sufficient(released, portrait, quarters):
    ((upright,),) = released.align([portrait])
    size = portrait.shape[0]
    assert portrait.shape[1] == size
    turned = np.rot90(portrait, quarters)
    points = upright.landmarks
    for _ in range(quarters):
        points = np.stack([points[:, 1], size - 1 - points[:, 0]], -1)
    box = np.concatenate([points.min(0), points.max(0)])
    ((face,),) = released.align([turned], [[box]])
    eyes = np.linalg.norm(points[45] - points[36])
    assert np.linalg.norm(face.landmarks - points, axis=-1).mean() < 0.03 * eyes


def test_a_face_detected_upside_down_is_rotated(portrait):
    ((upright,),) = Aligner("compact", feedback_steps=1).align([portrait])
    five = np.stack([upright.landmarks[part].mean(0) for part in FIVE])
    wrong = Detection(upright.box, upright.score, (2 * five.mean(0) - five).astype(np.float32))
    (face,) = Aligner("compact", feedback_steps=1, detector=FixedDetector(wrong))(portrait)
    eyes = np.linalg.norm(upright.landmarks[45] - upright.landmarks[36])
    assert np.linalg.norm(face.landmarks - upright.landmarks, axis=-1).mean() < 0.03 * eyes


def test_without_a_face_the_result_is_empty(released):
    assert released(np.full((300, 400, 3), 128, np.uint8)) == []
    assert released([]) == []


def test_the_most_prominent_faces_are_first_and_limited_in_number(network, portrait):
    faces = at(10, 10, 60), at(200, 60, 200), at(60, 300, 100)
    detector = FixedDetector(*faces)
    every = Aligner(network, detector=detector)(portrait)
    assert [face.box[0] for face in every] == [200, 60, 10]
    two = Aligner(network, detector=detector, faces=2)(portrait)
    for face, expected in zip(two, every[:2], strict=True):
        np.testing.assert_allclose(face.landmarks, expected.landmarks, atol=1e-3)


def test_faces_of_several_batches_have_the_same_landmarks_as_alone(network, portrait):
    faces = [at(20 * n, 10 * n, 80, 0.9 - 0.01 * n) for n in range(BATCH + 3)]
    together = Aligner(network, detector=FixedDetector(*faces))(portrait)
    assert len(together) == len(faces)
    for detection, face in zip(faces, together, strict=True):
        (alone,) = Aligner(network, detector=FixedDetector(detection))(portrait)
        np.testing.assert_allclose(alone.landmarks, face.landmarks, atol=1e-2)


def test_faces_with_a_low_confidence_are_left_out(network, portrait):
    (face,) = Aligner(network, detector=FixedDetector(at(175, 80)))(portrait)
    mean = float(face.confidence.mean())
    for least, count in ((mean - 1e-3, 1), (mean + 1e-3, 0)):
        aligner = Aligner(network, detector=FixedDetector(at(175, 80)), min_confidence=least)
        assert len(aligner(portrait)) == count


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
    ids=lambda image: f"{image.dtype}{image.shape}",
)
def test_arrays_of_another_shape_or_dtype_are_errors(network, image):
    aligner = Aligner(network, detector=FixedDetector())
    for call in (lambda: aligner(image), lambda: aligner.align([image], [[]])):
        with pytest.raises(RednetError, match=r"an image is RGB uint8 \[H, W, 3\], not"):
            call()


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[5000, 10, 5100, 90]], "the box 5000,10,5100,90 lies outside the image of 512x512 px"),
        ([[90, 10, 10, 90]], "the box 90,10,10,90 does not have x0 < x1 and y0 < y1"),
        ([[10, 10, 90, 10]], "the box 10,10,90,10 does not have x0 < x1 and y0 < y1"),
        ([[10, 10, np.nan, 90]], "the box 10,10,nan,90 is not finite"),
        ([[-np.inf, 10, 90, 90]], "the box -inf,10,90,90 is not finite"),
        ([[10, 10, 90]], r"a box is an array \[4\], not \[3\]"),
        (["10,10,90,90"], r"arrays \[4\], not \['10,10,90,90'\]"),
        (None, r"arrays \[4\], not None"),
        ([10, 10, 90, 90], r"a box is an array \[4\], not \[\]"),
    ],
)
def test_boxes_that_are_no_boxes_in_the_image_are_errors(network, portrait, boxes, message):
    with pytest.raises(RednetError, match=message):
        Aligner(network, detector=FixedDetector()).align([portrait], [boxes])


def test_a_checkpoint_may_be_a_path(network, portrait, tmp_path):
    write_weights(tmp_path / "tiny.safetensors", *network)
    detector, faces = FixedDetector(at(175, 80)), []
    for checkpoint in (network, tmp_path / "tiny.safetensors"):
        faces += rednet_jax.align(portrait, checkpoint, detector=detector)
    np.testing.assert_array_equal(faces[0].landmarks, faces[1].landmarks)


def test_fewer_or_more_lists_of_boxes_than_images_are_errors(network, portrait):
    for boxes in ([], [[], []]):
        with pytest.raises(
            RednetError, match=f"boxes: {len(boxes)} lists instead of 1, one per image"
        ):
            Aligner(network, detector=FixedDetector()).align([portrait], boxes)


def test_images_with_boxes_may_be_of_every_kind(released, portrait):
    box = np.array([175, 80, 270, 180])
    kinds = [portrait_path(), Image.open(portrait_path()).convert("RGBA"), portrait]
    (face,), *others = released.align(kinds, [[box]] * 3)
    for (same,) in others:
        np.testing.assert_allclose(same.landmarks, face.landmarks, atol=1e-3)


def test_options_out_of_range_are_errors(network):
    for options, message in (
        ({"feedback_steps": 0}, "feedback steps must be 1 or more, not 0"),
        ({"feedback_steps": True}, "feedback steps must be an integer, not True"),
        ({"feedback_steps": 101}, "feedback steps must be at most 100, not 101"),
        ({"faces": 0}, "faces must be 1 or more, not 0"),
        ({"faces": 1001}, "faces must be at most 1000, not 1001"),
        ({"faces": 1.5}, "faces must be an integer, not 1.5"),
        ({"min_confidence": 1.5}, "min confidence must be 0 to 1, not 1.5"),
    ):
        with pytest.raises(RednetError, match=message):
            Aligner(network, detector=FixedDetector(), **options)
