"""Clips are measured as the tracker follows them, beginning at the labels or where it detects."""

from __future__ import annotations

import dataclasses
import itertools
import shutil

import numpy as np
import pytest
from data.miniature_300vw import FRAMES, UNLABELLED, prepare_300vw

from rednet_jax.data.builders.trees import read_list
from rednet_jax.data.prepare import prepare
from rednet_jax.data.sources import read_clips
from rednet_jax.errors import RednetError
from rednet_jax.evaluate import corrupt
from rednet_jax.evaluate import tracked_clips as module
from rednet_jax.evaluate.corrupt import BURST_KINDS, Corruption, burst_parts, bursts, corrupted
from rednet_jax.evaluate.predictions import score_predictions
from rednet_jax.evaluate.tracked_clips import FACES, LabelDetector, answers, evaluate_clips
from rednet_jax.inference.face import Face
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.normalisers import face_lengths
from rednet_jax.landmarks.table import read_landmarks_csv
from rednet_jax.weights.store import fingerprint

LABELLED = sum(FRAMES.values()) - len(UNLABELLED)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return prepare_300vw(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def clips(data_dir):
    return list(read_clips("300vw", "train", data_dir))


def face(identity, landmarks):
    return Face(
        landmarks, np.ones(68, np.float32), np.zeros(4, np.float32), IBUG68, identity=identity
    )


class FakeTracker:
    """The labels, moved right by K hundredths of the face; K = 2 has nobody in each frame 5."""

    def __init__(self, checkpoint, *, faces, feedback_steps, detector):
        assert (faces, detector is None) == ((FACES, True) if self.detects else (1, False))
        self.steps = feedback_steps
        self.clip = itertools.count(-1)

    def reset(self):
        self.of = self.clips[next(self.clip) + 1]
        self.frame = 0

    def update(self, image):
        np.testing.assert_array_equal(image, self.of.images[self.frame])
        truth = self.of.landmarks[self.frame]
        self.frame += 1
        if self.steps == 2 and self.frame == 5:
            return []
        offset = self.steps * face_lengths(truth, IBUG68) / 100
        return [face(0, truth + np.array([offset, 0], np.float32))]


@pytest.fixture
def fake(monkeypatch, clips):
    monkeypatch.setattr(FakeTracker, "clips", clips, raising=False)
    monkeypatch.setattr(FakeTracker, "detects", False, raising=False)
    monkeypatch.setattr(module, "Tracker", FakeTracker)


def test_known_tracks_have_known_figures(fake, clips, data_dir, network, tmp_path):
    told = []
    result = evaluate_clips(
        network,
        "300vw",
        "train",
        data_dir=data_dir,
        feedback_steps=(2, 1),
        predictions=tmp_path / "points",
        plot=tmp_path / "ced.png",
        report=lambda done, total: told.append((done, total)),
    )
    frames = sum(FRAMES.values())
    assert told == [(n, frames) for n in range(1, frames + 1)]
    assert (result["images"], result["missed"]) == (LABELLED - 2, 2)
    assert (result["clips"], result["frames"], result["boxes"]) == (2, frames, "truth")
    two, one = result["per_step"]
    assert [row["feedback_steps"] for row in (two, one)] == [2, 1]
    for row, error in ((two, 2), (one, 1)):
        assert row["nme"] == pytest.approx(error, abs=1e-3)
        assert row["nme_of_videos"] == pytest.approx(error, abs=1e-3)
        names = [video["clip"] for video in row["per_video"]]
        assert names == [clip.name for clip in clips]
    assert [video["missed"] for video in two["per_video"]] == [1, 1]
    assert (tmp_path / "ced.png").stat().st_size > 1000
    numbers, points = read_landmarks_csv(tmp_path / "points/one.csv")
    assert numbers == [str(n) for n in range(1, FRAMES["one"] + 1)]
    assert np.flatnonzero(np.isnan(points[:, 0, 0])).tolist() == [4]
    again = score_predictions(tmp_path / "points", "300vw", "train", data_dir=data_dir)
    told, read = result["provenance"], again["provenance"]
    assert told["weights"] == fingerprint(network[1]) and told["labels"] == read["labels"]
    assert told["command"] == (
        "rednet eval compact --data 300vw --split train --normaliser inter-ocular "
        "--feedback-steps 2,1 --boxes truth --every 1"
    )
    (tmp_path / "points/one.csv").write_text((tmp_path / "points/one.csv").read_text() + "\n")
    other = score_predictions(tmp_path / "points", "300vw", "train", data_dir=data_dir)
    assert other["provenance"]["predictions"] != read["predictions"]
    (row,) = again["per_step"]
    assert (again["images"], again["missed"]) == (result["images"], result["missed"])
    assert row["nme"] == pytest.approx(two["nme"], rel=1e-3)
    assert [v["missed"] for v in row["per_video"]] == [v["missed"] for v in two["per_video"]]


def test_of_every_second_frame_the_others_are_not_seen(
    monkeypatch, fake, clips, data_dir, network, tmp_path
):
    seen = [
        dataclasses.replace(
            clip,
            images=[clip.images[i] for i in range(0, len(clip.valid), 2)],
            landmarks=clip.landmarks[::2],
        )
        for clip in clips
    ]
    monkeypatch.setattr(FakeTracker, "clips", seen)
    points = tmp_path / "points"
    result = evaluate_clips(
        network, "300vw", "train", data_dir=data_dir, every=2, predictions=points
    )
    assert result["frames"] == sum(-(-frames // 2) for frames in FRAMES.values())
    assert result["per_step"][0]["nme"] == pytest.approx(1, abs=1e-3)
    numbers, _ = read_landmarks_csv(points / "one.csv")
    assert numbers == [str(n) for n in range(1, FRAMES["one"] + 1, 2)]


CORRUPTION = Corruption("mixed", 0.5, 3)


class CorruptTracker(FakeTracker):
    """Errs by 1 % of the face, by 5 % in bursts, and by 3 % after them; K = 2 has no answer there.

    Whatever K is, it must see the corrupted frames.
    """

    every = 1

    def update(self, image):
        frame = self.frame
        self.frame += self.every
        np.testing.assert_array_equal(image, corrupted(CORRUPTION, self.of, frame))
        parts = burst_parts(CORRUPTION, self.of.name, len(self.of.valid))
        if parts["after"][frame] and self.steps == 2:
            return []
        truth, error = self.of.landmarks[frame], 1 + 4 * parts["within"] + 2 * parts["after"]
        offset = error[frame] * face_lengths(truth, IBUG68) / 100
        return [face(0, truth + np.array([offset, 0], np.float32))]


@pytest.mark.parametrize("every", [1, 2])
def test_corrupted_frames_are_seen_by_all_and_measured_apart(
    monkeypatch, fake, clips, data_dir, network, every
):
    for name, frames in {"LEAST_CLEAN": 2, "MOST_CLEAN": 3, "SHORTEST": 2, "LONGEST": 3}.items():
        monkeypatch.setattr(corrupt, name, frames)
    monkeypatch.setattr(corrupt, "AFTER", 2)
    monkeypatch.setattr(CorruptTracker, "every", every)
    monkeypatch.setattr(module, "Tracker", CorruptTracker)
    result = evaluate_clips(
        network,
        "300vw",
        "train",
        data_dir=data_dir,
        feedback_steps=(1, 2),
        every=every,
        corrupt=CORRUPTION,
    )
    planned = [bursts(CORRUPTION, clip.name, len(clip.valid)) for clip in clips]
    told = result["corruption"]
    assert (told["kind"], told["strength"], told["seed"]) == ("mixed", 0.5, 3)
    assert told["bursts"] == sum(map(len, planned)) == sum(told[kind] for kind in BURST_KINDS)
    assert told["frames"] == sum(burst.stop - burst.start for one in planned for burst in one)
    one, two = (row["parts"] for row in result["per_step"])
    for part, error in {"within": 5, "after": 3, "outside": 1}.items():
        labelled = sum(
            int(
                (clip.valid & burst_parts(CORRUPTION, clip.name, len(clip.valid))[part])[
                    ::every
                ].sum()
            )
            for clip in clips
        )
        assert labelled and (one[part]["images"], one[part]["missed"]) == (labelled, 0)
        assert one[part]["nme"] == pytest.approx(error, abs=1e-3)
        lost = labelled if part == "after" else 0
        assert (two[part]["images"], two[part]["missed"]) == (labelled - lost, lost)
    assert two["after"]["nme"] is None
    command = result["provenance"]["command"]
    assert command.endswith(f"--boxes truth --every {every} --corrupt mixed:0.5:3")
    assert result["provenance"]["seed"] == 3


def test_clips_that_are_too_short_for_a_burst_are_one_line(data_dir, network):
    told = r"^300vw train: no clip is long enough for a burst .* \(the longest: 12 frames\)$"
    with pytest.raises(RednetError, match=told):
        evaluate_clips(network, "300vw", "train", data_dir=data_dir, corrupt=CORRUPTION)


def test_the_three_categories_of_300vw(monkeypatch, data_dir, network, tmp_path):
    names = {split: read_list(f"300vw_{split}")[0] for split in "abc"}
    for split, name in names.items():
        tree = data_dir.parent / "clips" / ("one" if split == "a" else "two")
        shutil.copytree(tree, tmp_path / "tree" / name)
    prepare("300vw", tmp_path / "tree", tmp_path / "data")
    monkeypatch.setattr(FakeTracker, "detects", False, raising=False)
    monkeypatch.setattr(module, "Tracker", FakeTracker)
    for split, name in names.items():
        clips = list(read_clips("300vw", split, tmp_path / "data"))
        monkeypatch.setattr(FakeTracker, "clips", clips, raising=False)
        result = evaluate_clips(network, "300vw", split, data_dir=tmp_path / "data")
        (video,) = result["per_step"][0]["per_video"]
        assert video["clip"] == name
        assert (result["clips"], result["frames"]) == (1, 12 if split == "a" else 7)
        assert video["nme"] == pytest.approx(1, abs=1e-3)
        # One clip says nothing of others.
        assert result["per_step"][0]["intervals"]["nme"] is None


def test_the_detector_is_given_to_no_tracker_that_detects(fake, monkeypatch, data_dir, network):
    monkeypatch.setattr(FakeTracker, "detects", True)
    result = evaluate_clips(network, "300vw", "train", data_dir=data_dir, boxes="detector")
    assert (result["images"], result["boxes"]) == (LABELLED, "detector")


def test_labels_are_detected_where_they_are(clips):
    (one,) = [clip for clip in clips if clip.name == "one"]
    detector, displaced = LabelDetector("truth", IBUG68), LabelDetector("jitter", IBUG68)
    farther = LabelDetector("jitter-hard", IBUG68)
    assert detector.detect(one.images[0]) == []
    detector.clip = displaced.clip = farther.clip = one
    boxes = []
    for frame in range(FRAMES["one"]):
        detector.frame = displaced.frame = frame
        found, off = detector.detect(one.images[frame]), displaced.detect(one.images[frame])
        assert bool(found) == bool(off) == (("one", frame + 1) not in UNLABELLED)
        if found:
            box = landmark_box(one.landmarks[frame])
            np.testing.assert_array_equal(found[0].box, box)
            boxes.append((off[0].box - box) / (box[2:] - box[:2]).max())
            np.testing.assert_array_equal(displaced.detect(one.images[0])[0].box, off[0].box)
            farther.frame = frame
            twice = farther.detect(one.images[frame])[0].box
            shift, double = (
                b.reshape(2, 2).mean(0) - box.reshape(2, 2).mean(0) for b in (off[0].box, twice)
            )
            np.testing.assert_allclose(double, 2 * shift, atol=1e-3)
    assert np.ptp(boxes, axis=0).min() > 0.05
    # The same on every machine, or tables cannot be compared. Frame 3 is the first with labels.
    np.testing.assert_allclose(boxes[0], [-0.08211, 0.08840, -0.22790, -0.05656], atol=2e-5)


def test_the_answer_is_the_face_that_lies_on_the_labels(clips):
    (one,) = [clip for clip in clips if clip.name == "one"]
    his = [
        points if known else one.landmarks[2]
        for points, known in zip(one.landmarks, one.valid, strict=True)
    ]
    other = [points + 500 for points in his]
    frames = [[face(0, b), face(1, a)] for a, b in zip(his, other, strict=True)]
    frames[0] = [face(0, other[0])]  # he is not there yet
    frames[7] = [face(0, other[7])]  # nor here
    found = answers(one, frames, IBUG68, "detector")
    missing = np.flatnonzero(np.isnan(found[:, 0, 0])).tolist()
    # Nobody knows who he is before the first label, in frame 3; frame 6 has none, but its number.
    assert missing == [0, 1, 7]
    for frame in range(2, len(his)):
        if frame != 7:
            np.testing.assert_array_equal(found[frame], his[frame])
    by_labels = answers(one, [faces[:1] for faces in frames], IBUG68, "truth")
    np.testing.assert_array_equal(by_labels[3], other[3])


def test_released_weights_follow_drawn_faces(data_dir):
    result = evaluate_clips("compact_video", "300vw", "train", data_dir=data_dir)
    assert result["images"] + result["missed"] == LABELLED
    assert result["images"] > 0.8 * LABELLED
    assert result["per_step"][0]["nme"] < 15


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"feedback_steps": (0,)}, "1 or more, not 0"),
        ({"split": "a"}, "300vw a"),
        ({"data": "300w"}, "300w contains single images"),
        ({"normaliser": "nose"}, "no normaliser 'nose'"),
    ],
)
def test_what_cannot_be_measured_is_one_line(network, data_dir, changes, told):
    asked = {"checkpoint": network, "data": "300vw", "split": "train", **changes}
    with pytest.raises(RednetError, match=told):
        evaluate_clips(data_dir=data_dir, **asked)
