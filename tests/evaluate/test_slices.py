"""Slices of a split: skin tones of known colours, yaw of a known head, rows computed by hand."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from PIL import Image, ImageDraw
from train.miniature_300w import prepare_300w

from rednet_jax.data.sources import read_split
from rednet_jax.evaluate.bootstrap import bootstrap_interval
from rednet_jax.evaluate.protocols import evaluate_split
from rednet_jax.evaluate.slices import (
    NOSE_DEPTH,
    estimated_yaw,
    measure_slices,
    skin_tone,
    slice_row,
    thirds,
    typology_angle,
)
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.model.rednet import init

BROWN, BROWN_ANGLE = (139, 69, 19), -17.0
FACE = 100 + 160 * IBUG68.shape


@pytest.mark.parametrize(
    ("colour", "lightness", "b"),
    [
        # L* and b* from tables of sRGB under D65.
        ((255, 0, 0), 53.24, 67.20),
        ((255, 255, 0), 97.14, 94.48),
        (BROWN, 37.47, 40.98),
        ((255, 228, 196), 92.01, 19.02),
        ((0, 0, 255), 32.30, -107.86),
    ],
)
def test_the_angle_of_known_colours(colour, lightness, b):
    angle = typology_angle(np.array([colour], np.uint8))
    assert angle == pytest.approx(np.degrees(np.arctan2(lightness - 50, b)), abs=0.1)


def painted(cheeks, around=(0, 0, 255)):
    """Returns an image of a face with cheeks of one colour in front of another."""
    image = Image.new("RGB", (200, 200), around)
    for corners in ((41, 40, 31, 48, 4, 2), (46, 47, 35, 54, 12, 14)):
        places = [(float(x), float(y)) for x, y in FACE[list(corners)]]
        ImageDraw.Draw(image).polygon(places, fill=cheeks)
    return np.array(image)


def test_skin_tone_is_measured_on_the_cheeks_only():
    assert skin_tone(painted(BROWN), FACE) == pytest.approx(BROWN_ANGLE, abs=0.1)


def test_an_unlabelled_cheek_is_left_out():
    image = painted(BROWN)
    image[:, 100:] = (0, 0, 255)
    labelled = np.ones(68, bool)
    labelled[46] = False
    assert skin_tone(image, FACE, labelled) == pytest.approx(BROWN_ANGLE, abs=0.1)
    assert np.isnan(skin_tone(image, FACE, np.zeros(68, bool)))


def test_grey_images_and_small_faces_have_no_skin_tone():
    assert np.isnan(skin_tone(painted((120, 120, 120)), FACE))
    assert np.isnan(skin_tone(painted(BROWN), FACE / 30))


@pytest.mark.parametrize("roll", [0, 25, 120])
@pytest.mark.parametrize("yaw", [-40, 0, 15])
def test_yaw_of_a_turned_head(yaw, roll):
    """Three points of a head, turned about the vertical, then rolled, in parallel projection."""
    head = np.zeros((68, 3))
    head[36], head[45], head[30] = (-0.5, 0, 0), (0.5, 0, 0), (0, 0.4, NOSE_DEPTH)
    (cy, cr), (sy, sr) = (f(np.radians([yaw, roll])) for f in (np.cos, np.sin))
    turned = head @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]).T
    seen = 70 + 90 * turned[:, :2] @ np.array([[cr, -sr], [sr, cr]]).T
    assert estimated_yaw(seen) == pytest.approx(yaw, abs=1e-6)
    assert estimated_yaw(np.stack([seen, seen])).shape == (2,)


def test_thirds_divide_the_finite_values():
    values = np.array([3.0, np.nan, 9, 1, 5, 5, 7, np.nan, 2, 8, 4, 6])
    low, middle, high = thirds(values)
    assert sorted([*low, *middle, *high]) == [i for i in range(12) if np.isfinite(values[i])]
    assert [len(third) for third in (low, middle, high)] == [4, 3, 3]
    assert values[low].max() <= values[middle].min() <= values[middle].max() <= values[high].min()


def test_a_row_by_hand():
    errors = np.array([1.0, 2, 4, np.nan, 9])
    owners = ["a", "b", "b", "c", "d"]
    row = slice_row([(1, errors), (3, 2 * errors)], np.array([0, 1, 2, 3]), owners)
    assert (row["faces"], row["missed"]) == (3, 1)
    k1, k3 = row["per_step"]
    assert (k1["feedback_steps"], k3["feedback_steps"]) == (1, 3)
    assert (k1["nme"], k3["nme"]) == pytest.approx((7 / 3, 14 / 3))
    assert k1["interval"] == list(bootstrap_interval(errors[:3], owners[:3]))
    alone = slice_row([(1, errors)], np.array([3]), owners)["per_step"][0]
    assert alone["nme"] is None and alone["interval"] is None


def test_slices_partition_the_faces(narrow, tmp_path):
    data_dir = prepare_300w(tmp_path, train=1, validation=9)
    config = narrow("compact")
    network = config, init(config, jax.random.key(0))
    result = measure_slices(network, data_dir=data_dir, boxes=["truth", "jitter"])
    faces = len(read_split("300w", "validation", data_dir))
    wholes = {
        boxes: evaluate_split(network, "300w", "validation", data_dir=data_dir, boxes=boxes)
        for boxes in ("truth", "jitter")
    }
    assert result["split"] == wholes["truth"]["split"]
    for boxes, whole in wholes.items():
        for by, left_out in (("skin tone", result["without_tone"]), ("yaw", 0), ("subset", 0)):
            rows = [row for row in result["slices"] if (row["boxes"], row["by"]) == (boxes, by)]
            assert sum(row["faces"] for row in rows) == faces - left_out
            if left_out:
                continue
            # The weighted mean of the slices is the mean of the split.
            for place, steps in enumerate((1, 3)):
                nme = sum(row["faces"] * row["per_step"][place]["nme"] for row in rows) / faces
                assert nme == pytest.approx(whole["per_step"][steps - 1]["nme"])
