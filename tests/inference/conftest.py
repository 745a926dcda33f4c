"""A tracker with a fake network and a fake detector."""

from __future__ import annotations

import pytest
from inference.fake_tracker import FakeDetector, FakeNetwork

from rednet_jax.inference import streams
from rednet_jax.inference.tracker import Tracker


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
