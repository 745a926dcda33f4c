"""A tracker with a fake network and a fake detector; a video, images and boxes of a face."""

from __future__ import annotations

import pytest
from inference.fake_tracker import FakeDetector, FakeNetwork
from PIL import Image

from rednet_jax.inference import streams
from rednet_jax.inference.tracker import Tracker
from rednet_jax.media.video import write_video


@pytest.fixture
def fake(network, monkeypatch):
    """A function that returns a tracker with its `FakeNetwork` and `FakeDetector`."""

    def make(*boxes, faces=1):
        fake_network, detector = FakeNetwork(), FakeDetector(*boxes)
        monkeypatch.setattr(streams, "_compiled_step", lambda: fake_network)
        tracker = Tracker(network, faces=faces, detector=detector)
        # Without the calls that compile the step.
        fake_network.calls.clear()
        fake_network.batches.clear()
        return tracker, fake_network, detector

    return make


@pytest.fixture(scope="module")
def video(tmp_path_factory, portrait):
    """Twelve frames of the portrait's upper part, moving; odd in height."""
    path = tmp_path_factory.mktemp("video") / "talk.mp4"
    with write_video(path, 20, (300, 251)) as write:
        for number in range(12):
            write(portrait[number : number + 251, 50 + 2 * number : 350 + 2 * number])
    return path


@pytest.fixture
def save(tmp_path, portrait):
    """Writes the portrait below a folder of images: `save('a/b.png')`."""

    def save(name, image=portrait, **options):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, **options)
        return path

    return save


@pytest.fixture
def boxes(tmp_path):
    """Writes a boxes file with the face of the portrait for each name."""

    def boxes(*names, box=(175, 80, 270, 180)):
        path = tmp_path / "boxes.csv"
        rows = [f"{name},{','.join(map(str, box))}" for name in names]
        path.write_text("\n".join(["name,x0,y0,x1,y1", *rows]) + "\n")
        return path

    return boxes
