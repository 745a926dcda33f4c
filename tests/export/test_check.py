"""What counts as the same network, and what an export without its framework says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from rednet_jax.errors import RednetError
from rednet_jax.export import check
from rednet_jax.export.check import Runner, compare
from rednet_jax.export.folder import require
from rednet_jax.export.inputs import Inputs, comparison_inputs
from rednet_jax.landmarks.crops import apply_affine, crop_transform

INPUTS = Inputs(
    "points",
    np.full((3, 4, 4, 3), 128, np.uint8),
    np.full((5, 2, 4, 4, 3), 128, np.uint8),
    np.zeros((5, 2, 2, 3), np.float32),
)


def runner(point, confidence=0.5):
    """A network of one landmark, (point(crop), 0), and its confidence."""

    def still(crops):
        pixels = crops / 255 if crops.dtype == np.uint8 else crops
        landmarks = np.asarray([[[point(one), 0.0]] for one in pixels])
        return landmarks, np.full(landmarks.shape[:-1], confidence)

    return Runner(still, lambda frames, state, warp: (still(frames), state))


def test_a_larger_difference_is_an_error(narrow):
    config = narrow("compact")
    same = compare(config, runner(lambda x: 1.0), runner(lambda x: 1.0005), INPUTS, "float32")
    assert same["points"] == 3 + 5 * 2
    assert same["max_difference_px"] == pytest.approx(5e-4)
    assert same["points_above_bar"] == same["points_at_ties"] == 0
    with pytest.raises(RednetError, match=r"13 of 13 landmarks moved by more than 0\.001 px "):
        compare(config, runner(lambda x: 1.0), runner(lambda x: 1.002), INPUTS, "float32")
    compare(config, runner(lambda x: 1.0), runner(lambda x: 1.002), INPUTS, "float16")
    with pytest.raises(RednetError, match="13 of 13"):
        compare(config, runner(lambda x: 1.0), runner(lambda x: np.nan), INPUTS, "float32")


def test_another_confidence_is_an_error(narrow):
    config = narrow("compact")
    near, far, none = (runner(lambda x: 1.0, sure) for sure in (0.5005, 0.505, np.nan))
    same = compare(config, runner(lambda x: 1.0), near, INPUTS, "float32")
    assert same["max_difference_confidence"] == pytest.approx(5e-4)
    compare(config, runner(lambda x: 1.0), far, INPUTS, "float16")
    for wrong in (far, none):
        with pytest.raises(RednetError, match=r"13 of 13 .* in confidence by more than 0\.001, "):
            compare(config, runner(lambda x: 1.0), wrong, INPUTS, "float32")


def test_points_that_the_network_itself_moves_are_counted_apart(narrow, monkeypatch):
    """Whether the corner is larger than 128 / 255 turns on its last bits: up to 5 px are right."""
    config = narrow("compact")
    # Of 73 faces three are of that kind; all others are black.
    black = np.zeros((60, 4, 4, 3), np.uint8)
    inputs = INPUTS._replace(
        crops=np.concatenate([INPUTS.crops, black]), frames=np.zeros_like(INPUTS.frames)
    )

    def torn(x):
        return 5.0 if x[0, 0, 0] > 128 / 255 else 0.0

    def decided(moved):
        return runner(lambda x: moved if x[0, 0, 0] > 0.25 else 0.0)

    result = compare(config, runner(torn), decided(5.0), inputs, "float32")
    assert (result["points"], result["points_at_ties"]) == (73, 3)
    assert result["max_difference_px_at_ties"] == 5
    assert result["max_difference_px"] == 0
    with pytest.raises(RednetError, match="3 of 73"):
        compare(config, runner(torn), decided(5.5), inputs, "float32")
    # Not among so many: 13 of 13 are no ties.
    with pytest.raises(RednetError, match="13 of 13"):
        compare(config, runner(torn), runner(lambda x: 5.0), INPUTS, "float32")
    monkeypatch.setattr(check, "TWINS", 0)
    with pytest.raises(RednetError, match="3 of 73"):
        compare(config, runner(torn), decided(5.0), inputs, "float32")


def test_label_maps_may_jump_in_a_hundredth(narrow):
    config = narrow("compact", feedback="label_map")
    crops = np.zeros((990, 4, 4, 3), np.uint8)
    inputs = INPUTS._replace(crops=crops)

    def but(count):
        rest = iter([9.0] * count)
        return runner(lambda x: next(rest, 1.0))

    result = compare(config, runner(lambda x: 1.0), but(10), inputs, "float32")
    assert result["points_above_bar"] == 10
    assert result["points"] == 1000
    with pytest.raises(RednetError, match="11 of 1000"):
        compare(config, runner(lambda x: 1.0), but(11), inputs, "float32")


@pytest.mark.usefixtures("noise_faces")
def test_warps_follow_the_drifting_crop(narrow):
    """A point of the picture, through each frame's crop, is where the warps say."""
    inputs = comparison_inputs(narrow("compact"))
    assert inputs.source == "generated faces"
    assert inputs.crops.shape == (8, 64, 64, 3)
    assert inputs.frames.shape == (30, 4, 64, 64, 3)
    first = crop_transform(np.asarray([10.0, 12, 60, 58]), margin=1.25, size=64)
    point, travelled = np.asarray([[20.0, 30.0]]), 0.0
    for warp in inputs.warps[:, 0].astype(np.float64):
        before = apply_affine(warp, point)
        travelled += np.abs(before - point).max()
    assert travelled > 10
    np.testing.assert_array_equal(inputs.frames[0], inputs.crops[:4])
    assert first[0, 0] == pytest.approx(50 * 1.25 / 64)


def test_real_faces_are_taken_where_there_are(narrow, real_300w: Path):
    inputs = comparison_inputs(narrow("compact"), real_300w)
    assert inputs.source == "300w validation"
    assert inputs.crops.shape == (64, 64, 64, 3)


def test_a_missing_extra_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        RednetError,
        match=r"^torch is not installed; do `pip install -c constraints\.txt '\.\[torch\]'` first$",
    ):
        require("torch", ["torch"])
