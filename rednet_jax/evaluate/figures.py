"""The figures that `rednet eval` reports for predicted landmarks."""

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
"""Level of the intervals."""

BLOCK = 32
"""Consecutive frames that are resampled together for the interval of one clip, since their errors
are correlated."""


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
    """Compares predicted landmarks with labels.

    Args:
        labels: of N faces.
        answers: for each row of the result, K (None if unknown) and the predicted landmarks
            [N, L, 2] in image pixels. A face with a coordinate that is not finite is missed.
        normaliser: of the errors; the scheme's own if None.
        boxes: how crops were placed, None if unknown.
        crop_margin: of the crops, None if unknown.
        plot: PNG file for the cumulative error distributions; a missed face counts as a failure.
        name: for the plot's legend.
        parts: masks [N] of the frames of clips with separate figures, by name.

    Returns:
        The content of `rednet eval --json`. `split`, with a note if it is used for selection. For
        the largest K: `images` (measured faces) and `missed` (labelled faces without a prediction,
        which are not measured). `normaliser`, `boxes`, `crop_margin`; `interval`, which describes
        the intervals. `per_step`, a row for each of `answers`, in percent: `feedback_steps`, `nme`,
        `median`, `failure_rate_8`, `failure_rate_10`, `auc_8`; `groups`, the NME of parts of the
        face; `intervals`, [low, high] of the means among these, None for fewer than two owners;
        in all rows but the first `nme_less_first`, the NME minus that of the first row on the faces
        with both predictions, with its paired interval; `with_missed`, failure rates and area
        if each missed face counts as a failure.

        For clips also `clips`, `frames` (labelled or not), `label_jitter`, and in each row, where
        `nme` is the mean over all frames, `nme_of_videos`, `jitter` and `error_jitter`, means of
        the videos' means, and `per_video`. The interval of a video resamples blocks of `BLOCK`
        frames. `error_jitter`, of the difference to the labels, includes the labels' own jitter
        unless they are exact. With `parts`, each row has `parts`: for each `images`, `missed`, and
        over its frames `nme`, `jitter` and `error_jitter`, with `intervals` over clips.

    Raises:
        RednetError: a normaliser that the landmarks do not have, no face that can be measured, no
            prediction for any of them, or a plot that cannot be written.
    """
    normaliser = normaliser or default_normaliser(labels.scheme)
    described = normaliser_text(labels.scheme, normaliser)
    known = measurable(labels.labelled, labels.scheme, normaliser, boxed=True)
    if not known.any():
        raise RednetError(f"{labels.of}: no face has {needed(normaliser, labels.scheme)} labelled")
    rows: list[dict[str, Any]] = []
    curves: dict[str, Floats] = {}
    first: Floats | None = None
    for steps, landmarks in answers:
        predicted = _predicted(landmarks)
        if not (known & predicted).any():
            raise RednetError(f"{labels.of}: no prediction for any of {known.sum()} labelled faces")
        masked = np.where(predicted[:, None, None], landmarks, np.nan)
        row = _row(labels, masked, known, normaliser, parts)
        errors = face_errors(masked, *_truth(labels, normaliser))[known]
        first = errors if first is None else first
        if rows:
            owners = np.asarray(labels.owners)[known]
            row["nme_less_first"] = _mean([mean_difference(errors, first)])
            bounds = paired_interval(errors, first, owners, level=LEVEL)
            row["intervals"]["nme_less_first"] = _pair(bounds)
        rows.append({"feedback_steps": steps, **row})
        curve = name if steps is None else f"{name}, K = {steps}"
        failed = row["with_missed"]["failure_rate_10"]
        curves[f"{curve}: NME {row['nme']:.2f} %, {failed:.1f} % fail"] = errors
    last = max(range(len(rows)), key=lambda i: answers[i][0] or 0)
    predicted = _predicted(answers[last][1])
    split = labels.of + (", used for selection" if labels.of.endswith(" validation") else "")
    result: dict[str, Any] = {
        "split": split,
        "images": int((known & predicted).sum()),
        "missed": int((labels.labelled.any(1) & ~predicted).sum()),
        "normaliser": described,
        "boxes": boxes,
        "crop_margin": crop_margin,
        "interval": {
            "level": LEVEL,
            "over": labels.over,
            "count": len({labels.owners[i] for i in np.flatnonzero(known & predicted)}),
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
        title = f"{split}: {result['images']} {faces}{missed}"
        draw_cumulative(curves, plot, title=title, normaliser=result["normaliser"])
    return {**result, "per_step": rows}


def figures_text(result: dict[str, Any]) -> str:
    """Returns the result of `figures` as text, one line per row, with intervals in brackets.

    For clips there is one line per video, with the figures of the largest K.
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
            # Rates over found faces only would favour a detector that finds only easy faces.
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
    """Returns the figures of one row of predictions."""
    errors = face_errors(landmarks, *_truth(labels, normaliser))
    regions = part_errors(landmarks, *_truth(labels, normaliser))
    owners = np.asarray(labels.owners)
    known_regions = {region: values[known] for region, values in regions.items()}
    row = _face_figures(errors[known], known_regions, owners[known])
    if labels.clips is None:
        return row
    steadiness = _steadiness(labels, landmarks, normaliser)
    videos = [
        {
            "clip": name,
            **_video_figures(landmarks[frames], errors[frames], known[frames], labels.scheme),
            "error_jitter": _mean(steadiness["error_jitter"][frames]),
        }
        for name, frames in labels.clips
    ]
    video_columns = {
        "nme_of_videos": np.array([video["nme"] for video in videos], float),
        "jitter": np.array([video["jitter"] for video in videos], float),
        "error_jitter": np.array([video["error_jitter"] for video in videos], float),
    }
    bounds = bootstrap_intervals(video_columns, level=LEVEL)
    row["intervals"] |= {name: _pair(ends) for name, ends in bounds.items()}
    means = {name: _mean(values) for name, values in video_columns.items()}
    columns = {"nme": np.where(known, errors, np.nan), **steadiness}
    part_rows = {
        name: {
            "images": int((known & frames & np.isfinite(errors)).sum()),
            "missed": int((known & frames & ~np.isfinite(errors)).sum()),
            **_part_figures(
                {column: values[frames] for column, values in columns.items()}, owners[frames]
            ),
        }
        for name, frames in parts.items()
    }
    return {**row, **means, **({"parts": part_rows} if parts else {}), "per_video": videos}


def _steadiness(labels: Labels, landmarks: Floats, normaliser: Normaliser) -> dict[str, Floats]:
    """Returns `jitter` and `error_jitter` of each frame [N], computed clip by clip."""
    per_clip = []
    for _, frames in labels.clips or ():
        truth = labels._replace(
            landmarks=labels.landmarks[frames],
            labelled=labels.labelled[frames],
            boxes=labels.boxes[frames],
        )
        track = landmarks[frames]
        own = frame_jitter(track, labels.scheme)
        per_clip.append((own, error_jitter(track, *_truth(truth, normaliser))))
    own, against_truth = (np.concatenate(column) for column in zip(*per_clip, strict=True))
    return {"jitter": own, "error_jitter": against_truth}


def _part_figures(columns: Mapping[str, Floats], owners: NDArray[np.str_]) -> dict[str, Any]:
    """Returns the mean of each column [F] over frames, and its interval over clips."""
    bounds = bootstrap_intervals(columns, owners, level=LEVEL)
    return {
        **{name: _mean(values) for name, values in columns.items()},
        "intervals": {name: _pair(ends) for name, ends in bounds.items()},
    }


def _video_figures(
    landmarks: Floats, errors: Floats, known: NDArray[np.bool_], scheme: Scheme
) -> dict[str, Any]:
    """Returns the figures of one clip; `known` is the mask of its measurable frames."""
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


def _face_figures(
    errors: Floats, parts: Mapping[str, Floats], owners: NDArray[np.str_]
) -> dict[str, Any]:
    """Returns the figures of measurable faces; nan means no prediction."""
    finite = np.isfinite(errors)
    measured = errors[finite]
    above = {cut: 100.0 * (errors > cut) for cut in (8, 10)}
    columns = {
        "nme": errors,
        **{f"failure_rate_{cut}": np.where(finite, rate, np.nan) for cut, rate in above.items()},
        "auc_8": np.where(finite, face_areas(errors, 8), np.nan),
        **parts,
    }
    bounds = bootstrap_intervals(columns, owners, level=LEVEL)
    return {
        "nme": float(measured.mean()),
        "median": float(np.median(measured)),
        "failure_rate_8": failure_rate(measured, 8),
        "failure_rate_10": failure_rate(measured, 10),
        "auc_8": cumulative_auc(measured, 8),
        "groups": {part: _mean(values) for part, values in parts.items()},
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
    """Returns the arguments of `face_errors` after the landmarks."""
    return labels.landmarks, labels.scheme, labels.labelled, normaliser, labels.boxes


def _predicted(landmarks: Floats) -> NDArray[np.bool_]:
    """Returns the mask [N] of faces with finite landmarks [N, L, 2]."""
    finite: NDArray[np.bool_] = np.all(np.isfinite(landmarks), axis=(1, 2))
    return finite


def _mean(values: Sequence[float] | Floats) -> float | None:
    """Returns the mean of the finite values; None if there is none, since JSON has no nan."""
    numbers = np.array(values, float)
    known = numbers[np.isfinite(numbers)]
    return float(known.mean()) if known.size else None


def _pair(bounds: tuple[float, float]) -> list[float] | None:
    return list(bounds) if np.isfinite(bounds).all() else None
