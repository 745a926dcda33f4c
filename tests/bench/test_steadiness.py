"""`bench steadiness` on tracks with known error, jitter and lost frames."""

from __future__ import annotations

import numpy as np
import pytest
from data.miniature_300vw import prepare_300vw

from rednet_jax.bench import steadiness as module
from rednet_jax.bench.steadiness import bench_steadiness
from rednet_jax.data.sources import read_clips
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.metrics import jitter
from rednet_jax.inference.face import Face
from rednet_jax.landmarks.builtin import IBUG68, REDNET7
from rednet_jax.landmarks.convert import convert
from rednet_jax.landmarks.normalisers import face_lengths, inner_landmarks


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return prepare_300vw(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def split(data_dir):
    """The split that contains the miniature clips, and the clips."""
    for name in ("train", "validation"):
        try:
            return name, list(read_clips("300vw", name, data_dir))
        except RednetError:
            continue
    raise AssertionError("no clips")


class FakeTracker:
    """Returns the labels, shifted by 1 % and 2 % of the face alternately, and another person.

    There is no face in frame 4, and without carried state also none in frame 5.
    """

    def __init__(self, checkpoint, *, faces, feedback_steps, carry):
        assert faces > 1
        self.carry = carry
        self.resets = 0

    def reset(self):
        self.clip = self.clips[self.resets]
        self.resets += 1
        self.frame = 0

    def update(self, image):
        truth = self.clip.landmarks[self.frame]
        self.frame += 1
        if self.frame == 4 or (self.frame == 5 and self.carry == "nothing"):
            return []
        size = face_lengths(truth, IBUG68) / 100
        offset = size * (1 + self.frame % 2)
        sure, box = np.ones(68, np.float32), np.zeros(4, np.float32)
        other = Face(truth + np.float32(500), sure, box, IBUG68, identity=0)
        moved = truth + np.array([offset, 0], np.float32)
        return [other, Face(moved, sure, box, IBUG68, identity=1)]


def test_known_tracks_have_known_figures(data_dir, split, monkeypatch, network_68):
    name, clips = split
    monkeypatch.setattr(FakeTracker, "clips", clips, raising=False)
    monkeypatch.setattr(module, "Tracker", FakeTracker)
    calls = []
    result = bench_steadiness(
        network_68,
        split=name,
        data_dir=data_dir,
        report=lambda done, total: calls.append((done, total)),
    )
    frames = sum(len(clip.images) for clip in clips)
    assert calls == [(n, frames) for n in range(1, frames + 1)]
    labelled = sum(int(clip.valid.sum()) for clip in clips)
    assert (result["clips"], result["labelled_frames"]) == (len(clips), labelled)
    ways = {row["way"]: row for row in result["ways"]}
    alone, recurrence = ways["each frame alone"], ways["recurrence"]
    for row, gone in ((alone, (3, 4)), (recurrence, (3,))):
        lost = sum(int(clip.valid[frame]) for clip in clips for frame in gone)
        assert row["lost"] == pytest.approx(100 * lost / labelled)
        # Alternately 1 % and 2 %, in the labelled frames that are not lost.
        errors = [
            np.mean([1 + (n + 1) % 2 for n in np.flatnonzero(clip.valid) if n not in gone])
            for clip in clips
        ]
        assert row["nme_inner"] == pytest.approx(np.mean(errors), abs=1e-3)
        assert row["nme_all"] == pytest.approx(np.mean(errors), abs=1e-3)
    # Between 1 % and 2 % the second difference is 2 %; the labels move uniformly.
    assert recurrence["jitter_inner"] == pytest.approx(2, abs=0.02)
    assert recurrence["error_jitter"] == pytest.approx(2, abs=0.02)
    assert result["label_jitter_inner"] == pytest.approx(0, abs=0.02)
    assert ways["recurrence + filter"]["jitter_inner"] != recurrence["jitter_inner"]
    assert {row["clip"] for row in result["of_clips"]} == {clip.name for clip in clips}


def test_labels_are_converted_to_the_landmarks_of_the_network(data_dir, split, monkeypatch, narrow):
    name, clips = split

    class SevenTracker(FakeTracker):
        def update(self, image):
            return [
                Face(
                    convert(face.landmarks, IBUG68, REDNET7),
                    face.confidence[:7],
                    face.box,
                    REDNET7,
                    identity=face.identity,
                )
                for face in super().update(image)
            ]

    monkeypatch.setattr(FakeTracker, "clips", clips, raising=False)
    monkeypatch.setattr(module, "Tracker", SevenTracker)
    network = narrow("compact", scheme=REDNET7), {"params": {}}
    result = bench_steadiness(network, split=name, data_dir=data_dir)
    (row,) = (row for row in result["ways"] if row["way"] == "recurrence")
    # The same displacements, in units of the same length.
    assert row["error_jitter"] == pytest.approx(2, abs=0.02)
    assert 1 < row["nme_all"] < 2


def test_a_person_who_is_never_found_is_lost_in_every_frame(split):
    clip = split[1][0]
    no_faces = [[] for _ in clip.images]
    boxes = dict.fromkeys(np.flatnonzero(clip.valid), np.zeros(4))
    row = module._score(clip, no_faces, IBUG68, boxes)
    assert row["lost"] == row["labelled"] == clip.valid.sum()
    assert np.isnan(row["nme_inner"]) and np.isnan(row["jitter_all"])


def test_single_images_are_refused(data_dir, network_68):
    with pytest.raises(RednetError, match="300w contains single images, not clips"):
        bench_steadiness(network_68, "300w", data_dir=data_dir)


def test_jitter_of_the_inner_points_excludes_the_jaw():
    rng = np.random.default_rng(0)
    track = np.tile(rng.normal(0, 100, (68, 2)), (10, 1, 1))
    track[:, :17] += rng.normal(0, 5, (10, 17, 2))
    assert jitter(track, IBUG68, inner_landmarks(IBUG68)) == pytest.approx(0, abs=1e-9)
    assert jitter(track, IBUG68) > 1


@pytest.fixture(scope="module")
def network_68(narrow):
    """A config, and empty variables."""
    return narrow("compact"), {"params": {}}
