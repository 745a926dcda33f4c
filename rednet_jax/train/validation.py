"""Validation of a stage's weights on faces or clips, by which checkpoints are chosen.

With many processes, each computes a share of the faces, and all get the results.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from numpy.typing import NDArray

from rednet_jax.evaluate.clips import ClipWindows, Followed, follow, frames_of, track_of
from rednet_jax.evaluate.metrics import face_errors
from rednet_jax.evaluate.protocols import Crops, in_image
from rednet_jax.inference.predict import align_crops
from rednet_jax.landmarks.normalisers import measurable
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.watch import COLUMNS, Face, faces_of, faces_to_show, worst_and_typical
from rednet_jax.weights.store import Variables


class Validation(NamedTuple):
    """Results for K = 1, 2, ..., and faces to show.

    Attributes:
        nme: percent, for each K; nan if a landmark is not finite.
        jitter: percent, for each K; None for single images.
        shown: the worst and typical faces at the largest K.
    """

    nme: list[float]
    jitter: list[float] | None
    shown: list[Face]


def validate(
    model: RedNetConfig, variables: Variables, faces: Crops | ClipWindows, passes: int
) -> Validation:
    """Validates weights: on images as `evaluate` does, on clips with the crops of the tracker.

    All processes must call this; each runs the network on its share of the faces.

    Args:
        model: the network.
        variables: of the network.
        faces: images, or windows of clips; the same in all processes.
        passes: the largest K.
    """
    if isinstance(faces, ClipWindows):
        return _validate_clips(model, variables, faces, passes)
    mine = share(len(faces.images), jax.process_index(), jax.process_count())
    own = align_crops(model, variables, faces.images[mine], passes)
    landmarks = np.swapaxes(_all_gather(np.swapaxes(own, 0, 1), len(faces.images)), 0, 1)
    shown = faces_to_show(faces, landmarks[-1], errors_of(landmarks[-1], faces))
    return Validation(validation_nme(landmarks, faces), None, shown)


def _validate_clips(
    model: RedNetConfig, variables: Variables, windows: ClipWindows, passes: int
) -> Validation:
    count = len(windows.frames)
    mine = share(count, jax.process_index(), jax.process_count())
    part = windows._replace(frames=windows.frames[mine])
    tracks = []
    for steps in range(1, passes + 1):
        own = follow(model, variables, part, steps)
        whole = Followed(*(_all_gather(rows, count) for rows in own))
        tracks.append(track_of(model, windows, whole))
    last = tracks[-1]
    errors = np.where(last.known, last.errors, np.nan)
    chosen = worst_and_typical(errors, COLUMNS)
    shown = frames_of(model, windows, last, chosen)
    return Validation(
        [track.nme for track in tracks],
        [track.jitter for track in tracks],
        faces_of(shown, last.landmarks[chosen], errors[chosen], np.arange(len(chosen))),
    )


def share(count: int, process: int, processes: int) -> NDArray[np.intp]:
    """Returns the indices of the faces of a process; all processes have the same number.

    Args:
        count: of all faces, at least 1.
        process: number of the process.
        processes: number of processes.

    Returns:
        int [ceil(count / processes)]; concatenated over processes they are 0, 1, ..., count - 1,
        and then from 0 again.
    """
    each = -(-count // processes)
    return np.arange(process * each, (process + 1) * each) % count


def _all_gather(own: NDArray[Any], count: int) -> NDArray[Any]:
    """Returns the rows of all processes, each with its `share`, in the order of the faces."""
    if jax.process_count() == 1:
        return own
    # As bytes, because JAX would convert float64 to float32.
    raw = np.ascontiguousarray(own).view(np.uint8).reshape(len(own), -1)
    rows = np.asarray(multihost_utils.process_allgather(raw)).reshape(-1, raw.shape[1])[:count]
    return np.ascontiguousarray(rows).view(own.dtype).reshape(count, *own.shape[1:])


def validation_nme(landmarks: NDArray[np.floating], crops: Crops) -> list[float]:
    """Returns the NME after each pass, percent; nan if a landmark is not finite.

    Args:
        landmarks: [K, N, L, 2], crop pixels.
        crops: the faces.
    """
    known = measurable(crops.labelled, crops.scheme, boxed=True)
    return [float(errors_of(of_pass, crops)[known].mean()) for of_pass in landmarks]


def errors_of(landmarks: NDArray[np.floating], crops: Crops) -> NDArray[np.floating]:
    """Returns the NME of each face [N], percent; nan if it cannot be measured.

    Args:
        landmarks: [N, L, 2], crop pixels.
        crops: the faces.
    """
    return face_errors(
        in_image(crops, landmarks),
        crops.landmarks,
        crops.scheme,
        crops.labelled,
        boxes=crops.boxes,
    )
