"""Fits `POINTS` and `BOX_FIT` of `detection.detector`, the map from five points to boxes.

Run it with `python -m rednet_jax.detection.fit FOLDER_OF_300W`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rednet_jax.detection.detector import (
    BOX_FIT,
    RIGHT_IOU,
    FaceDetector,
    nose_terms,
    point_frame,
)
from rednet_jax.detection.yunet import YuNet
from rednet_jax.landmarks.boxes import intersection_over_union, landmark_box
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.pts import read_pts
from rednet_jax.media.images import read_image

_MIRROR = [1, 0, 2, 4, 3]
_ROUNDS = 10


def right_detections(
    labels: Iterable[Path], detector: FaceDetector
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Runs a detector on labelled images.

    Args:
        labels: .pts files, each beside an image of the same name, .jpg or .png.
        detector: that returns points.

    Returns:
        The points [N, 5, 2] and the labels [N, 68, 2] of the N images with a correct detection.
    """
    points, landmarks = [], []
    for label in labels:
        path = next(p for suffix in (".jpg", ".png") if (p := label.with_suffix(suffix)).exists())
        truth = read_pts(label)
        for face in detector.detect(read_image(path, upright=False)):
            overlap = intersection_over_union(face.box, landmark_box(truth))
            if face.points is not None and overlap > RIGHT_IOU:
                points.append(face.points)
                landmarks.append(truth)
                break
    return (
        np.array(points, np.float64).reshape(-1, 5, 2),
        np.array(landmarks, np.float64).reshape(-1, IBUG68.count, 2),
    )


def with_mirrored(
    points: NDArray[np.float64], landmarks: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns points [N, 5, 2] and landmarks [N, 68, 2] followed by their mirror images."""
    flip = np.array([-1.0, 1.0])
    mirror = list(IBUG68.mirror)
    return (
        np.concatenate([points, points[:, _MIRROR] * flip]),
        np.concatenate([landmarks, landmarks[:, mirror] * flip]),
    )


def mean_points(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the mean [5, 2] of faces [N, 5, 2] after alignment by similarities (Procrustes)."""
    faces = points @ [1, 1j]
    faces = faces - faces.mean(1, keepdims=True)
    mean = faces[0]
    for _ in range(_ROUNDS):
        factors = (faces @ mean.conj()) / np.vdot(mean, mean)
        mean = (faces / factors[:, None]).mean(0)
        mean = mean / np.linalg.norm(mean)
    # Rotated so that the eyes are level.
    mean = mean * abs(mean[1] - mean[0]) / (mean[1] - mean[0])
    return np.stack([mean.real, mean.imag], axis=-1)


def terms_and_boxes(
    points: NDArray[np.float64], landmarks: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns inputs and outputs of `BOX_FIT`, in the frame of `POINTS`.

    Args:
        points: [N, 5, 2].
        landmarks: [N, 68, 2], of the same faces.

    Returns:
        The terms [N, 4] and the landmarks' box [N, 4]: centre (x, y), logarithms of the sides.
    """
    terms, boxes = [], []
    for five, labels in zip(points, landmarks, strict=True):
        _, factor, centroid = point_frame(five)
        own = (labels @ [1, 1j] - centroid) / factor
        low = np.array([own.real.min(), own.imag.min()])
        high = np.array([own.real.max(), own.imag.max()])
        terms.append(nose_terms((complex(*five[2]) - centroid) / factor))
        boxes.append(np.concatenate([(low + high) / 2, np.log(high - low)]))
    return np.array(terms), np.array(boxes)


def fit_boxes(terms: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns `BOX_FIT` [4, 4] by least squares over faces and their mirror images."""
    # By symmetry, the centre's x is odd in the nose's x, and all other outputs are even.
    fit = np.zeros((4, 4))
    fit[0, :1] = np.linalg.lstsq(terms[:, :1], boxes[:, 0])[0]
    fit[1:, 1:] = np.linalg.lstsq(terms[:, 1:], boxes[:, 1:])[0].T
    return fit


def box_errors(terms: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns errors [N, 3] of `BOX_FIT`: centre (x, y) and logarithm of the larger side.

    The centre's error is in units of the larger side of the labels' box.
    """
    fitted = terms @ BOX_FIT.T
    larger = boxes[:, 2:].max(axis=1, keepdims=True)
    size = fitted[:, 2:].max(axis=1, keepdims=True) - larger
    return np.concatenate([(fitted[:, :2] - boxes[:, :2]) / np.exp(larger), size], axis=1)


def main(folder: Path) -> None:
    """Prints values for `POINTS` and `BOX_FIT`, and the errors of the boxes."""
    labels = sorted(folder.rglob("*.pts"))
    detected = right_detections(labels, YuNet())
    print(f"{len(detected[0])} of {len(labels)} images with IoU > {RIGHT_IOU}")
    points, landmarks = with_mirrored(*detected)
    print("POINTS", np.round(mean_points(points), 3).tolist())
    terms, boxes = terms_and_boxes(points, landmarks)
    print("BOX_FIT", np.round(fit_boxes(terms, boxes), 3).tolist(), "for the current POINTS")
    x, y, size = box_errors(terms, boxes).std(axis=0)
    rolls = [point_frame(five)[0] for five in detected[0]]
    print(f"boxes: centre +-{x:.3f}, +-{y:.3f} sides, logarithm of the side +-{size:.3f}")
    print(f"roll of these faces: +-{np.degrees(np.std(rolls)):.1f} degrees")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    main(parser.parse_args().folder)
