"""Effect of carrying state from frame to frame: error and jitter of tracks in labelled clips."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.samples import ClipSample
from rednet_jax.data.sources import read_clips
from rednet_jax.detection.detector import RIGHT_IOU
from rednet_jax.evaluate.metrics import error_jitter, jitter, point_errors
from rednet_jax.evaluate.provenance import measured_on
from rednet_jax.evaluate.tracked_clips import labelled_box
from rednet_jax.inference.face import Face
from rednet_jax.inference.smoothing import Smoother
from rednet_jax.inference.streams import Carry, is_recurrent
from rednet_jax.inference.tracker import Tracker
from rednet_jax.landmarks.boxes import intersection_over_union, whole_face_box
from rednet_jax.landmarks.convert import convert, convert_labelled
from rednet_jax.landmarks.normalisers import inner_landmarks, normaliser_text
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.weights.store import Checkpoint, name_in_command, network_of

FACES = 3
"""Faces to track in each clip, as the labelled person may not be the largest."""

FPS = 25
"""Frame rate for the filter, since prepared clips do not record theirs."""


class Way(NamedTuple):
    """How a clip is tracked: the state that is carried, and whether landmarks are smoothed."""

    name: str
    carry: Carry
    smooth: bool


WAYS = (
    Way("each frame alone", "nothing", False),
    Way("each frame alone + filter", "nothing", True),
    Way("carried feedback", "feedback", False),
    Way("recurrence", "all", False),
    Way("recurrence + filter", "all", True),
)


def bench_steadiness(
    checkpoint: Checkpoint = "compact_video",
    data: str = "300vw",
    split: str = "validation",
    *,
    data_dir: Path | None = None,
    feedback_steps: int = 1,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Tracks every clip of a split in all ways, including detection, as `rednet track` does.

    In each clip the tracked person that overlaps the labels in most frames is measured; a labelled
    frame without that person, or without overlap, is lost. Jitter is measured in frames in which
    the person is labelled and found, also in both neighbouring frames.

    Args:
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        data: name of a data set of clips.
        split: of the data set.
        data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.
        feedback_steps: K.
        report: called with (done, total) after each tracked frame.

    Returns:
        `clips`, `labelled_frames`, `normaliser`, `feedback_steps`, `recurrent` (whether f_tRNN was
        trained), `label_jitter_inner` and `label_jitter_all`, and `ways`, a row for each: `way`,
        `nme_inner`, `nme_all`, `jitter_inner`, `jitter_all`, `error_jitter` (of all landmarks,
        against the labels; means over clips, percent), `nme_inner_of_frames` (mean over all
        frames), `lost` (percent of all labelled frames) and `frames_per_second` (median over clips,
        without decoding); and `of_clips`, the same for each clip.

    Raises:
        RednetError: no such data or checkpoint, or labels that cannot be converted to the network's
            scheme.
    """
    config, variables = network_of(checkpoint)
    clips = read_clips(data, split, data_dir)
    scheme = config.scheme
    inner = inner_landmarks(scheme)
    total = sum(len(clip.images) for clip in clips)
    carries = {way.carry: None for way in WAYS}
    trackers = {
        carry: Tracker((config, variables), faces=FACES, feedback_steps=feedback_steps, carry=carry)
        for carry in carries
    }
    rows: list[dict[str, Any]] = []
    done = 0
    labels: list[NDArray[np.float32]] = []
    for stored in clips:
        clip = _converted(stored, clips.scheme, scheme)
        boxes = {
            int(frame): labelled_box(stored, int(frame), clips.scheme)
            for frame in np.flatnonzero(stored.valid)
        }
        labels.append(np.where(clip.labelled[..., None], clip.landmarks, np.nan))
        seconds: dict[Carry, list[float]] = {carry: [] for carry in carries}
        tracks: dict[Carry, list[list[Face]]] = {carry: [] for carry in carries}
        for tracker in trackers.values():
            tracker.reset()
        for image in clip.images:
            for carry, tracker in trackers.items():
                begin = time.perf_counter()
                tracks[carry].append(tracker.update(image))
                seconds[carry].append(time.perf_counter() - begin)
            done += 1
            report(done, total)
        for way in WAYS:
            track = tracks[way.carry]
            if way.smooth:
                smoother = Smoother()
                track = [smoother.update(faces, n / FPS) for n, faces in enumerate(track)]
            rows.append(
                {
                    "clip": clip.name,
                    "way": way.name,
                    **_score(clip, track, scheme, boxes),
                    "frames_per_second": float(1 / np.mean(seconds[way.carry])),
                }
            )
    return {
        "clips": len(labels),
        "labelled_frames": sum(int(clip.valid.sum()) for clip in clips),
        "normaliser": normaliser_text(scheme),
        "feedback_steps": feedback_steps,
        "recurrent": is_recurrent(variables),
        "label_jitter_inner": _mean(np.array([jitter(clip, scheme, inner) for clip in labels])),
        "label_jitter_all": _mean(np.array([jitter(clip, scheme) for clip in labels])),
        "ways": [_summary(way, [row for row in rows if row["way"] == way.name]) for way in WAYS],
        "of_clips": rows,
        "provenance": measured_on(
            f"rednet bench steadiness --checkpoint {name_in_command(checkpoint)} --data {data} "
            f"--split {split} --feedback-steps {feedback_steps}",
            clips,
            weights=variables,
        ),
    }


def _converted(clip: ClipSample, source: Scheme, target: Scheme) -> ClipSample:
    return dataclasses.replace(
        clip,
        landmarks=convert(clip.landmarks, source, target),
        labelled=convert_labelled(clip.labelled, source, target),
    )


def _score(
    clip: ClipSample,
    track: list[list[Face]],
    scheme: Scheme,
    boxes: Mapping[int, NDArray[np.floating]],
) -> dict[str, float | int]:
    """Returns errors, jitter and lost frames of the person who is labelled in most frames.

    Args:
        clip: with labels of the same scheme as the tracked landmarks.
        track: the faces in each frame.
        scheme: of the landmarks.
        boxes: of the whole face, in each labelled frame.
    """
    inner = inner_landmarks(scheme)
    right: dict[int | None, list[int]] = {}
    for frame, labelled in boxes.items():
        for face in track[frame]:
            box = whole_face_box(face.landmarks, scheme, expected=face.box)
            if intersection_over_union(box, labelled) > RIGHT_IOU:
                right.setdefault(face.identity, []).append(frame)
    person, frames = max(right.items(), key=lambda item: len(item[1]), default=(-1, []))
    points = np.full(clip.landmarks.shape, np.nan, np.float32)
    for frame in frames:
        (points[frame],) = (f.landmarks for f in track[frame] if f.identity == person)
    errors = point_errors(points, clip.landmarks, scheme, clip.labelled, boxes=clip.box)[frames]
    return {
        "labelled": len(boxes),
        "lost": len(boxes) - len(frames),
        "nme_inner": _mean(errors[:, inner]),
        "nme_all": _mean(errors),
        "jitter_inner": jitter(points, scheme, inner),
        "jitter_all": jitter(points, scheme),
        "error_jitter": _mean(
            error_jitter(points, clip.landmarks, scheme, clip.labelled, boxes=clip.box)
        ),
    }


def _mean(values: NDArray[np.floating]) -> float:
    """Returns the mean of the finite values; nan if there are none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def _summary(way: Way, rows: list[dict[str, Any]]) -> dict[str, Any]:
    def mean(name: str) -> float:
        return _mean(np.array([row[name] for row in rows]))

    figures = ("nme_inner", "nme_all", "jitter_inner", "jitter_all", "error_jitter")
    labelled, lost = (sum(row[name] for row in rows) for name in ("labelled", "lost"))
    by_frames = [row["nme_inner"] * (row["labelled"] - row["lost"]) for row in rows]
    return {
        "way": way.name,
        **{name: mean(name) for name in figures},
        "nme_inner_of_frames": float(np.nansum(by_frames)) / max(labelled - lost, 1),
        "lost": 100 * lost / labelled,
        "frames_per_second": float(np.median([row["frames_per_second"] for row in rows])),
    }
