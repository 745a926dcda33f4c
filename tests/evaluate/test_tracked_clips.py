"""Evaluation of clips with the tracker, initialised by labels or by the detector."""

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
from rednet_jax.detection.detector import RIGHT_IOU
from rednet_jax.errors import RednetError
from rednet_jax.evaluate import corrupt
from rednet_jax.evaluate import tracked_clips as module
from rednet_jax.evaluate.corrupt import BURST_KINDS, Corruption, burst_parts, bursts, corrupted
from rednet_jax.evaluate.predictions import score_predictions
from rednet_jax.evaluate.tracked_clips import FACES, LabelDetector, answers, evaluate_clips
from rednet_jax.inference.face import Face
from rednet_jax.inference.schedule import SearchSchedule
from rednet_jax.landmarks.boxes import intersection_over_union, landmark_box, whole_face_box
from rednet_jax.landmarks.builtin import IBUG68, REDNET7
from rednet_jax.landmarks.convert import convert
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


def face(identity, landmarks, scheme=IBUG68):
    return Face(
        landmarks,
        np.ones(len(landmarks), np.float32),
        np.zeros(4, np.float32),
        scheme,
        identity=identity,
    )


class FakeTracker:
    """Returns the labels, shifted by K percent of the face; K = 2 loses the face in frame 5."""

    carry = "all"

    def __init__(self, checkpoint, *, faces, feedback_steps, carry, detector):
        assert (faces, detector is None) == ((FACES, True) if self.detects else (1, False))
        assert carry == self.carry
        self.steps = feedback_steps
        self.clip = itertools.count(-1)

    def reset(self):
        self.current = self.clips[next(self.clip) + 1]
        self.frame = 0

    def update(self, image):
        np.testing.assert_array_equal(image, self.current.images[self.frame])
        truth = self.current.landmarks[self.frame]
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
    calls = []
    result = evaluate_clips(
        network,
        "300vw",
        "train",
        data_dir=data_dir,
        feedback_steps=(2, 1),
        predictions=tmp_path / "points",
        plot=tmp_path / "ced.png",
        report=lambda done, total: calls.append((done, total)),
    )
    frames = sum(FRAMES.values())
    assert calls == [(n, frames) for n in range(1, frames + 1)]
    assert (result["images"], result["missed"]) == (LABELLED - 2, 2)
    assert (result["clips"], result["frames"], result["boxes"]) == (2, frames, "truth")
    k2, k1 = result["per_step"]
    assert [row["feedback_steps"] for row in (k2, k1)] == [2, 1]
    for row, error in ((k2, 2), (k1, 1)):
        assert row["nme"] == pytest.approx(error, abs=1e-3)
        assert row["nme_of_videos"] == pytest.approx(error, abs=1e-3)
        names = [video["clip"] for video in row["per_video"]]
        assert names == [clip.name for clip in clips]
    assert [video["missed"] for video in k2["per_video"]] == [1, 1]
    assert (tmp_path / "ced.png").stat().st_size > 1000
    numbers, points = read_landmarks_csv(tmp_path / "points/one.csv")
    assert numbers == [str(n) for n in range(1, FRAMES["one"] + 1)]
    assert np.flatnonzero(np.isnan(points[:, 0, 0])).tolist() == [4]
    again = score_predictions(tmp_path / "points", "300vw", "train", data_dir=data_dir)
    origin, file_origin = result["provenance"], again["provenance"]
    assert origin["weights"] == fingerprint(network[1])
    assert origin["labels"] == file_origin["labels"]
    assert origin["command"] == (
        "rednet eval CHECKPOINT --data 300vw --split train --normaliser inter-ocular "
        "--feedback-steps 2,1 --boxes truth --every 1 --carry all"
    )
    (tmp_path / "points/one.csv").write_text((tmp_path / "points/one.csv").read_text() + "\n")
    changed = score_predictions(tmp_path / "points", "300vw", "train", data_dir=data_dir)
    assert changed["provenance"]["predictions"] != file_origin["predictions"]
    (row,) = again["per_step"]
    assert (again["images"], again["missed"]) == (result["images"], result["missed"])
    assert row["nme"] == pytest.approx(k2["nme"], rel=1e-3)
    assert [v["missed"] for v in row["per_video"]] == [v["missed"] for v in k2["per_video"]]


def test_every_second_frame_can_be_used(monkeypatch, fake, clips, data_dir, network, tmp_path):
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


def test_the_state_to_carry_is_that_of_the_tracker(monkeypatch, fake, data_dir, network):
    monkeypatch.setattr(FakeTracker, "carry", "nothing")
    result = evaluate_clips(network, "300vw", "train", data_dir=data_dir, carry="nothing")
    assert result["provenance"]["command"].endswith("--every 1 --carry nothing")


CORRUPTION = Corruption("mixed", 0.5, 3)


class CorruptTracker(FakeTracker):
    """Has errors of 1 %, of 5 % in bursts, and of 3 % after them, where K = 2 loses the face.

    Asserts that it gets the corrupted frames.
    """

    every = 1

    def update(self, image):
        frame = self.frame
        self.frame += self.every
        np.testing.assert_array_equal(image, corrupted(CORRUPTION, self.current, frame))
        parts = burst_parts(CORRUPTION, self.current.name, len(self.current.valid))
        if parts["after"][frame] and self.steps == 2:
            return []
        truth, error = self.current.landmarks[frame], 1 + 4 * parts["within"] + 2 * parts["after"]
        offset = error[frame] * face_lengths(truth, IBUG68) / 100
        return [face(0, truth + np.array([offset, 0], np.float32))]


@pytest.mark.parametrize("every", [1, 2])
def test_corrupted_frames_are_tracked_and_reported_by_part(
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
    entry = result["corruption"]
    assert (entry["kind"], entry["strength"], entry["seed"]) == ("mixed", 0.5, 3)
    assert entry["bursts"] == sum(map(len, planned)) == sum(entry[kind] for kind in BURST_KINDS)
    assert entry["frames"] == sum(burst.stop - burst.start for part in planned for burst in part)
    k1, k2 = (row["parts"] for row in result["per_step"])
    for part, error in {"within": 5, "after": 3, "outside": 1}.items():
        labelled = sum(
            int(
                (clip.valid & burst_parts(CORRUPTION, clip.name, len(clip.valid))[part])[
                    ::every
                ].sum()
            )
            for clip in clips
        )
        assert labelled and (k1[part]["images"], k1[part]["missed"]) == (labelled, 0)
        assert k1[part]["nme"] == pytest.approx(error, abs=1e-3)
        lost = labelled if part == "after" else 0
        assert (k2[part]["images"], k2[part]["missed"]) == (labelled - lost, lost)
    assert k2["after"]["nme"] is None
    command = result["provenance"]["command"]
    assert command.endswith(f"--every {every} --carry all --corrupt mixed:0.5:3")
    assert result["provenance"]["seed"] == 3


def test_clips_that_are_too_short_for_a_burst_raise(data_dir, network):
    message = r"^300vw train: no clip is long enough for a burst .* \(the longest has 12 frames\)$"
    with pytest.raises(RednetError, match=message):
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
        # One clip has no interval.
        assert result["per_step"][0]["intervals"]["nme"] is None


def test_with_boxes_detector_the_tracker_uses_its_own(fake, monkeypatch, data_dir, network):
    monkeypatch.setattr(FakeTracker, "detects", True)
    result = evaluate_clips(network, "300vw", "train", data_dir=data_dir, boxes="detector")
    assert (result["images"], result["boxes"]) == (LABELLED, "detector")


def test_the_label_detector_returns_the_labels_box_or_a_displaced_one(clips):
    (clip,) = [clip for clip in clips if clip.name == "one"]
    detector, displaced = LabelDetector("truth", IBUG68), LabelDetector("jitter", IBUG68)
    farther = LabelDetector("jitter-hard", IBUG68)
    assert detector.detect(clip.images[0]) == []
    detector.clip = displaced.clip = farther.clip = clip
    boxes = []
    for frame in range(FRAMES["one"]):
        detector.frame = displaced.frame = frame
        exact, off = detector.detect(clip.images[frame]), displaced.detect(clip.images[frame])
        assert bool(exact) == bool(off) == (("one", frame + 1) not in UNLABELLED)
        if exact:
            box = landmark_box(clip.landmarks[frame])
            np.testing.assert_array_equal(exact[0].box, box)
            boxes.append((off[0].box - box) / (box[2:] - box[:2]).max())
            np.testing.assert_array_equal(displaced.detect(clip.images[0])[0].box, off[0].box)
            farther.frame = frame
            twice = farther.detect(clip.images[frame])[0].box
            shift, double = (
                b.reshape(2, 2).mean(0) - box.reshape(2, 2).mean(0) for b in (off[0].box, twice)
            )
            np.testing.assert_allclose(double, 2 * shift, atol=1e-3)
    assert np.ptp(boxes, axis=0).min() > 0.05
    # Pinned, since results must be comparable. Frame 3 is the first labelled one.
    np.testing.assert_allclose(boxes[0], [-0.08211, 0.08840, -0.22790, -0.05656], atol=2e-5)


def test_the_label_detector_is_right_in_a_large_frame_without_a_tracked_face(clips):
    """Neither tiles nor rotated frames are searched."""
    (clip,) = [clip for clip in clips if clip.name == "one"]
    detector = LabelDetector("truth", IBUG68)
    detector.clip = clip
    searches = SearchSchedule(detector)
    image = np.zeros((720, 1280, 3), np.uint8)
    searched = 0
    for frame in range(FRAMES["one"]):
        detector.frame = frame
        for found in searches.detections(image, frame, at_once=False, tracking=False, missing=True):
            np.testing.assert_array_equal(found.box, landmark_box(clip.landmarks[frame]))
            searched += 1
    assert searched > 1


def test_the_face_that_overlaps_the_labels_is_chosen(clips):
    (clip,) = [clip for clip in clips if clip.name == "one"]
    labelled = [
        points if known else clip.landmarks[2]
        for points, known in zip(clip.landmarks, clip.valid, strict=True)
    ]
    bystander = [points + 500 for points in labelled]
    frames = [[face(0, b), face(1, a)] for a, b in zip(labelled, bystander, strict=True)]
    frames[0] = [face(0, bystander[0])]
    frames[7] = [face(0, bystander[7])]
    chosen = answers(clip, frames, IBUG68, "detector", of_labels=IBUG68)
    missing = np.flatnonzero(np.isnan(chosen[:, 0, 0])).tolist()
    # The identity is unknown before the first labelled frame, index 2; frame 5 is unlabelled, but
    # the identity is known.
    assert missing == [0, 1, 7]
    for frame in range(2, len(labelled)):
        if frame != 7:
            np.testing.assert_array_equal(chosen[frame], labelled[frame])
    by_labels = answers(clip, [faces[:1] for faces in frames], IBUG68, "truth", of_labels=IBUG68)
    np.testing.assert_array_equal(by_labels[3], bystander[3])


def test_a_clip_with_few_landmarks_has_the_box_of_the_whole_face(clips):
    """Seven landmarks span the middle of a face, whose box the tracker's faces have."""
    (clip,) = [clip for clip in clips if clip.name == "one"]
    points = convert(clip.landmarks, IBUG68, REDNET7)
    few = dataclasses.replace(
        clip,
        landmarks=points,
        labelled=np.repeat(clip.labelled[:, :1], len(REDNET7.shape), axis=1),
        box=np.stack([landmark_box(seven) for seven in points]),
    )
    whole = whole_face_box(points[2], REDNET7)
    assert intersection_over_union(few.box[2], whole) < RIGHT_IOU
    frames = [[face(0, landmarks, REDNET7)] for landmarks in points]
    chosen = answers(few, frames, REDNET7, "detector", of_labels=REDNET7)
    np.testing.assert_array_equal(chosen[few.valid], points[few.valid])


def test_released_weights_track_drawn_faces(data_dir):
    result = evaluate_clips("compact_video", "300vw", "train", data_dir=data_dir)
    assert result["images"] + result["missed"] == LABELLED
    assert result["images"] > 0.8 * LABELLED
    assert result["per_step"][0]["nme"] < 15


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feedback_steps": (0,)}, "1 or more, not 0"),
        ({"feedback_steps": (1, 101)}, "at most 100, not 1,101"),
        ({"split": "a"}, "300vw a"),
        ({"data": "300w"}, "300w contains single images"),
        ({"normaliser": "nose"}, "no normaliser 'nose'"),
    ],
)
def test_invalid_arguments_raise(network, data_dir, changes, message):
    arguments = {"checkpoint": network, "data": "300vw", "split": "train", **changes}
    with pytest.raises(RednetError, match=message):
        evaluate_clips(data_dir=data_dir, **arguments)
