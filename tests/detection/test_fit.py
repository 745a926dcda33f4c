"""The fit of the detector's corrections, on one picture that is public."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from rednet_jax.detection.dlib import VIEW_CORRECTIONS, FaceDetector, corrected_box
from rednet_jax.detection.fit import box_errors, right_detections
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.pts import write_pts
from rednet_jax.landmarks.schemes import LANDMARKS_68, mean_shape


def test_a_row_holds_the_correction_that_gives_the_labels_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(data.astronaut()).save(tmp_path / "right.png")
    Image.fromarray(data.astronaut()).save(tmp_path / "wrong.png")
    labels = mean_shape(LANDMARKS_68) * 90 + [224, 134]
    write_pts(tmp_path / "right.pts", labels)
    write_pts(tmp_path / "wrong.pts", labels + 200)
    rows = right_detections(sorted(tmp_path.glob("*.pts")))
    (raw,) = FaceDetector().detect_raw(np.asarray(data.astronaut()))
    assert rows.shape == (1, 5) and rows[0, 0] == raw.view
    monkeypatch.setattr("rednet_jax.detection.dlib.VIEW_CORRECTIONS", {raw.view: rows[0, 1:]})
    box = corrected_box(raw.square, raw.view)
    np.testing.assert_allclose(box, landmark_box(labels), atol=1e-3)


def test_box_errors_are_in_sides_of_the_labels_box() -> None:
    x, y, width, height = VIEW_CORRECTIONS[1]
    # Of the second face the labels' box lies off the corrected one, and is twice as large.
    rows = np.array([[1, x, y, width, height], [1, x + 0.1, y - 0.2, 2 * width, 2 * height]])
    side = 2 * max(width, height)
    expected = [[0, 0, 0], [-0.1 / side, 0.2 / side, -np.log(2)]]
    np.testing.assert_allclose(box_errors(rows), expected, atol=1e-6)
