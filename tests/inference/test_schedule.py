"""Which views of a video's frames are searched, and what the detections belong to."""

from __future__ import annotations

import time

import numpy as np
import pytest

from rednet_jax.detection.detector import Detection
from rednet_jax.inference.schedule import NEWCOMERS_EVERY, SEARCHED_BESIDE, SearchSchedule


class Numbered:
    """Detects a face whose box is the number of the current frame, and ignores the image."""

    whole_frames = True

    def __init__(self):
        self.frame, self.shapes = 0, set()

    def detect(self, image):
        self.shapes.add(image.shape)
        time.sleep(0.01)
        return [Detection(np.full(4, self.frame, np.float32), 1.0)]


@pytest.mark.parametrize(("tracking", "late"), [(False, 0), (True, SEARCHED_BESIDE)])
def test_a_detector_of_whole_frames_searches_neither_tiles_nor_a_frame_that_follows(tracking, late):
    image = np.zeros((720, 1280, 3), np.uint8)
    detector = Numbered()
    searches = SearchSchedule(detector)
    found = 0
    for number in range(3 * NEWCOMERS_EVERY):
        detector.frame = number
        for face in searches.detections(
            image, number, at_once=False, tracking=tracking, missing=False
        ):
            np.testing.assert_array_equal(face.box, np.full(4, number - late))
            found += 1
    assert found >= 2 and detector.shapes == {image.shape}


def test_an_error_of_a_search_beside_the_network_is_raised_once():
    class Failing:
        whole_frames = True
        fails = True

        def detect(self, image):
            if self.fails:
                raise RuntimeError("no memory")
            return [Detection(np.zeros(4, np.float32), 1.0)]

    image = np.zeros((72, 128, 3), np.uint8)
    detector = Failing()
    searches = SearchSchedule(detector)
    follow = {"at_once": False, "tracking": True, "missing": False}
    searches.detections(image, 0, **follow)
    detector.fails = False
    with pytest.raises(RuntimeError, match="no memory"):
        searches.detections(image, SEARCHED_BESIDE, **follow)
    assert searches.detections(image, SEARCHED_BESIDE + 1, **follow) == []
    searches.reset()
    assert len(searches.detections(image, 0, **{**follow, "at_once": True})) == 1
