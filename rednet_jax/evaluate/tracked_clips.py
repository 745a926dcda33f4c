"""Evaluation of a checkpoint on clips, tracked from the first frame to the last."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.samples import ClipSample
from rednet_jax.data.sources import Split, read_clips
from rednet_jax.detection.detector import RIGHT_IOU, Detection, FaceDetector
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.corrupt import BURST_KINDS, Corruption, burst_parts, bursts, corrupted
from rednet_jax.evaluate.figures import figures
from rednet_jax.evaluate.labels import clip_labels
from rednet_jax.evaluate.predictions import write_predictions
from rednet_jax.evaluate.protocols import JITTER, Boxes, check_steps
from rednet_jax.evaluate.provenance import eval_command, measured_on
from rednet_jax.inference.face import Face
from rednet_jax.inference.streams import Carry
from rednet_jax.inference.tracker import Tracker
from rednet_jax.landmarks.boxes import (
    intersection_over_union,
    jitter_box,
    whole_face_box,
)
from rednet_jax.landmarks.normalisers import Normaliser, check_normaliser, default_normaliser
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.weights.store import Checkpoint, checkpoint_name, name_in_command, network_of

FACES = 3
"""Faces to track in each clip with the detector, as the labelled person may not be the largest."""


class LabelDetector:
    """A detector that returns the labelled face of a frame of a clip.

    Attributes:
        whole_frames: True, since boxes in parts of a frame would have other coordinates.
        clip: the clip.
        frame: index of the current frame, from 0.
    """

    whole_frames = True

    def __init__(self, boxes: Boxes, scheme: Scheme) -> None:
        """Adds a random displacement if `boxes` is 'jitter' or 'jitter-hard'."""
        self._scheme = scheme
        self._displace = JITTER.get(boxes)
        self.clip: ClipSample | None = None
        self.frame = 0

    def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Returns the labelled face of the current frame; [] if it has no labels.

        `image` is ignored. A displacement depends on the clip's name and the frame's number only.
        """
        clip, frame = self.clip, self.frame
        if clip is None or not clip.valid[frame]:
            return []
        box = labelled_box(clip, frame, self._scheme)
        if self._displace is not None:
            rng = np.random.default_rng(zlib.crc32(f"{clip.name}/{frame + 1}".encode()))
            box = jitter_box(rng, box, *self._displace)
        return [Detection(box, 1.0)]


def labelled_box(clip: ClipSample, frame: int, scheme: Scheme) -> NDArray[np.float32]:
    """Returns the box [4] of the whole face in a labelled frame; `scheme` is that of the clip.

    `clip.box` may be smaller: it encloses the labelled landmarks only.
    """
    return whole_face_box(
        clip.landmarks[frame], scheme, clip.labelled[frame], expected=clip.box[frame]
    )


def evaluate_clips(
    checkpoint: Checkpoint,
    data: str,
    split: str,
    *,
    data_dir: Path | None = None,
    feedback_steps: Sequence[int] = (1,),
    every: int = 1,
    carry: Carry = "all",
    boxes: Boxes = "truth",
    detector: FaceDetector | None = None,
    normaliser: Normaliser | None = None,
    corrupt: Corruption | None = None,
    predictions: Path | None = None,
    plot: Path | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Evaluates a checkpoint on the frames of the clips of a split, tracked by `Tracker`.

    In the first frame, after a loss and after a cut, the tracker detects the face: at the labels
    ('truth'), with a random displacement ('jitter', 'jitter-hard'), or by the detector. In all
    other frames, the crop is cut around the landmarks of the frame before. With the detector
    several faces are tracked, and the face that overlaps the labels is evaluated. A frame without
    such a face is missed.

    Args:
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        data: name of a data set of clips.
        split: of the data set.
        data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.
        feedback_steps: all K to measure.
        every: use every `every`-th frame only: heads move that much faster.
        carry: the state carried from frame to frame.
        boxes: how the tracker detects a face.
        detector: for boxes 'detector', called from several threads if there are several K; the
            tracker's own if None.
        normaliser: of the errors; the scheme's own if None.
        corrupt: corruption of the frames, also for the detector; the labels are unchanged. Bursts
            are counted in frames of the clip, regardless of `every`.
        predictions: CSV file, or folder with a file per clip, for the landmarks at the largest K.
        plot: PNG file for the cumulative error distributions of all frames.
        report: called with (done, total) after each tracked frame.

    Returns:
        The result of `figures`, with a row for each K, and `provenance` of `measured_on`. For
        corrupted clips also `corruption` (`kind`, `strength`, `seed`, number of `bursts`, for a
        mixture also by kind, and number of corrupted `frames`), and as parts the frames `within`
        bursts, in the ten frames `after` one, and `outside`.

    Raises:
        RednetError: a K or `every` out of range, an unknown `carry`, data set or split, a bad
            checkpoint, clips that are too short for a burst, no frame that can be measured or has a
            prediction, or a file that cannot be written.
    """
    check_steps(feedback_steps)
    if every < 1:
        raise RednetError(f"every must be 1 or more, not {every}")
    config, variables = network_of(checkpoint)
    normaliser = normaliser or default_normaliser(config.scheme)
    check_normaliser(normaliser, config.scheme)
    clips = read_clips(data, split, data_dir)
    labels = clip_labels(f"{data} {split}", clips, config.scheme, every)
    corruption: dict[str, Any] = {}
    parts: dict[str, NDArray[np.bool_]] = {}
    if corrupt is not None:
        corruption, parts = _corruption_parts(corrupt, clips, labels.of, every)
    by_labels = LabelDetector(boxes, clips.scheme)
    trackers = {
        steps: Tracker(
            (config, variables),
            faces=FACES if boxes == "detector" else 1,
            feedback_steps=steps,
            carry=carry,
            detector=detector if boxes == "detector" else by_labels,
        )
        for steps in dict.fromkeys(feedback_steps)
    }
    tracks: dict[int, list[NDArray[np.float32]]] = {steps: [] for steps in trackers}
    done = 0
    for clip in clips:
        tracked: dict[int, list[list[Face]]] = {steps: [] for steps in trackers}
        by_labels.clip = clip
        for tracker in trackers.values():
            tracker.reset()
        for frame in range(0, len(clip.valid), every):
            image = clip.images[frame] if corrupt is None else corrupted(corrupt, clip, frame)
            by_labels.frame = frame
            for steps, tracker in trackers.items():
                tracked[steps].append(tracker.update(image))
            done += 1
            report(done, len(labels.names))
        for steps in trackers:
            tracks[steps].append(
                answers(clip, tracked[steps], config.scheme, boxes, every, of_labels=clips.scheme)
            )
    landmarks = {steps: np.concatenate(of_clips) for steps, of_clips in tracks.items()}
    if predictions is not None:
        write_predictions(predictions, labels, landmarks[max(landmarks)])
    result = figures(
        labels,
        [(steps, landmarks[steps]) for steps in feedback_steps],
        normaliser=normaliser,
        boxes=boxes,
        crop_margin=config.crop_margin,
        plot=plot,
        name=checkpoint_name(checkpoint),
        parts=parts,
    )
    command = eval_command(
        name_in_command(checkpoint),
        data,
        split,
        normaliser,
        feedback_steps=",".join(map(str, feedback_steps)),
        boxes=boxes,
        every=every,
        carry=carry,
        corrupt=corrupt,
    )
    seed = 0 if corrupt is None else corrupt.seed
    origin = measured_on(command, clips, weights=variables, labels=labels, seed=seed)
    return {**result, **corruption, "provenance": origin}


def _corruption_parts(
    corrupt: Corruption, clips: Split[ClipSample], of: str, every: int
) -> tuple[dict[str, Any], dict[str, NDArray[np.bool_]]]:
    """Returns the entry `corruption` of a result, and the masks of the parts, over used frames.

    Raises:
        RednetError: no clip has a burst.
    """
    lengths = [(clip.name, len(clip.valid)) for clip in clips]
    planned = [burst for clip in lengths for burst in bursts(corrupt, *clip)]
    if not planned:
        longest = max(frames for _, frames in lengths)
        raise RednetError(
            f"{of}: no clip is long enough for a burst of corrupted frames (the longest has "
            f"{longest} frames)"
        )
    by_kind: dict[str, int] = {
        kind: sum(burst.kind == kind for burst in planned) for kind in BURST_KINDS
    }
    summary: dict[str, Any] = {
        "kind": corrupt.kind,
        "strength": corrupt.strength,
        "seed": corrupt.seed,
        "bursts": len(planned),
        **(by_kind if corrupt.kind == "mixed" else {}),
        "frames": sum(burst.stop - burst.start for burst in planned),
    }
    masks = [burst_parts(corrupt, *clip) for clip in lengths]
    parts = {part: np.concatenate([mask[part][::every] for mask in masks]) for part in masks[0]}
    return {"corruption": summary}, parts


def answers(
    clip: ClipSample,
    frames: Sequence[Sequence[Face]],
    scheme: Scheme,
    boxes: Boxes,
    every: int = 1,
    *,
    of_labels: Scheme,
) -> NDArray[np.float32]:
    """Returns the landmarks [T, L, 2] of the labelled person, nan in frames without them.

    Args:
        clip: of T frames.
        frames: the tracked faces of each frame.
        scheme: of the tracked landmarks.
        boxes: how faces were detected. From the labels there is one face, which is always chosen.
            From the detector, the face with an IoU above `RIGHT_IOU` with `labelled_box` is
            chosen; in a frame without labels, the face with the identity that was chosen last.
        every: every `every`-th frame was tracked.
        of_labels: scheme of the clip.
    """
    landmarks = np.full((len(frames), scheme.count, 2), np.nan, np.float32)
    person: int | None = None
    for frame, faces in enumerate(frames):
        chosen = list(faces)
        if boxes == "detector" and clip.valid[frame * every]:
            box = labelled_box(clip, frame * every, of_labels)
            overlaps = [
                (
                    intersection_over_union(
                        whole_face_box(face.landmarks, scheme, expected=face.box), box
                    ),
                    face,
                )
                for face in faces
            ]
            overlap, best = max(overlaps, key=lambda pair: pair[0], default=(0.0, None))
            chosen = [best] if best is not None and overlap > RIGHT_IOU else []
        elif boxes == "detector":
            chosen = [face for face in faces if face.identity == person]
        if chosen:
            person = chosen[0].identity
            landmarks[frame] = chosen[0].landmarks
    return landmarks
