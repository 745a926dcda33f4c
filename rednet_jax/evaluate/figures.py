"""The figures of a result: what `rednet eval` reports of landmarks, whoever made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.evaluate.bootstrap import (
    bootstrap_interval,
    bootstrap_intervals,
    mean_difference,
    paired_interval,
)
from rednet_jax.evaluate.cumulative import (
    cumulative_auc,
    draw_cumulative,
    face_areas,
    failure_rate,
)
from rednet_jax.evaluate.labels import Labels
from rednet_jax.evaluate.metrics import (
    error_jitter,
    face_errors,
    frame_jitter,
    jitter,
    part_errors,
)
from rednet_jax.landmarks.normalisers import (
    Normaliser,
    default_normaliser,
    measurable,
    needed,
    normaliser_text,
)
from rednet_jax.landmarks.schemes import Scheme

Floats = NDArray[np.floating]

LEVEL = 0.95
"""Of the intervals."""

BLOCK = 32
"""Frames of one clip that are drawn together for its interval: neighbours err together."""


def figures(
    labels: Labels,
    answers: Sequence[tuple[int | None, Floats]],
    *,
    normaliser: Normaliser | None = None,
    boxes: str | None = None,
    crop_margin: float | None = None,
    plot: Path | None = None,
    name: str = "predictions",
    parts: Mapping[str, NDArray[np.bool_]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Measures landmarks against labels.

    Args:
        labels: of N faces.
        answers: K, None where it is not known, and landmarks [N, L, 2] in image pixels, for each
            row of the result. A face with a coordinate that is not finite has no answer.
        normaliser: what errors are in percent of; the scheme's own if None.
        boxes: where crops were cut, None where it is not known.
        crop_margin: of the crops, None where it is not known.
        plot: PNG file for the cumulative error distributions; a missed face is in none of their
            steps, and fails.
        name: of what is measured, for the plot's legend.
        parts: of clips, which frames [N] make up a part that has figures of its own, by name.

    Returns:
        What `rednet eval --json` holds. `split`, which says if it is used for selection. Of the
        largest K: `images` (how many are measured) and `missed` (how many labelled faces have no
        answer; they are not measured). `normaliser`, `boxes`, `crop_margin`; `interval`, what
        intervals are. `per_step`, a row for each answer, in percent: `feedback_steps`, `nme`,
        `median`, `failure_rate_8`, `failure_rate_10`, `auc_8`; `groups`, the NME of parts of the
        face; `intervals`, [low, high] of the means among these, None where there are not two
        owners; of all rows but the first `nme_less_first`, the NME less that of the first row on
        the faces that both answer, with its paired interval; `with_missed`, failure rates and area
        if each missed face counts as failed.

        Of clips, also `clips`, `frames` (labelled or not), `label_jitter`, and in each row, `nme`
        being that over all frames, `nme_of_videos`, `jitter` and `error_jitter`, means of the
        videos' means, and `per_video`. A video's interval draws blocks of `BLOCK` frames. Error
        jitter, that of the difference to the labels, has the labels' own jitter in it unless they
        are exact. Where there are parts, each row has `parts`: of each `images`, `missed`, and
        over its frames `nme`, `jitter` and `error_jitter`, with `intervals` over clips.

    Raises:
        RednetError: a normaliser that the landmarks do not have, no face that can be measured or
            none that has an answer, or a plot that cannot be written.
    """
    normaliser = normaliser or default_normaliser(labels.scheme)
    told = normaliser_text(labels.scheme, normaliser)
    known = measurable(labels.labelled, labels.scheme, normaliser, boxed=True)
    if not known.any():
        raise RednetError(f"{labels.of}: no face has {needed(normaliser, labels.scheme)} labelled")
    rows: list[dict[str, Any]] = []
    curves: dict[str, Floats] = {}
    first: Floats | None = None
    for steps, landmarks in answers:
        there = _answered(landmarks)
        if not (known & there).any():
            raise RednetError(f"{labels.of}: no answer for any of {known.sum()} labelled faces")
        answered = np.where(there[:, None, None], landmarks, np.nan)
        row = _row(labels, answered, known, normaliser, parts)
        of_known = face_errors(answered, *_truth(labels, normaliser))[known]
        first = of_known if first is None else first
        if rows:
            owners = np.asarray(labels.owners)[known]
            row["nme_less_first"] = _mean([mean_difference(of_known, first)])
            bounds = paired_interval(of_known, first, owners, level=LEVEL)
            row["intervals"]["nme_less_first"] = _pair(bounds)
        rows.append({"feedback_steps": steps, **row})
        curve = name if steps is None else f"{name}, K = {steps}"
        failed = row["with_missed"]["failure_rate_10"]
        curves[f"{curve}: NME {row['nme']:.2f} %, {failed:.1f} % fail"] = of_known
    last = max(range(len(rows)), key=lambda i: answers[i][0] or 0)
    there = _answered(answers[last][1])
    of = labels.of + (", used for selection" if labels.of.endswith(" validation") else "")
    result: dict[str, Any] = {
        "split": of,
        "images": int((known & there).sum()),
        "missed": int((labels.labelled.any(1) & ~there).sum()),
        "normaliser": told,
        "boxes": boxes,
        "crop_margin": crop_margin,
        "interval": {
            "level": LEVEL,
            "over": labels.over,
            "count": len({labels.owners[i] for i in np.flatnonzero(known & there)}),
        },
    }
    if labels.clips is not None:
        points = np.where(labels.labelled[..., None], labels.landmarks, np.nan)
        result |= {
            "clips": len(labels.clips),
            "frames": len(labels.names),
            "label_jitter": _mean(
                [jitter(points[frames], labels.scheme) for _, frames in labels.clips]
            ),
        }
    if plot is not None:
        faces = "faces" if labels.clips is None else "frames"
        missed = f" found, {result['missed']} missed" if result["missed"] else ""
        title = f"{of}: {result['images']} {faces}{missed}"
        draw_cumulative(curves, plot, title=title, normaliser=result["normaliser"])
    return {**result, "per_step": rows}


def figures_text(result: dict[str, Any]) -> str:
    """Returns what `figures` returns as lines for people, each row with its intervals in brackets.

    Of clips each video has a line, of the row of the largest K.
    """
    interval = result["interval"]
    drawn = f"{100 * interval['level']:g} %, of {interval['count']} {interval['over']} resampled"
    plain = {**result, "interval": drawn}
    lines = [
        f"{name}: {_line(value, {})}" if isinstance(value, dict) else _line({name: value}, {})
        for name, value in plain.items()
        if name not in ("per_step", "provenance")
    ]
    *_, last = sorted(result["per_step"], key=lambda row: row["feedback_steps"] or 0)
    for video in last.get("per_video", ()):
        bounds = {"nme": video["interval"]}
        lines.append(_line({k: v for k, v in video.items() if k != "interval"}, bounds))
    for row in result["per_step"]:
        numbers = {k: v for k, v in row.items() if not isinstance(v, dict | list)}
        if result["missed"]:
            # Rates over those found alone would praise a detector for finding easy faces.
            numbers = {k: v for k, v in numbers.items() if k not in row["with_missed"]}
        lines.append(_line({**numbers, **row["groups"]}, row["intervals"]))
        if result["missed"]:
            share = f"{result['missed']} missed counted as failures"
            lines.append(f"  {share}: {_line(row['with_missed'], {})}")
        for name, part in row.get("parts", {}).items():
            numbers = {k: v for k, v in part.items() if k != "intervals"}
            lines.append(f"  {name}: {_line(numbers, part['intervals'])}")
    return "\n".join(line for line in lines if line)


def _line(numbers: Mapping[str, Any], bounds: Mapping[str, list[float] | None]) -> str:
    words = []
    for name, value in numbers.items():
        if value is None:
            continue
        ends = bounds.get(name)
        within = "" if ends is None else f" [{ends[0]:.4g}, {ends[1]:.4g}]"
        words.append(f"{name} {f'{value:.4g}' if isinstance(value, float) else value}{within}")
    return "  ".join(words)


def _row(
    labels: Labels,
    landmarks: Floats,
    known: NDArray[np.bool_],
    normaliser: Normaliser,
    parts: Mapping[str, NDArray[np.bool_]],
) -> dict[str, Any]:
    """The figures of one answer."""
    errors = face_errors(landmarks, *_truth(labels, normaliser))
    regions = part_errors(landmarks, *_truth(labels, normaliser))
    owners = np.asarray(labels.owners)
    of_known = {region: one[known] for region, one in regions.items()}
    row = _of_faces(errors[known], of_known, owners[known])
    if labels.clips is None:
        return row
    steadiness = _steadiness(labels, landmarks, normaliser)
    videos = [
        {
            "clip": name,
            **_of_video(landmarks[frames], errors[frames], known[frames], labels.scheme),
            "error_jitter": _mean(steadiness["error_jitter"][frames]),
        }
        for name, frames in labels.clips
    ]
    of_videos = {
        "nme_of_videos": np.array([video["nme"] for video in videos], float),
        "jitter": np.array([video["jitter"] for video in videos], float),
        "error_jitter": np.array([video["error_jitter"] for video in videos], float),
    }
    bounds = bootstrap_intervals(of_videos, level=LEVEL)
    row["intervals"] |= {name: _pair(one) for name, one in bounds.items()}
    means = {name: _mean(one) for name, one in of_videos.items()}
    columns = {"nme": np.where(known, errors, np.nan), **steadiness}
    of_parts = {
        name: {
            "images": int((known & frames & np.isfinite(errors)).sum()),
            "missed": int((known & frames & ~np.isfinite(errors)).sum()),
            **_of_part({column: one[frames] for column, one in columns.items()}, owners[frames]),
        }
        for name, frames in parts.items()
    }
    return {**row, **means, **({"parts": of_parts} if parts else {}), "per_video": videos}


def _steadiness(labels: Labels, landmarks: Floats, normaliser: Normaliser) -> dict[str, Floats]:
    """`jitter` and `error_jitter` of each frame [N] of clips; no clip has neighbours in another."""
    of_clips = []
    for _, frames in labels.clips or ():
        truth = labels._replace(
            landmarks=labels.landmarks[frames],
            labelled=labels.labelled[frames],
            boxes=labels.boxes[frames],
        )
        track = landmarks[frames]
        own = frame_jitter(track, labels.scheme)
        of_clips.append((own, error_jitter(track, *_truth(truth, normaliser))))
    own, against_truth = (np.concatenate(one) for one in zip(*of_clips, strict=True))
    return {"jitter": own, "error_jitter": against_truth}


def _of_part(columns: Mapping[str, Floats], owners: NDArray[np.str_]) -> dict[str, Any]:
    """The mean of each column [F] over frames, and its interval over clips."""
    bounds = bootstrap_intervals(columns, owners, level=LEVEL)
    return {
        **{name: _mean(one) for name, one in columns.items()},
        "intervals": {name: _pair(one) for name, one in bounds.items()},
    }


def _of_video(
    landmarks: Floats, errors: Floats, known: NDArray[np.bool_], scheme: Scheme
) -> dict[str, Any]:
    """The figures of the frames of one clip, of which some are measurable."""
    measured = errors[known & np.isfinite(errors)]
    blocks = np.arange(len(errors)) // BLOCK
    return {
        "images": len(measured),
        "missed": int(known.sum()) - len(measured),
        "nme": _mean(measured),
        "interval": _pair(bootstrap_interval(errors[known], blocks[known], level=LEVEL)),
        "failure_rate_8": failure_rate(measured, 8) if len(measured) else None,
        "jitter": _mean([jitter(landmarks, scheme)]),
    }


def _of_faces(
    errors: Floats, parts: Mapping[str, Floats], owners: NDArray[np.str_]
) -> dict[str, Any]:
    """The figures of faces that are measurable; nan has no answer."""
    there = np.isfinite(errors)
    of_those = errors[there]
    above = {cut: 100.0 * (errors > cut) for cut in (8, 10)}
    columns = {
        "nme": errors,
        **{f"failure_rate_{cut}": np.where(there, one, np.nan) for cut, one in above.items()},
        "auc_8": np.where(there, face_areas(errors, 8), np.nan),
        **parts,
    }
    bounds = bootstrap_intervals(columns, owners, level=LEVEL)
    return {
        "nme": float(of_those.mean()),
        "median": float(np.median(of_those)),
        "failure_rate_8": failure_rate(of_those, 8),
        "failure_rate_10": failure_rate(of_those, 10),
        "auc_8": cumulative_auc(of_those, 8),
        "groups": {part: _mean(one) for part, one in parts.items()},
        "intervals": {
            **{name: _pair(bounds[name]) for name in columns if name not in parts},
            "groups": {part: _pair(bounds[part]) for part in parts},
        },
        "with_missed": {
            "failure_rate_8": failure_rate(errors, 8),
            "failure_rate_10": failure_rate(errors, 10),
            "auc_8": cumulative_auc(errors, 8),
        },
    }


def _truth(
    labels: Labels, normaliser: Normaliser
) -> tuple[Floats, Scheme, NDArray[np.bool_], Normaliser, Floats]:
    """What `face_errors` compares landmarks with."""
    return labels.landmarks, labels.scheme, labels.labelled, normaliser, labels.boxes


def _answered(landmarks: Floats) -> NDArray[np.bool_]:
    """Which faces [N] of landmarks [N, L, 2] have an answer."""
    there: NDArray[np.bool_] = np.all(np.isfinite(landmarks), axis=(1, 2))
    return there


def _mean(values: Sequence[float] | Floats) -> float | None:
    """The mean of what is a number; None, as JSON has it, where nothing is."""
    numbers = np.array(values, float)
    known = numbers[np.isfinite(numbers)]
    return float(known.mean()) if known.size else None


def _pair(bounds: tuple[float, float]) -> list[float] | None:
    return list(bounds) if np.isfinite(bounds).all() else None
