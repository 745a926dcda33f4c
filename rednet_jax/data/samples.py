"""Samples that readers return: labelled faces in images and in the frames of clips."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """One labelled face in one image.

    Attributes:
        image: uint8 [H, W, 3], RGB, in pixels as stored.
        landmarks: float32 [L, 2], (x, y) in pixels of `image`, pixel centres at integers; 0 where
            not labelled. Their scheme is that of the data set, `Split.scheme`.
        labelled: bool [L]; unlabelled points are excluded from losses and metrics.
        box: float32 [4], (x0, y0, x1, y1): the data set's own box, else that of the labelled
            points, else the whole image. Crops are cut around `whole_face_box` of the landmarks.
        name: path relative to the source folder, without extension.
        identity: number of the person, -1 if unknown.
        style: labelling convention of the points; empty if only the scheme defines it.
    """

    image: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    labelled: NDArray[np.bool_]
    box: NDArray[np.float32]
    name: str
    identity: int = -1
    style: str = "300w"


@dataclass(frozen=True)
class ClipSample:
    """One labelled face in the T frames of a clip.

    Attributes:
        images: T images uint8 [H, W, 3], each decoded when it is accessed.
        landmarks: float32 [T, L, 2], pixels of each image; 0 where not labelled.
        labelled: bool [T, L].
        box: float32 [T, 4]; 0 for frames without labels.
        valid: bool [T], False for frames without labels.
        name: of the clip.
        identity: number of the person, -1 if unknown.
        style: labelling convention of the points; empty if only the scheme defines it.
    """

    images: Sequence[NDArray[np.uint8]]
    landmarks: NDArray[np.float32]
    labelled: NDArray[np.bool_]
    box: NDArray[np.float32]
    valid: NDArray[np.bool_]
    name: str
    identity: int = -1
    style: str = "300w"
