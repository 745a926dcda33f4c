"""What counts as the same network, and what an export without its framework says."""

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
    """90 crops and 2 streams of 5 frames: three crops and one frame lie at a tie.

    The first pixel holds the tie (red), the number of the frame, 1 for the first (green), and of
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


def fake(edit: Edit = lambda answer, frame, crop: None, *, upper=False, torn=(0,), by=5.0):
    """A network of ten landmarks with a memory; those in `torn` move `by` px at a tie.

    Whether the red of the first pixel is above `TIED` turns on its last bit; at exactly that, an
    export may take the other side (`upper`). `edit` changes the answer of a batch, landmarks,
    confidence, hidden and labels, given the numbers of its frames (0: no stream) and crops.
    """

    def answered(pixels, hidden):
        pixels = pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels
        red, green, blue = pixels[:, 0, 0].T
        above = red >= TIED if upper else red > TIED
        landmarks = np.zeros((len(pixels), 10, 2))
        landmarks[..., 0] = np.arange(10) + hidden[:, :1]
        for point in torn:
            landmarks[above, point, 1] = by
        answer = {
            "landmarks": landmarks,
            "confidence": np.full((len(pixels), 10), 0.5),
            "hidden": 0.5 * hidden + green[:, None] + 0.5 * above[:, None],
            "labels": np.stack([above, ~above], -1).astype(np.float32),
        }
        edit(answer, np.rint(255 * green), np.rint(255 * blue))
        return answer

    def still(crops):
        answer = answered(crops, np.zeros((len(crops), 1)))
        return answer["landmarks"], answer["confidence"]

    def step(frames, state, warp):
        hidden = np.zeros((len(frames), 1)) if state is None else state["hidden"]
        answer = answered(frames, hidden)
        after = {name: answer[name] for name in ("hidden", "labels")}
        return (answer["landmarks"], answer["confidence"]), after

    return Runner(still, step)


def compared(exported, original=None, inputs=INPUTS):
    original = fake() if original is None else original
    return compare(original, original, exported, inputs, "float32")


def moved(distance, points=slice(None)):
    """Landmarks moved everywhere."""

    def edit(answer, frame, crop):
        answer["landmarks"][:, points, 1] += distance

    return edit


def test_a_larger_difference_is_an_error():
    same = compared(fake(moved(5e-4)))
    assert (same["points"], same["points_excused"]) == (COUNT, 0)
    assert same["max_difference_px"] == pytest.approx(5e-4)
    assert (same["frames"], same["states_excused"]) == (10, 0)
    with pytest.raises(RednetError, match=rf"{COUNT} of {COUNT} landmarks differ .* up to 0\.002 "):
        compared(fake(moved(0.002)))


def test_ties_are_excused_and_counted():
    """An export may take the other side of a tie, in points and state; both sides are right."""
    result = compared(fake(upper=True))
    assert (result["points_excused"], result["states_excused"]) == (4, 1)
    assert result["max_difference_px_excused"] == 5
    assert result["max_difference_px"] == result["max_difference_confidence_excused"] == 0
    # Running apart, the streams differ in all ten landmarks from the tie on.
    assert result["max_difference_px_apart"] == 5


def test_a_tie_excuses_neither_its_neighbours_nor_their_confidence():
    def edit(answer, frame, crop):
        at_ties = answer["landmarks"][:, 0, 1] > 0
        answer["landmarks"][at_ties, 1:5, 1] += 2.5
        answer["confidence"][at_ties, 1:5] += 0.49

    with pytest.raises(RednetError, match=rf"20 of {COUNT} landmarks .* up to 5 px and 0\.49"):
        compared(fake(edit, upper=True))


def at_crop(number, **edits):
    """One number of the answer to one crop, by the name of its array."""

    def edit(answer, frame, crop):
        for name, (index, value) in edits.items():
            answer[name][(crop == number) & (frame == 0), index] += value

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
def test_one_wrong_number_is_an_error(crop, edits):
    with pytest.raises(RednetError, match=r"^the export is not the network: [12] of 1000 "):
        compared(fake(at_crop(crop, **edits), upper=True))


def in_streams(name, value, first, last=5, index=slice(None)):
    """Numbers of the answers to frames `first` to `last`."""

    def edit(answer, frame, crop):
        answer[name][(frame >= first) & (frame <= last), index] += value

    return edit


@pytest.mark.parametrize(
    ("edit", "wrong"),
    [
        (in_streams("landmarks", 0.01, 1), ": 100 of 1000 landmarks .* and 1 states"),
        (in_streams("landmarks", 0.01, 5, index=3), "2 of 1000 landmarks"),
        (in_streams("confidence", 0.01, 5, index=3), "2 of 1000 landmarks"),
        # The frame after each tie is judged from the state that the export had.
        (in_streams("landmarks", 0.01, 3, 3), ": 20 of 1000 landmarks"),
        (in_streams("hidden", 2e-4, 1), ": 1 of 1000 landmarks .* and 10 states"),
        (in_streams("hidden", 2e-4, 5), ": 0 of 1000 landmarks .* and 2 states"),
        (in_streams("hidden", np.nan, 5), ": 0 of 1000 landmarks .* and 2 states"),
        (in_streams("labels", 1, 5, index=1), ": 0 of 1000 landmarks .* and 2 states"),
    ],
)
def test_what_is_wrong_in_streams_alone_is_an_error(edit, wrong):
    with pytest.raises(RednetError, match=wrong):
        compared(fake(edit, upper=True))


def test_another_state_before_the_first_frame_is_an_error():
    right = fake()

    def step(frames, state, warp):
        begin = {"hidden": np.full((2, 1), 0.1), "labels": np.zeros((2, 2))}
        return right.step(frames, begin if state is None else state, warp)

    with pytest.raises(RednetError, match="20 of 1000 landmarks"):
        compared(Runner(right.still, step))


def test_one_twin_must_have_the_whole_crop():
    """Points 0 and 1 move together: one of them alone is neither side of the tie."""
    together = fake(torn=(0, 1))
    assert compared(fake(torn=(0, 1), upper=True), together)["points_excused"] == 8
    with pytest.raises(RednetError, match="4 of 1000 landmarks"):
        compared(fake(torn=(0,), upper=True), together)
    # Nor is half the way, or the other direction.
    for by in (2.5, -5.0):
        with pytest.raises(RednetError, match="4 of 1000 landmarks"):
            compared(fake(upper=True, by=by))


def test_no_more_than_a_fiftieth_is_excused(monkeypatch):
    inputs = INPUTS._replace(crops=INPUTS.crops.copy())
    inputs.crops[:19, 0, 0, 0] = 128
    assert compared(fake(upper=True), inputs=inputs)["points_excused"] == 20
    inputs.crops[19, 0, 0, 0] = 128
    with pytest.raises(
        RednetError,
        match=r"^this network cannot be checked: .* 21 of 1000 \(2\.1%\) move by up to 5 ",
    ):
        compared(fake(upper=True), inputs=inputs)
    everywhere = tuple(range(10))
    inputs.crops[:, 0, 0, 0] = 128
    with pytest.raises(RednetError, match=r"^this network cannot be checked: .* 910 of 1000 "):
        compared(fake(upper=True, torn=everywhere), fake(torn=everywhere), inputs)
    monkeypatch.setattr(check, "TWINS", 0)
    with pytest.raises(RednetError, match=r"^the export is not the network: 4 of 1000"):
        compared(fake(upper=True))


def test_coarse_kernels_are_compared_with_what_they_are():
    """The export must be the network of its own kernels, near to that of the checkpoint's."""

    def halves(exported, rounded):
        return compare(fake(), fake(moved(rounded)), fake(moved(exported)), INPUTS, "float16")

    result = halves(0.05, 0.05)
    assert result["max_difference_px"] == pytest.approx(0.05)
    assert (result["bar_px"], result["points_excused"]) == (0.1, 0)
    with pytest.raises(RednetError, match=r"^the export is not the network: 1000 of 1000"):
        halves(0.05, 0.04)
    with pytest.raises(RednetError, match=r"^float16 kernels are too coarse .* 1000 of 1000"):
        halves(0.2, 0.2)

    def sure(answer, frame, crop):
        answer["confidence"][:, 3] += 0.02

    with pytest.raises(RednetError, match=r"^float16 kernels are too coarse .* 100 of 1000"):
        compare(fake(), fake(sure), fake(sure), INPUTS, "float16")


@pytest.mark.usefixtures("noise_faces")
@pytest.mark.parametrize("feedback", ["response_maps", "label_map"])
def test_another_number_among_the_weights_is_an_error(narrow, weights, monkeypatch, feedback):
    """Of the narrow network, one bias of the memory differs: no still image shows it."""
    monkeypatch.setattr(check, "TWINS", 2)
    config = narrow("compact", feedback=feedback)
    right, wrong = weights(config), weights(config)
    gates = wrong["params"]["temporal"]["gates"]
    gates["bias"] = gates["bias"] + np.float32(0.01)
    networks = [named.network(config, each, 2) for each in (right, wrong)]
    inputs = comparison_inputs(config)
    compare(networks[0], networks[0], networks[0], inputs, "float32")
    with pytest.raises(RednetError, match=r"and \d+ states by more than 0\.0001; nothing"):
        compare(networks[0], networks[0], networks[1], inputs, "float32")


@pytest.mark.usefixtures("noise_faces")
def test_warps_follow_the_drifting_crop(narrow):
    """A point of the image, through each frame's crop, is where the warps say."""
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
