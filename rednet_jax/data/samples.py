"""What every reader returns: labelled faces, in images and in the frames of clips."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """One labelled face in one image.

    Attributes:
        image: uint8 [H, W, 3], RGB, as the file has it.
        landmarks: float32 [L, 2], (x, y) in pixels of `image`, pixel centres at integers; 0 where
            not labelled. Their scheme is that of the data set, `Split.scheme`.
        labelled: bool [L]; a point without label never enters a loss or a metric.
        box: float32 [4], (x0, y0, x1, y1): the data set's own, or else smallest and largest
            labelled point; of a face without labels the whole image. Crops are cut around
            `whole_face_box` of the landmarks.
        name: path below the source folder, without extension.
        identity: number of the person, -1 if unknown.
        style: whose labelling convention the points follow; empty if only their scheme's.
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
        images: T images uint8 [H, W, 3], each decoded when it is asked for.
        landmarks: float32 [T, L, 2], pixels of each image; 0 where not labelled.
        labelled: bool [T, L].
        box: float32 [T, 4]; 0 where the frame has no labels.
        valid: bool [T], False where the frame has no labels.
        name: of the clip.
        identity: number of the person, -1 if unknown.
        style: whose labelling convention the points follow; empty if only their scheme's.
    """

    images: Sequence[NDArray[np.uint8]]
    landmarks: NDArray[np.float32]
    labelled: NDArray[np.bool_]
    box: NDArray[np.float32]
    valid: NDArray[np.bool_]
    name: str
    identity: int = -1
    style: str = "300w"
