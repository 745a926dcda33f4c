"""How a checkpoint is measured on clips: tracked from the first frame to the last."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.samples import ClipSample
from rednet_jax.data.sources import Split, read_clips
from rednet_jax.detection.detector import Detection, FaceDetector
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.corrupt import BURST_KINDS, Corruption, burst_parts, bursts, corrupted
from rednet_jax.evaluate.figures import figures
from rednet_jax.evaluate.labels import clip_labels
from rednet_jax.evaluate.predictions import write_predictions
from rednet_jax.evaluate.protocols import JITTER, RIGHT_IOU, Boxes, check_steps
from rednet_jax.evaluate.provenance import eval_command, measured_on
from rednet_jax.inference.face import Face
from rednet_jax.inference.streams import Variables
from rednet_jax.inference.tracker import Tracker
from rednet_jax.landmarks.boxes import (
    intersection_over_union,
    jitter_box,
    whole_face_box,
)
from rednet_jax.landmarks.normalisers import Normaliser, check_normaliser, default_normaliser
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.store import checkpoint_name, load

FACES = 3
"""Tracked in each clip with the detector: the labelled person need not be the most prominent."""


class LabelDetector:
    """Answers the labelled face of a frame of a clip, and no other.

    Attributes:
        clip: the clip.
        frame: number of the frame that is searched, from 0.
    """

    def __init__(self, boxes: Boxes, scheme: Scheme) -> None:
        """Displaces the labels' box at random where boxes are 'jitter' or 'jitter-hard'."""
        self._scheme = scheme
        self._displace = JITTER.get(boxes)
        self.clip: ClipSample | None = None
        self.frame = 0

    def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Returns the face of the current frame, whatever the image; [] if it has no labels.

        A displacement depends on the clip's name and the frame's number alone.
        """
        clip, frame = self.clip, self.frame
        if clip is None or not clip.valid[frame]:
            return []
        box = whole_face_box(
            clip.landmarks[frame], self._scheme, clip.labelled[frame], expected=clip.box[frame]
        )
        if self._displace is not None:
            rng = np.random.default_rng(zlib.crc32(f"{clip.name}/{frame + 1}".encode()))
            box = jitter_box(rng, box, *self._displace)
        return [Detection(box, 1.0)]


def evaluate_clips(
    checkpoint: str | tuple[RedNetConfig, Variables],
    data: str,
    split: str,
    *,
    data_dir: Path | None = None,
    feedback_steps: Sequence[int] = (1,),
    every: int = 1,
    boxes: Boxes = "truth",
    detector: FaceDetector | None = None,
    normaliser: Normaliser | None = None,
    corrupt: Corruption | None = None,
    predictions: Path | None = None,
    plot: Path | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measures a checkpoint on every frame of the clips of a split, tracked by `Tracker`.

    The tracker finds the face in the first frame, after a loss and after a cut: where the labels
    have it ('truth'), there but displaced at random ('jitter', 'jitter-hard'), or by the detector.
    In between, each crop is cut around the landmarks of the frame before. With the detector several
    faces are tracked, and the one that overlaps the labels is the answer. A frame without an answer
    is missed.

    Args:
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        data: name of a data set of clips.
        split: of it.
        data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.
        feedback_steps: every K to measure.
        every: use one frame of so many: heads then move that much faster.
        boxes: where the tracker finds a face.
        detector: for boxes 'detector', called from several threads if there are several K; the
            tracker's own if None.
        normaliser: what errors are in percent of; the scheme's own if None.
        corrupt: what the frames of bursts show, to the detector, too; the labels stay. Bursts are
            planned in frames of the clip, also where only one of so many is used.
        predictions: CSV file, or folder with one for each clip, for the landmarks at the largest K.
        plot: PNG file for the cumulative error distributions of all frames.
        report: called with the number of frames tracked and in all.

    Returns:
        As `figures` does, a row for each K, and `provenance` as `measured_on` does. Of corrupted
        clips also `corruption` (`kind`, `strength`, `seed`, `bursts`, of a mixture those of each
        kind, and `frames` that are corrupted), and as parts the frames `within` bursts, in the ten
        frames `after` one, and `outside`.

    Raises:
        RednetError: a K or `every` below 1, an unknown data set or split, a bad checkpoint, clips
            that are too short for a burst, no frame that can be measured or that has an answer, a
            file that cannot be written.
    """
    check_steps(feedback_steps)
    if every < 1:
        raise RednetError(f"every must be 1 or more, not {every}")
    config, variables = load(checkpoint) if isinstance(checkpoint, str) else checkpoint
    normaliser = normaliser or default_normaliser(config.scheme)
    check_normaliser(normaliser, config.scheme)
    clips = read_clips(data, split, data_dir)
    labels = clip_labels(f"{data} {split}", clips, config.scheme, every)
    corruption: dict[str, Any] = {}
    parts: dict[str, NDArray[np.bool_]] = {}
    if corrupt is not None:
        corruption, parts = _planned(corrupt, clips, labels.of, every)
    by_labels = LabelDetector(boxes, clips.scheme)
    trackers = {
        steps: Tracker(
            (config, variables),
            faces=FACES if boxes == "detector" else 1,
            feedback_steps=steps,
            detector=detector if boxes == "detector" else by_labels,
        )
        for steps in dict.fromkeys(feedback_steps)
    }
    tracks: dict[int, list[NDArray[np.float32]]] = {steps: [] for steps in trackers}
    done = 0
    for clip in clips:
        found: dict[int, list[list[Face]]] = {steps: [] for steps in trackers}
        by_labels.clip = clip
        for tracker in trackers.values():
            tracker.reset()
        for frame in range(0, len(clip.valid), every):
            image = clip.images[frame] if corrupt is None else corrupted(corrupt, clip, frame)
            by_labels.frame = frame
            for steps, tracker in trackers.items():
                found[steps].append(tracker.update(image))
            done += 1
            report(done, len(labels.names))
        for steps in trackers:
            tracks[steps].append(answers(clip, found[steps], config.scheme, boxes, every))
    landmarks = {steps: np.concatenate(of_clips) for steps, of_clips in tracks.items()}
    if predictions is not None:
        write_predictions(predictions, labels, landmarks[max(landmarks)])
    name = checkpoint_name(checkpoint) if isinstance(checkpoint, str) else config.architecture
    result = figures(
        labels,
        [(steps, landmarks[steps]) for steps in feedback_steps],
        normaliser=normaliser,
        boxes=boxes,
        crop_margin=config.crop_margin,
        plot=plot,
        name=name,
        parts=parts,
    )
    listed = ",".join(map(str, feedback_steps))
    command = eval_command(
        name,
        data,
        split,
        normaliser,
        feedback_steps=listed,
        boxes=boxes,
        every=every,
        corrupt=corrupt,
    )
    seed = 0 if corrupt is None else corrupt.seed
    origin = measured_on(command, clips, weights=variables, labels=labels, seed=seed)
    return {**result, **corruption, "provenance": origin}


def _planned(
    corrupt: Corruption, clips: Split[ClipSample], of: str, every: int
) -> tuple[dict[str, Any], dict[str, NDArray[np.bool_]]]:
    """Returns what results say of the bursts, and which of the frames used are in which part.

    Raises:
        RednetError: no clip has a burst.
    """
    lengths = [(clip.name, len(clip.valid)) for clip in clips]
    planned = [burst for clip in lengths for burst in bursts(corrupt, *clip)]
    if not planned:
        longest = max(frames for _, frames in lengths)
        raise RednetError(
            f"{of}: no clip is long enough for a burst of corrupted frames (the longest: "
            f"{longest} frames)"
        )
    of_kinds: dict[str, int] = {
        kind: sum(burst.kind == kind for burst in planned) for kind in BURST_KINDS
    }
    told: dict[str, Any] = {
        "kind": corrupt.kind,
        "strength": corrupt.strength,
        "seed": corrupt.seed,
        "bursts": len(planned),
        **(of_kinds if corrupt.kind == "mixed" else {}),
        "frames": sum(burst.stop - burst.start for burst in planned),
    }
    of_clips = [burst_parts(corrupt, *clip) for clip in lengths]
    parts = {
        part: np.concatenate([clip[part][::every] for clip in of_clips]) for part in of_clips[0]
    }
    return {"corruption": told}, parts


def answers(
    clip: ClipSample,
    frames: Sequence[Sequence[Face]],
    scheme: Scheme,
    boxes: Boxes,
    every: int = 1,
) -> NDArray[np.float32]:
    """Returns the landmarks [T, L, 2] of the labelled person, nan where nobody is.

    Args:
        clip: of T frames.
        frames: the tracked faces of each frame.
        scheme: of the tracked landmarks.
        boxes: where they were found. From the labels there is one face, and it counts, right or
            wrong. From the detector the face counts that overlaps the labels' box by more than
            `RIGHT_IOU`; in a frame without labels, the one with the identity that counted last.
        every: one frame of so many was tracked.
    """
    landmarks = np.full((len(frames), scheme.count, 2), np.nan, np.float32)
    person: int | None = None
    for frame, faces in enumerate(frames):
        counted = list(faces)
        if boxes == "detector" and clip.valid[frame * every]:
            box = clip.box[frame * every]
            near = [
                (
                    intersection_over_union(
                        whole_face_box(face.landmarks, scheme, expected=face.box), box
                    ),
                    face,
                )
                for face in faces
            ]
            overlap, best = max(near, key=lambda one: one[0], default=(0.0, None))
            counted = [best] if best is not None and overlap > RIGHT_IOU else []
        elif boxes == "detector":
            counted = [face for face in faces if face.identity == person]
        if counted:
            person = counted[0].identity
            landmarks[frame] = counted[0].landmarks
    return landmarks
