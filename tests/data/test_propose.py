"""Proposed schemes: mirror pairs, mean shape, outline and errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from any_scheme import SCHEMES
from hypothesis import given
from PIL import Image

from rednet_jax.data.propose import mirror_pairs, propose_scheme, scheme_of_shapes
from rednet_jax.detection.detector import Detection
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.builtin import (
    AFLW19,
    BUILTIN,
    COFW29,
    HEAD70,
    IBUG68,
    REDNET7,
    WFLW98,
    load_scheme,
)
from rednet_jax.landmarks.convert import convert
from rednet_jax.landmarks.pts import write_pts
from rednet_jax.landmarks.schemes import Scheme


@pytest.mark.parametrize("scheme", BUILTIN.values(), ids=BUILTIN)
def test_mirror_pairs_of_the_builtin_schemes(scheme: Scheme) -> None:
    """Also if the shape is off the axis, as a mean over faces that look aside."""
    assert mirror_pairs(scheme.shape) == scheme.mirror
    assert mirror_pairs(scheme.shape + np.float32([0.004, 0])) == scheme.mirror


@given(SCHEMES)
def test_mirror_pairs_are_an_involution(scheme: Scheme) -> None:
    mirror = mirror_pairs(scheme.shape)
    assert [mirror[index] for index in mirror] == list(range(scheme.count))
    apart = np.linalg.norm(scheme.shape[list(mirror)] * [-1, 1] - scheme.shape, axis=1)
    assert apart.max() < 1e-6


@pytest.mark.parametrize("scheme", [IBUG68, WFLW98, COFW29, AFLW19, REDNET7], ids=str)
def test_a_scheme_of_shapes(scheme: Scheme) -> None:
    rng = np.random.default_rng(0)
    shapes = scheme.shape + rng.normal(0, 0.004, (60, scheme.count, 2))
    shapes[:10, 0] = np.nan
    proposed = scheme_of_shapes("mine", shapes)
    assert proposed.mirror == scheme.mirror
    np.testing.assert_allclose(proposed.shape, scheme.shape, atol=0.005)
    # The normaliser is the outer eye corners if the scheme has them; an outline is added if the
    # landmarks do not span the face.
    corners = scheme.groups or ((6,), (11,))
    assert proposed.groups == corners
    assert bool(proposed.outline) == bool(scheme.outline)


def test_a_landmark_without_labels_or_counterpart_raises() -> None:
    shapes = np.tile(REDNET7.shape, (5, 1, 1)).astype(np.float64)
    shapes[:, 3] = np.nan
    with pytest.raises(RednetError, match="landmark 3 is not labelled in any of 5 faces"):
        scheme_of_shapes("mine", shapes)
    shapes[:, 3] = -0.4, 0.1
    with pytest.raises(RednetError, match=r"landmark \d has no counterpart on the other"):
        scheme_of_shapes("mine", shapes)


class ByColour:
    """A detector that returns the box of each image, which its colour identifies."""

    def __init__(self, boxes: dict[int, np.ndarray]) -> None:
        self.boxes = boxes

    def detect(self, image: np.ndarray) -> list[Detection]:
        box = self.boxes.get(int(image[0, 0, 0]))
        return [] if box is None else [Detection(box, 0.9)]


def test_from_images_to_a_file_and_a_sheet(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    boxes = {}
    (tmp_path / "mine").mkdir()
    for number in range(8):
        size, place = rng.uniform(60, 120), rng.uniform(100, 140, 2)
        points = HEAD70.shape * size + place
        Image.new("RGB", (240, 240), (number, 9, 9)).save(tmp_path / f"mine/{number}.png")
        write_pts(tmp_path / f"mine/{number}.pts", convert(points, HEAD70, COFW29))
        boxes[number] = landmark_box(points)
    del boxes[3]
    proposal = propose_scheme(
        tmp_path / "mine",
        "mine29",
        out=tmp_path / "mine29.json",
        sheet=tmp_path / "sheet.png",
        detector=ByColour(boxes),
    )
    assert proposal.faces == 7 and load_scheme(proposal.file) == proposal.scheme
    assert proposal.scheme.mirror == COFW29.mirror
    # The unit is the side of the detected box, slightly larger than that of the mean face.
    low, high = IBUG68.shape.min(0), IBUG68.shape.max(0)
    expected = (COFW29.shape - (low + high) / 2) / (high - low).max()
    np.testing.assert_allclose(proposal.scheme.shape, expected, atol=0.01)
    assert Image.open(proposal.sheet).size[0] > 1000
    with pytest.raises(RednetError, match="the detector finds 0 of 8 labelled faces"):
        propose_scheme(tmp_path / "mine", "mine29", detector=ByColour({}))
    with pytest.raises(RednetError, match="'wflw98' is the name of a built-in scheme"):
        propose_scheme(tmp_path / "mine", "wflw98")
    with pytest.raises(RednetError, match="nothing: no such folder"):
        propose_scheme(tmp_path / "mine" / "nothing", "mine29")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RednetError, match="empty: no labelled image"):
        propose_scheme(tmp_path / "empty", "mine29")
