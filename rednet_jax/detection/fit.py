"""Fits the table of `detection.dlib` that turns the detector's squares into boxes of landmarks.

    python -m rednet_jax.detection.fit FOLDER_OF_300W
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rednet_jax.detection.dlib import FaceDetector
from rednet_jax.landmarks.boxes import intersection_over_union, landmark_box
from rednet_jax.landmarks.pts import read_pts

RIGHT_IOU = 0.4
"""A detection is right where it overlaps the labelled face by more than this."""


def right_detections(labels: Iterable[Path]) -> NDArray[np.float64]:
    """What the detector answers on labelled pictures (each NAME.pts beside NAME.jpg or NAME.png).

    Returns: [N, 5], a row for each picture whose best box is right: view, then the shift of the centre (x, y) and
    the width and height of the landmark box in units of dlib's side.
    """
    detector = FaceDetector()
    rows = []
    for label in labels:
        picture = next(
            p for suffix in (".jpg", ".png") if (p := label.with_suffix(suffix)).exists()
        )
        truth = np.asarray(landmark_box(read_pts(label)), np.float64)
        with Image.open(picture) as image:
            faces = detector.detect_raw(np.asarray(image.convert("RGB")))
        if not faces or intersection_over_union(faces[0].square, truth) <= RIGHT_IOU:
            continue
        square = faces[0].square
        side = square[2] - square[0]
        shift = (truth[:2] + truth[2:] - square[:2] - square[2:]) / 2 / side
        rows.append([faces[0].view, *shift, *((truth[2:] - truth[:2]) / side)])
    return np.array(rows).reshape(-1, 5)


def main(folder: Path) -> None:
    """Prints, for each of dlib's views, the medians that `VIEW_CORRECTIONS` holds."""
    labels = sorted(folder.rglob("*.pts"))
    rows = right_detections(labels)
    print(f"{len(rows)} of {len(labels)} pictures with IoU > {RIGHT_IOU}")
    for view in range(5):
        mine = rows[rows[:, 0] == view, 1:]
        medians = ", ".join(f"{value:.3f}" for value in np.median(mine, axis=0))
        spreads = ", ".join(f"{value:.3f}" for value in mine.std(axis=0))
        print(f"view {view}: {len(mine)} faces, [{medians}], standard deviations [{spreads}]")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
