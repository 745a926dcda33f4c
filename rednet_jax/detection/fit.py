"""Fits `VIEW_CORRECTIONS` of `detection.dlib`: from the detector's squares to boxes of landmarks.

Run by `python -m rednet_jax.detection.fit FOLDER_OF_300W`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rednet_jax.detection.dlib import VIEW_CORRECTIONS, FaceDetector
from rednet_jax.landmarks.boxes import intersection_over_union, landmark_box
from rednet_jax.landmarks.pts import read_pts
from rednet_jax.media.images import read_image

RIGHT_IOU = 0.4
"""A detection is right where it overlaps the labelled face by more than this."""


def right_detections(labels: Iterable[Path]) -> NDArray[np.float64]:
    """Runs the detector on labelled pictures.

    Args:
        labels: .pts files, each beside a picture of the same name, .jpg or .png.

    Returns:
        [N, 5], a row for each picture whose best square is right: its view, then the shift of the
        centre (x, y) and the width and height of the landmark box in sides of the square.
    """
    detector = FaceDetector()
    rows = []
    for label in labels:
        picture = next(
            p for suffix in (".jpg", ".png") if (p := label.with_suffix(suffix)).exists()
        )
        truth = np.asarray(landmark_box(read_pts(label)), np.float64)
        faces = detector.detect_raw(read_image(picture, upright=False))
        if not faces or intersection_over_union(faces[0].square, truth) <= RIGHT_IOU:
            continue
        square = faces[0].square
        side = square[2] - square[0]
        shift = (truth[:2] + truth[2:] - square[:2] - square[2:]) / 2 / side
        rows.append([faces[0].view, *shift, *((truth[2:] - truth[:2]) / side)])
    return np.array(rows).reshape(-1, 5)


def box_errors(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    """Returns how corrected boxes err, [N, 3]: centre (x, y) and logarithm of the larger side.

    Args:
        rows: of `right_detections`.

    Returns:
        In units of the landmark box's larger side.
    """
    found, truth = np.asarray(VIEW_CORRECTIONS)[rows[:, 0].astype(int)], rows[:, 1:]
    side = truth[:, 2:].max(axis=1, keepdims=True)
    size = np.log(found[:, 2:].max(axis=1, keepdims=True) / side)
    return np.concatenate([(found[:, :2] - truth[:, :2]) / side, size], axis=1)


def main(folder: Path) -> None:
    """Prints the medians that `VIEW_CORRECTIONS` holds for each view, and how its boxes err."""
    labels = sorted(folder.rglob("*.pts"))
    rows = right_detections(labels)
    print(f"{len(rows)} of {len(labels)} pictures with IoU > {RIGHT_IOU}")
    for view in range(len(VIEW_CORRECTIONS)):
        mine = rows[rows[:, 0] == view, 1:]
        medians = ", ".join(f"{value:.3f}" for value in np.median(mine, axis=0))
        spreads = ", ".join(f"{value:.3f}" for value in mine.std(axis=0))
        print(f"view {view}: {len(mine)} faces, [{medians}], standard deviations [{spreads}]")
    x, y, size = box_errors(rows).std(axis=0)
    print(f"corrected boxes: centre +-{x:.3f}, +-{y:.3f} sides, logarithm of the side +-{size:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    main(parser.parse_args().folder)
