"""The fit from five points to landmarks' boxes, on constructed faces and one public image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from rednet_jax.detection import fit
from rednet_jax.detection.detector import BOX_FIT, POINTS
from rednet_jax.detection.yunet import YuNet
from rednet_jax.landmarks.boxes import intersection_over_union, landmark_box
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.pts import read_pts, write_pts
from rednet_jax.media.images import read_image


def test_right_detections_keeps_detections_that_overlap_the_labels(tmp_path: Path) -> None:
    for name in ("right", "wrong"):
        Image.fromarray(data.astronaut()).save(tmp_path / f"{name}.png")
    labels = IBUG68.shape * 90 + [224, 134]
    write_pts(tmp_path / "right.pts", labels)
    write_pts(tmp_path / "wrong.pts", labels + 200)
    points, landmarks = fit.right_detections(sorted(tmp_path.glob("*.pts")), YuNet())
    assert points.shape == (1, 5, 2)
    np.testing.assert_allclose(landmarks[0], labels, atol=0.01)


def test_mean_points_of_rotated_copies_are_the_upright_points() -> None:
    rng = np.random.default_rng(0)
    faces = []
    for angle in rng.uniform(-3, 3, 8):
        cosine, sine = np.cos(angle), np.sin(angle)
        turned = POINTS @ np.array([[cosine, sine], [-sine, cosine]])
        faces.append(turned * rng.uniform(20, 90) + rng.uniform(0, 400, 2))
    np.testing.assert_allclose(fit.mean_points(np.array(faces)), POINTS, atol=2e-3)


def test_fit_recovers_the_coefficients() -> None:
    terms = np.random.default_rng(0).normal(0, 0.1, (50, 4))
    terms[:, 2], terms[:, 3] = abs(terms[:, 0]), 1
    boxes = terms @ BOX_FIT.T
    np.testing.assert_allclose(fit.fit_boxes(terms, boxes), BOX_FIT, atol=1e-9)
    np.testing.assert_allclose(fit.box_errors(terms, boxes), 0, atol=1e-9)
    side = np.exp(boxes[:, 2:].max(1))
    boxes[:, 0] -= 0.1 * side
    np.testing.assert_allclose(
        fit.box_errors(terms, boxes), np.tile([0.1, 0, 0], (50, 1)), atol=1e-9
    )


def test_boxes_overlap_real_labels(real_data: Path) -> None:
    overlaps = []
    detector = YuNet()
    for label in sorted((real_data / "300w").rglob("*.pts"))[::80]:
        truth = landmark_box(read_pts(label))
        faces = detector.detect(read_image(label.with_suffix(".jpg"), upright=False))
        overlaps.append(max((intersection_over_union(f.box, truth) for f in faces), default=0))
    assert len(overlaps) > 20 and np.median(overlaps) > 0.8 and min(overlaps) > 0.4


def test_main_prints_constants_and_spread(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(data.astronaut()).save(tmp_path / "a.png")
    write_pts(tmp_path / "a.pts", IBUG68.shape * 90 + [224, 134])
    fit.main(tmp_path)
    output = capsys.readouterr().out
    assert "1 of 1 images" in output and "POINTS [[" in output and "centre +-" in output
