"""Faces are found in pictures of any size, and answered as boxes of landmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dlib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from rednet_jax.detection.dlib import FaceDetector, corrected_box
from rednet_jax.landmarks.boxes import intersection_over_union, landmark_box
from rednet_jax.landmarks.pts import read_pts

# Brows to chin and jaw to jaw, read off the picture.
ASTRONAUT_BOX = np.asarray([181.0, 88, 267, 180])


@pytest.fixture(scope="module")
def astronaut() -> NDArray[np.uint8]:
    return np.asarray(data.astronaut())


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


class FakeDlib:
    """Answers the same everywhere, and remembers what it was shown."""

    def __init__(self, *answers: tuple[tuple[int, int, int, int], float, int]) -> None:
        self.answers = answers

    def run(self, image: NDArray[np.uint8], upsample: int, threshold: float) -> Any:
        self.shape, self.upsample = image.shape, upsample
        squares = [dlib.rectangle(*square) for square, _, _ in self.answers]
        return squares, [score for _, score, _ in self.answers], [v for _, _, v in self.answers]


def faked(*answers: tuple[tuple[int, int, int, int], float, int]) -> tuple[FaceDetector, FakeDlib]:
    detector, fake = FaceDetector(), FakeDlib(*answers)
    detector._detector = fake
    return detector, fake


def test_finds_the_astronaut(detector: FaceDetector, astronaut: NDArray[np.uint8]) -> None:
    (face,) = detector.detect(astronaut)
    assert face.score > 1 and face.box.dtype == np.float32
    assert intersection_over_union(face.box, ASTRONAUT_BOX) > 0.75


def test_answers_the_corrected_box(detector: FaceDetector, astronaut: NDArray[np.uint8]) -> None:
    (raw,) = detector.detect_raw(astronaut)
    (face,) = detector.detect(astronaut)
    np.testing.assert_array_equal(face.box, corrected_box(raw.square, raw.view))
    assert face.score == raw.score
    better = intersection_over_union(face.box, ASTRONAUT_BOX)
    assert better > intersection_over_union(raw.square, ASTRONAUT_BOX)


def test_correction_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    correction = {2: (0.1, -0.05, 0.8, 1.2)}
    monkeypatch.setattr("rednet_jax.detection.dlib.VIEW_CORRECTIONS", correction)
    box = corrected_box(np.asarray([100.0, 200, 180, 280]), 2)
    np.testing.assert_allclose(box, [148 - 32, 236 - 48, 148 + 32, 236 + 48])


def test_correction_brings_boxes_nearer_to_real_labels(
    detector: FaceDetector, real_data: Path
) -> None:
    overlaps = []
    for label in sorted((real_data / "300w").rglob("*.pts"))[::40]:
        truth = landmark_box(read_pts(label))
        with Image.open(label.with_suffix(".jpg")) as picture:
            found = detector.detect_raw(np.asarray(picture.convert("RGB")))
        boxes = [(face.square, corrected_box(face.square, face.view)) for face in found[:1]]
        overlaps += [[intersection_over_union(box, truth) for box in pair] for pair in boxes]
    raw, corrected = np.median(overlaps, axis=0)
    assert len(overlaps) > 40 and corrected > max(raw + 0.05, 0.75)


def test_same_picture_same_answer(detector: FaceDetector, astronaut: NDArray[np.uint8]) -> None:
    (first,), (again,) = detector.detect(astronaut), FaceDetector().detect(astronaut.copy())
    np.testing.assert_array_equal(first.box, again.box)
    assert first.score == again.score


@pytest.mark.parametrize("shape", [(200, 300), (1, 1), (3, 900), (700, 2)])
def test_no_face_no_answer(detector: FaceDetector, shape: tuple[int, int]) -> None:
    assert detector.detect(np.full((*shape, 3), 127, np.uint8)) == []


def test_two_faces_best_first(detector: FaceDetector, astronaut: NDArray[np.uint8]) -> None:
    head = astronaut[:300, 80:380]
    faces = detector.detect(np.concatenate([head[:, ::-1], head], axis=1))
    assert len(faces) == 2 and faces[0].score >= faces[1].score
    x0, y0, x1, y1 = ASTRONAUT_BOX - [80, 0, 80, 0]
    for truth in ([299 - x1, y0, 299 - x0, y1], [x0 + 300, y0, x1 + 300, y1]):
        assert max(intersection_over_union(face.box, np.asarray(truth)) for face in faces) > 0.7
    sort_me = [((0, 0, 9, 9), 0.2, 0), ((0, 0, 9, 9), 1.5, 1), ((0, 0, 9, 9), 0.7, 3)]
    scores = [face.score for face in faked(*sort_me)[0].detect(head)]
    assert scores == [1.5, 0.7, 0.2]


def test_large_picture_is_shrunk_and_its_box_grown_back() -> None:
    """Pixels 0 to 79 of the half are pixels 0 to 159 of the whole, edges -0.5 and 159.5."""
    detector, fake = faked(((0, 10, 79, 89), 1.0, 0))
    (face,) = detector.detect_raw(np.zeros((960, 1280, 3), np.uint8))
    assert fake.shape == (480, 640, 3) and fake.upsample == 0
    np.testing.assert_allclose(face.square, [-0.5, 19.5, 159.5, 179.5])


def test_small_picture_is_doubled() -> None:
    detector, fake = faked(((3, 4, 82, 83), 1.0, 0))
    (face,) = detector.detect_raw(np.zeros((240, 320, 3), np.uint8))
    assert fake.shape == (240, 320, 3) and fake.upsample == 1
    np.testing.assert_array_equal(face.square, [2.5, 3.5, 82.5, 83.5])


def test_box_follows_the_picture_through_sizes(
    detector: FaceDetector, astronaut: NDArray[np.uint8]
) -> None:
    for side in (256, 2000):
        scaled = np.asarray(Image.fromarray(astronaut).resize((side, side)))
        (face,) = detector.detect(scaled)
        assert intersection_over_union(face.box * 512 / side, ASTRONAUT_BOX) > 0.7
