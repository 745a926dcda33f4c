"""`bench detect`: labels of its composites, and counts of detections."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rednet_jax.bench import detect
from rednet_jax.bench.detect import bench_detect, composite, outcome
from rednet_jax.data.samples import Sample
from rednet_jax.data.sources import Split
from rednet_jax.detection.detector import Detection
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.metrics import face_errors
from rednet_jax.inference.aligner import Aligner
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.builtin import IBUG68


@pytest.fixture
def sample():
    """A face with a red spot at the chin and a green spot between the brows."""
    landmarks = (IBUG68.shape * 100 + 120).astype(np.float32)
    image = np.full((240, 240, 3), 100, np.uint8)
    for point, colour in ((8, (255, 0, 0)), (27, (0, 255, 0))):
        x, y = landmarks[point].round().astype(int)
        image[y - 4 : y + 5, x - 4 : x + 5] = colour
    return Sample(image, landmarks, np.ones(68, bool), landmark_box(landmarks), "a")


@pytest.mark.parametrize("degrees", [0, 45, 90, 180, 315])
@pytest.mark.parametrize("number", [0, 1])
def test_composite_shows_the_face_at_its_landmarks(sample, degrees, number):
    roll = math.radians(degrees)
    image, landmarks = composite(sample, number, side=140, roll=roll)
    assert image.shape == (640, 640, 3) and image.dtype == np.uint8
    for point, channel in ((8, 0), (27, 1)):
        x, y = landmarks[point].round().astype(int)
        assert image[y, x, channel] > 200 and image[y, x, 1 - channel] < 50
    down = landmarks[8] - landmarks[27]
    assert abs(math.remainder(math.atan2(-down[0], down[1]) - roll, 2 * math.pi)) < 0.05


def test_composite_is_dark(sample):
    bright, landmarks = composite(sample, 1)
    dark, same = composite(sample, 1, brightness=0.12)
    np.testing.assert_array_equal(same, landmarks)
    np.testing.assert_array_equal(dark, (bright * 0.12).astype(np.uint8))


def test_outcome_by_hand(sample):
    labels = sample.landmarks
    five = np.array([labels[36:42].mean(0), labels[42:48].mean(0), *labels[[30, 48, 54]]])
    box = landmark_box(labels)
    assert outcome([], labels) == (False, False)
    assert outcome([Detection(box + 90, 0.9, five)], labels) == (False, False)
    assert outcome([Detection(box + 5, 0.9, five)], labels) == (True, True)
    upside_down = 2 * five.mean(0) - five
    assert outcome([Detection(box, 0.9, upside_down)], labels) == (True, False)


def test_rows_count_detections(sample, network, monkeypatch, tmp_path):
    class ConstantDetector:
        def detect(self, image):
            return [Detection(landmark_box(sample.landmarks), 0.9)]

    split = Split("300w", "validation", "", [sample] * 3, lambda face: face)
    monkeypatch.setattr(detect, "read_split", lambda *_: split)
    monkeypatch.setattr(detect, "LARGE", (640, 640))
    monkeypatch.setattr(detect, "TIMED", 1)
    result = bench_detect(ConstantDetector(), network, images=2)
    first = result["faces"][0]
    assert first["kind"] == "300w validation" and first["images"] == 2
    assert (first["found"], first["upright"], first["aligned"]) == (100, 100, 100)
    (face,) = Aligner(network, detector=ConstantDetector())(sample.image)
    error = float(face_errors(face.landmarks, sample.landmarks, IBUG68))
    assert first["nme"] == first["median"] == pytest.approx(error, rel=1e-3)
    assert len(result["faces"]) == 12
    assert result["answered"] == result["aligned"] == result["without_faces"] == 2
    times = result["times"]
    assert 0 < times["detect"] < times["network"]
    assert times["detect_over_network"] == pytest.approx(times["detect"] / times["network"])
    large = result["large"]
    assert [row["side"] for row in large["faces"]] == list(detect.LARGE_FACES)
    # The constant box does not overlap these small faces.
    assert [(row["images"], row["found"]) for row in large["faces"]] == [(2, 0)] * 4
    assert result["provenance"]["command"] == "rednet bench detect --images 2"
    with pytest.raises(RednetError, match=r"groups\.csv"):
        bench_detect(ConstantDetector(), network, images=1, infants=tmp_path)
    with pytest.raises(RednetError, match=r"no \.jpg or \.png"):
        bench_detect(ConstantDetector(), network, images=1, without_faces=tmp_path)
    with pytest.raises(RednetError, match="images"):
        bench_detect(ConstantDetector(), network, images=0)
