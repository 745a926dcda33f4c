"""The comparison of exports with the network, and the error of a missing framework."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rednet_jax.errors import RednetError
from rednet_jax.export import check, named
from rednet_jax.export.check import Runner, compare
from rednet_jax.export.folder import require
from rednet_jax.export.inputs import Inputs, comparison_inputs
from rednet_jax.landmarks.crops import apply_affine, crop_transform

TIED = np.float32(128) / np.float32(255)


def tied_inputs():
    """90 crops and 2 streams of 5 frames; three crops and one frame have a tie.

    The first pixel encodes the tie (red), the number of the frame from 1 (green), and the number of
    the crop (blue).
    """
    crops, frames = np.zeros((90, 4, 4, 3), np.uint8), np.zeros((5, 2, 4, 4, 3), np.uint8)
    crops[:3, 0, 0, 0] = frames[1, 0, 0, 0, 0] = 128
    crops[:, 0, 0, 2] = np.arange(90)
    frames[:, :, 0, 0, 1] = np.arange(1, 6)[:, None]
    return Inputs("dots", crops, frames, np.zeros((5, 2, 2, 3), np.float32))


INPUTS = tied_inputs()
COUNT = (90 + 5 * 2) * 10

Edit = Callable[[dict[str, Any], np.ndarray, np.ndarray], None]


def fake(edit: Edit = lambda arrays, frame, crop: None, *, upper=False, moving=(0,), by=5.0):
    """A recurrent network of ten landmarks; those in `moving` move by `by` px at a tie.

    There is a tie if the red of the first pixel equals `TIED`; then rounding decides whether it is
    above, and an export may decide otherwise (`upper`). `edit` changes the outputs of a batch,
    landmarks, confidence, hidden and labels, given the numbers of its frames (0: no stream) and
    crops.
    """

    def run(pixels, hidden):
        pixels = pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels
        red, green, blue = pixels[:, 0, 0].T
        above = red >= TIED if upper else red > TIED
        landmarks = np.zeros((len(pixels), 10, 2))
        landmarks[..., 0] = np.arange(10) + hidden[:, :1]
        for point in moving:
            landmarks[above, point, 1] = by
        arrays = {
            "landmarks": landmarks,
            "confidence": np.full((len(pixels), 10), 0.5),
            "hidden": 0.5 * hidden + green[:, None] + 0.5 * above[:, None],
            "labels": np.stack([above, ~above], -1).astype(np.float32),
        }
        edit(arrays, np.rint(255 * green), np.rint(255 * blue))
        return arrays

    def still(crops):
        arrays = run(crops, np.zeros((len(crops), 1)))
        return arrays["landmarks"], arrays["confidence"]

    def step(frames, state, warp):
        hidden = np.zeros((len(frames), 1)) if state is None else state["hidden"]
        arrays = run(frames, hidden)
        after = {name: arrays[name] for name in ("hidden", "labels")}
        return (arrays["landmarks"], arrays["confidence"]), after

    return Runner(still, step)


def compared(exported, original=None, inputs=INPUTS):
    original = fake() if original is None else original
    return compare(original, original, exported, inputs, "float32")


def moved(distance, points=slice(None)):
    """Moves landmarks of all crops and frames."""

    def edit(arrays, frame, crop):
        arrays["landmarks"][:, points, 1] += distance

    return edit


def test_a_larger_difference_is_an_error():
    same = compared(fake(moved(5e-4)))
    assert (same["points"], same["points_excused"]) == (COUNT, 0)
    assert same["max_difference_px"] == pytest.approx(5e-4)
    assert (same["frames"], same["states_excused"]) == (10, 0)
    with pytest.raises(RednetError, match=rf"{COUNT} of {COUNT} landmarks differ .* up to 0\.002 "):
        compared(fake(moved(0.002)))


def test_ties_are_excused_and_counted():
    """An export may resolve a tie otherwise, in landmarks and state; both results are correct."""
    result = compared(fake(upper=True))
    assert (result["points_excused"], result["states_excused"]) == (4, 1)
    assert result["max_difference_px_excused"] == 5
    assert result["max_difference_px"] == result["max_difference_confidence_excused"] == 0
    # With separate states, the streams differ in all ten landmarks after the tie.
    assert result["max_difference_px_apart"] == 5


def test_a_tie_does_not_excuse_other_landmarks_and_confidences():
    def edit(arrays, frame, crop):
        at_ties = arrays["landmarks"][:, 0, 1] > 0
        arrays["landmarks"][at_ties, 1:5, 1] += 2.5
        arrays["confidence"][at_ties, 1:5] += 0.49

    with pytest.raises(RednetError, match=rf"20 of {COUNT} landmarks .* up to 5 px and 0\.49"):
        compared(fake(edit, upper=True))


def at_crop(number, **edits):
    """Changes a number of the outputs for a crop, by the name of its array."""

    def edit(arrays, frame, crop):
        for name, (index, value) in edits.items():
            arrays[name][(crop == number) & (frame == 0), index] += value

    return edit


@pytest.mark.parametrize("crop", [0, 50], ids=["at a tie", "elsewhere"])
@pytest.mark.parametrize(
    "edits",
    [
        {"landmarks": (7, 0.002)},
        {"landmarks": (0, 0.002)},
        {"confidence": (7, 0.002)},
        {"confidence": (0, -0.002)},
        {"landmarks": (0, np.nan)},
        {"landmarks": (7, np.inf)},
        {"confidence": (0, np.nan)},
        {"confidence": (7, np.nan)},
    ],
    ids=lambda edits: " ".join(f"{name} {point} {by}" for name, (point, by) in edits.items()),
)
def test_a_single_wrong_number_is_an_error(crop, edits):
    with pytest.raises(RednetError, match=r"^the export differs from the network: [12] of 1000 "):
        compared(fake(at_crop(crop, **edits), upper=True))


def in_streams(name, value, first, last=5, index=slice(None)):
    """Changes numbers of the outputs for frames `first` to `last`."""

    def edit(arrays, frame, crop):
        arrays[name][(frame >= first) & (frame <= last), index] += value

    return edit


@pytest.mark.parametrize(
    ("edit", "wrong"),
    [
        (in_streams("landmarks", 0.01, 1), ": 100 of 1000 landmarks .* and 1 states"),
        (in_streams("landmarks", 0.01, 5, index=3), "2 of 1000 landmarks"),
        (in_streams("confidence", 0.01, 5, index=3), "2 of 1000 landmarks"),
        # The frame after each tie is compared from the export's state.
        (in_streams("landmarks", 0.01, 3, 3), ": 20 of 1000 landmarks"),
        (in_streams("hidden", 2e-4, 1), ": 1 of 1000 landmarks .* and 10 states"),
        (in_streams("hidden", 2e-4, 5), ": 0 of 1000 landmarks .* and 2 states"),
        (in_streams("hidden", np.nan, 5), ": 0 of 1000 landmarks .* and 2 states"),
        (in_streams("labels", 1, 5, index=1), ": 0 of 1000 landmarks .* and 2 states"),
    ],
)
def test_a_difference_only_in_streams_is_an_error(edit, wrong):
    with pytest.raises(RednetError, match=wrong):
        compared(fake(edit, upper=True))


def test_another_state_before_the_first_frame_is_an_error():
    right = fake()

    def step(frames, state, warp):
        begin = {"hidden": np.full((2, 1), 0.1), "labels": np.zeros((2, 2))}
        return right.step(frames, begin if state is None else state, warp)

    with pytest.raises(RednetError, match="20 of 1000 landmarks"):
        compared(Runner(right.still, step))


def test_a_single_twin_must_agree_with_the_whole_crop():
    """Points 0 and 1 move together at a tie: a move of only one of them is an error."""
    together = fake(moving=(0, 1))
    assert compared(fake(moving=(0, 1), upper=True), together)["points_excused"] == 8
    with pytest.raises(RednetError, match="4 of 1000 landmarks"):
        compared(fake(moving=(0,), upper=True), together)
    # Half of the move and the opposite move are errors, too.
    for by in (2.5, -5.0):
        with pytest.raises(RednetError, match="4 of 1000 landmarks"):
            compared(fake(upper=True, by=by))


def test_at_most_two_percent_are_excused(monkeypatch):
    inputs = INPUTS._replace(crops=INPUTS.crops.copy())
    inputs.crops[:19, 0, 0, 0] = 128
    assert compared(fake(upper=True), inputs=inputs)["points_excused"] == 20
    inputs.crops[19, 0, 0, 0] = 128
    with pytest.raises(
        RednetError,
        match=r"^this network cannot be checked: .* 21 of 1000 landmarks \(2\.1%\) by up to 5 ",
    ):
        compared(fake(upper=True), inputs=inputs)
    everywhere = tuple(range(10))
    inputs.crops[:, 0, 0, 0] = 128
    with pytest.raises(RednetError, match=r"^this network cannot be checked: .* 910 of 1000 "):
        compared(fake(upper=True, moving=everywhere), fake(moving=everywhere), inputs)
    monkeypatch.setattr(check, "TWINS", 0)
    with pytest.raises(RednetError, match=r"^the export differs from the network: 4 of 1000"):
        compared(fake(upper=True))


def test_rounded_kernels_are_compared_with_rounded_and_original_ones():
    """The export must equal the network with rounded kernels, and be close to the original."""

    def halves(exported, rounded):
        return compare(fake(), fake(moved(rounded)), fake(moved(exported)), INPUTS, "float16")

    result = halves(0.05, 0.05)
    assert result["max_difference_px"] == pytest.approx(0.05)
    assert (result["bar_px"], result["points_excused"]) == (0.1, 0)
    with pytest.raises(RednetError, match=r"^the export differs from the network: 1000 of 1000"):
        halves(0.05, 0.04)
    with pytest.raises(RednetError, match=r"^float16 kernels are too coarse .* 1000 of 1000"):
        halves(0.2, 0.2)

    def more_confident(arrays, frame, crop):
        arrays["confidence"][:, 3] += 0.02

    with pytest.raises(RednetError, match=r"^float16 kernels are too coarse .* 100 of 1000"):
        compare(fake(), fake(more_confident), fake(more_confident), INPUTS, "float16")


@pytest.mark.usefixtures("noise_faces")
@pytest.mark.parametrize("feedback", ["response_maps", "label_map"])
def test_a_wrong_weight_is_an_error(narrow, weights, monkeypatch, feedback):
    """A bias of f_tRNN differs, which has no effect on crops."""
    monkeypatch.setattr(check, "TWINS", 2)
    config = narrow("compact", feedback=feedback)
    right, wrong = weights(config), weights(config)
    gates = wrong["params"]["temporal"]["gates"]
    gates["bias"] = gates["bias"] + np.float32(0.01)
    networks = [named.network(config, variables, 2) for variables in (right, wrong)]
    inputs = comparison_inputs(config)
    compare(networks[0], networks[0], networks[0], inputs, "float32")
    with pytest.raises(RednetError, match=r"and \d+ states by more than 0\.0001; nothing"):
        compare(networks[0], networks[0], networks[1], inputs, "float32")


@pytest.mark.usefixtures("noise_faces")
def test_the_warps_of_the_streams(narrow):
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


def test_real_faces_are_used_if_prepared(narrow, real_300w: Path):
    inputs = comparison_inputs(narrow("compact"), real_300w)
    assert inputs.source == "300w validation"
    assert inputs.crops.shape == (64, 64, 64, 3)


def test_a_missing_extra_is_an_error_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        RednetError,
        match=r"^torch is not installed; do `pip install -c constraints\.txt '\.\[torch\]'` first$",
    ):
        require("torch", ["torch"])
