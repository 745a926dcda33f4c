"""The web page in a browser finds the points that the tracker finds."""

from __future__ import annotations

import re

import numpy as np
import pytest
from export.web_page import RECORD, apart, drag, opened, recorded, save, until

from rednet_jax.detection.detector import Detection
from rednet_jax.export.named import network
from rednet_jax.inference import tracker
from rednet_jax.inference.tracker import Tracker
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.crops import apply_affine, crop_image, crop_transform
from rednet_jax.landmarks.pts import read_pts
from rednet_jax.quickstart import FACE, portrait_path
from rednet_jax.weights.store import load

pytestmark = pytest.mark.extras

TOLERANCE = 3e-3
"""Maximum distance between points in the browser and in JAX, in sides of a face: 0.2 px of 70. In
120 frames the median was 0.0001 and the maximum 0.0009, because pixels of crops are rounded."""


def test_an_image(browser, site):
    """A box around the face of a portrait. As in the tracker, a second crop is around the points of
    the first."""
    _, address = site
    config, variables = load("compact")
    net = network(config, variables, 1)
    with opened(browser, address) as page:
        page.evaluate(RECORD)
        page.locator("#file").set_input_files(portrait_path())
        until(page, "window.looks.length === 1")
        drag(page, np.add([-40, -30, 70, 80], np.tile(FACE, 2)))
        until(page, "window.looks.length === 2")
        page.get_by_text("One face, confidence 0.").wait_for()
        assert re.fullmatch(r"\d+ ms per image", page.locator("#speed").inner_text())
        save(page, "image")
        *_, (image, box, _, points) = recorded(page)
    for _ in range(2):
        affine = crop_transform(box, margin=config.input_margin, size=config.input_size)
        landmarks, _ = net.still(crop_image(image, affine, config.input_size)[None])
        expected = apply_affine(affine, landmarks[0]).astype(np.float32)
        moved = np.abs((landmark_box(expected) - box).reshape(2, 2).sum(0)).max() / 2
        if moved <= tracker.RECROP_BEYOND * max(box[2:] - box[:2]):
            break
        box = landmark_box(expected)
    assert apart(points, expected) < TOLERANCE


class FixedDetector:
    """A detector that always returns the same box."""

    def __init__(self, box):
        self.box = box

    def detect(self, image):
        return [Detection(self.box, 1.0)]


def test_a_clip_is_tracked_like_by_the_tracker(browser, site, real_data):
    """The tracker gives the same points for the frames that the page has processed."""
    _, address = site
    clip = real_data / "clips" / "carphone_pristine"
    with opened(browser, address) as page:
        page.locator("#file").set_input_files(clip / "vid.mp4")
        page.get_by_role("button", name="Pause").click()
        until(page, "source.element.paused")
        page.evaluate("source.element.currentTime = 0, null")
        until(page, "!source.element.seeking")
        page.evaluate(RECORD)
        drag(page, landmark_box(read_pts(clip / "annot" / "000001.pts")))
        until(page, "window.looks.some((look) => !look.tracked)")
        page.get_by_text("One face, confidence 0.").wait_for()
        page.evaluate("source.element.playbackRate = 0.25, source.element.loop = false")
        page.get_by_role("button", name="Play").click()
        until(page, "source.element.ended")
        assert re.fullmatch(r"\d+ ms per frame", page.locator("#speed").inner_text())
        save(page, "clip")
        looks = list(recorded(page))
    # The last look without a tracked face is at the drawn box.
    begin = max(i for i, (_, _, tracked, _) in enumerate(looks) if not tracked)
    frames = looks[begin:]
    assert len(frames) > 20
    config, variables = load("compact")
    reference = Tracker((config, variables), detector=FixedDetector(frames[0][1]))
    distances = []
    for image, _, _, points in frames:
        (face,) = reference.update(image)
        distances.append(apart(points, face.landmarks))
    assert max(distances) < TOLERANCE
