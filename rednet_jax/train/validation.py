"""What checkpoints are chosen by: errors on a stage's validation faces, or on its clips."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rednet_jax.evaluate.clips import ClipWindows, follow
from rednet_jax.evaluate.metrics import face_errors, measurable
from rednet_jax.evaluate.protocols import Crops, align_crops, in_picture
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.store import Variables


class Validation(NamedTuple):
    """Figures, each a list for K = 1, 2, ..., and the faces that they come from.

    Attributes:
        nme: percent; nan where a landmark is not finite.
        jitter: percent; None of single pictures.
        crops: the N faces as the network saw them at the largest K.
        landmarks: float [N, L, 2], of the largest K, crop pixels.
    """

    nme: list[float]
    jitter: list[float] | None
    crops: Crops
    landmarks: NDArray[np.floating]


def validate(
    model: RedNetConfig, variables: Variables, faces: Crops | ClipWindows, passes: int
) -> Validation:
    """Measures weights: on pictures as evaluation does, on clips as the tracker sees them.

    Args:
        model: the network.
        variables: of the network.
        faces: pictures, or stretches of clips.
        passes: the largest K.
    """
    if isinstance(faces, ClipWindows):
        tracks = [follow(model, variables, faces, steps) for steps in range(1, passes + 1)]
        jitter = [track.jitter for track in tracks]
        return Validation([track.nme for track in tracks], jitter, *tracks[-1][:2])
    landmarks = align_crops(model, variables, faces.images, passes)
    return Validation(validation_nme(landmarks, faces), None, faces, landmarks[-1])


def validation_nme(landmarks: NDArray[np.floating], crops: Crops) -> list[float]:
    """Returns the NME after each of the passes, percent; nan where a landmark is not finite.

    Args:
        landmarks: [K, N, L, 2], crop pixels.
        crops: the faces.
    """
    known = measurable(crops.labelled)
    return [float(errors_of(one, crops)[known].mean()) for one in landmarks]


def errors_of(landmarks: NDArray[np.floating], crops: Crops) -> NDArray[np.floating]:
    """Returns the NME of each face [N], percent; nan where it cannot be measured.

    Args:
        landmarks: [N, L, 2], crop pixels.
        crops: the faces.
    """
    errors = face_errors(in_picture(crops, landmarks), crops.landmarks, crops.labelled)
    return np.where(measurable(crops.labelled), errors, np.nan)
