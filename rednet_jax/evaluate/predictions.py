"""Predictions as CSV: writing those of a network, and scoring files of any origin."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.sources import Split, holds_clips, read_clips, read_split
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.figures import figures
from rednet_jax.evaluate.labels import Labels, clip_labels, face_labels
from rednet_jax.evaluate.provenance import eval_command, measured_on
from rednet_jax.landmarks.builtin import BUILTIN
from rednet_jax.landmarks.convert import converts
from rednet_jax.landmarks.normalisers import Normaliser, check_normaliser, default_normaliser
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.landmarks.table import first_row, read_landmarks_csv, write_landmarks_csv

Floats = NDArray[np.floating]


def write_predictions(path: Path, labels: Labels, landmarks: Floats) -> None:
    """Writes landmarks [N, L, 2] of the faces of a split, image pixels; nan means no prediction.

    A split of images is one file. Clips are one file if the path ends in .csv, with frames named
    CLIP/NUMBER; else a folder with one CLIP.csv per clip, with frames named by number from 1.

    Raises:
        RednetError: a file cannot be written.
    """
    finite = np.isfinite(landmarks).all((1, 2), keepdims=True)
    landmarks = np.where(finite, landmarks, np.nan)
    if labels.clips is None or path.suffix == ".csv":
        write_landmarks_csv(path, labels.names, landmarks)
        return
    for name, frames in labels.clips:
        numbers = [frame.rpartition("/")[2] for frame in labels.names[frames]]
        write_landmarks_csv(path / f"{name}.csv", numbers, landmarks[frames])


def read_predictions(path: Path, labels: Labels) -> Floats:
    """Returns the landmarks [N, L, 2] of a split's faces from a file, or from a folder for clips.

    The format is that of `write_predictions`. Rows of frames without labels may be missing.

    Raises:
        RednetError: a file that cannot be read or is invalid, a name that the split does not have,
            or a labelled face without a row.
    """
    count = labels.landmarks.shape[1]
    if labels.clips is None or not path.is_dir():
        return _in_order(path, labels, *read_landmarks_csv(path, count))
    parts = []
    files = {file.stem for file in path.glob("*.csv")}
    clips = [name for name, _ in labels.clips]
    _refuse(path, sorted(files - set(clips)), f"{labels.of} has no clip ")
    _refuse(
        path, [name for name in clips if name not in files], f"no CSV file for {labels.of} clip "
    )
    for name, frames in labels.clips:
        file = path / f"{name}.csv"
        numbers = [frame.rpartition("/")[2] for frame in labels.names[frames]]
        part = labels._replace(
            of=f"{labels.of} {name}", names=numbers, labelled=labels.labelled[frames]
        )
        parts.append(_in_order(file, part, *read_landmarks_csv(file, count)))
    return np.concatenate(parts)


def score_predictions(
    path: str | os.PathLike[str],
    data: str,
    split: str,
    *,
    data_dir: Path | None = None,
    scheme: Scheme | None = None,
    normaliser: Normaliser | None = None,
    plot: Path | None = None,
) -> dict[str, Any]:
    """Evaluates predictions of any origin on a split.

    Args:
        path: of a CSV file, or of a folder with one file per clip, as in `read_predictions`.
        data: name of the data set.
        split: of the data set.
        data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.
        scheme: of the predictions; if None, that of the data set, or a built-in one with the same
            number of landmarks.
        normaliser: of the errors; the scheme's own if None.
        plot: PNG file for the cumulative error distribution.

    Returns:
        The result of `figures`, with one row in `per_step`, and `provenance` of `measured_on`;
        `boxes`, `crop_margin` and `feedback_steps` are unknown, so None.

    Raises:
        RednetError: predictions as in `read_predictions`, an unknown data set or split, no face
            that can be measured, or a plot that cannot be written.
    """
    path = Path(path)
    # First, so that an unreadable file is reported before the split is read.
    count = _count(path)
    of = f"{data} {split}"
    samples: Split[Any]
    if holds_clips(data):
        samples = clips = read_clips(data, split, data_dir)
        scheme = scheme or _scheme(count, samples.scheme)
        labels = clip_labels(of, clips, scheme)
    else:
        samples = faces = read_split(data, split, data_dir)
        scheme = scheme or _scheme(count, samples.scheme)
        labels = face_labels(of, faces, scheme)
    normaliser = normaliser or default_normaliser(scheme)
    check_normaliser(normaliser, scheme)
    landmarks = read_predictions(path, labels)
    result = figures(labels, [(None, landmarks)], normaliser=normaliser, plot=plot, name=path.stem)
    command = eval_command(f"--predictions-in {path.name}", data, split, normaliser)
    origin = measured_on(command, samples, predictions=path, labels=labels)
    return {**result, "provenance": origin}


def _count(path: Path) -> int:
    """Returns the number of landmarks in the header of a file, or of a folder's first file."""
    file = min(path.glob("*.csv"), default=None) if path.is_dir() else path
    if file is None:
        raise RednetError(f"{path}: no CSV file in this folder")
    header = [cell.strip() for cell in first_row(file)]
    return sum(bool(re.fullmatch(r"x\d+", cell)) for cell in header)


def _scheme(count: int, of_data: Scheme) -> Scheme:
    """Returns the data set's scheme, or a built-in one of `count` landmarks that it converts to."""
    known = [of_data, *BUILTIN.values()]
    # If no scheme fits, the reader of the file reports the number of columns with its line.
    fitting = (scheme for scheme in known if scheme.count == count and converts(of_data, scheme))
    return next(fitting, of_data)


def _in_order(path: Path, labels: Labels, names: Sequence[str], landmarks: Floats) -> Floats:
    """Returns the rows in the split's order; nan for unlabelled faces without a row."""
    rows = {name: row for row, name in enumerate(names)}
    known = set(labels.names)
    _refuse(path, [name for name in names if name not in known], f"not in {labels.of}: ")
    labelled = [labels.names[i] for i in np.flatnonzero(np.any(labels.labelled, axis=1))]
    missing = [name for name in labelled if name not in rows]
    _refuse(path, missing, f"no row (nan for no prediction) for {labels.of} ")
    ordered = np.full((len(labels.names), *landmarks.shape[1:]), np.nan, np.float32)
    for number, name in enumerate(labels.names):
        if name in rows:
            ordered[number] = landmarks[rows[name]]
    return ordered


def _refuse(path: Path, names: Sequence[str], message: str) -> None:
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise RednetError(f"{path}: {message}{names[0]!r}{more}")
