"""What every reader hands out: faces with their labels, and what had to be left out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """One labelled face in one picture.

    Attributes:
        image: uint8 [H, W, 3], RGB, as the file has it.
        landmarks: float32 [68, 2], (x, y) in pixels of `image`, pixel centres at integers; 0 where
            not labelled.
        labelled: bool [68]; a point without label never enters a loss or a metric.
        box: float32 [4], (x0, y0, x1, y1), smallest and largest labelled point.
        name: path below the source folder, without extension.
        identity: number of the person, -1 if unknown.
        style: whose labelling convention the points follow.
    """

    image: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    labelled: NDArray[np.bool_]
    box: NDArray[np.float32]
    name: str
    identity: int = -1
    style: str = "300w"


class Samples(Protocol):
    """A split of a data set, read from disk each time it is gone through.

    Attributes:
        skipped: one line for each file or folder that was left out, filled while reading.
    """

    skipped: list[str]

    def __len__(self) -> int:
        """Faces that the split lists, before any bad file is left out."""
        ...

    def __iter__(self) -> Iterator[Sample]:
        """Goes through the split in a fixed order."""
        ...
