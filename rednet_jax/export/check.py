"""The check that every export passes: the same crops and frames, answered by both networks.

An export runs its streams as a user runs them, each frame from the state that it returned for the
frame before. The network is given that same state at every frame, so each frame is compared from
equal inputs: what rounding did to earlier frames neither excuses nor accumulates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.export.inputs import Inputs
from rednet_jax.landmarks.crops import apply_affine

BAR_PX = {"float32": 1e-3, "float16": 0.1}
"""How far a landmark may lie from the original network's, in crop pixels, by the kernels' type."""

BAR_CONFIDENCE = {"float32": 1e-3, "float16": 1e-2}
"""How far a confidence may differ from the original network's."""

BAR_STATE = 1e-4
"""How far any number of the state may differ from that of the network with the same kernels.
Rounding makes differences of 1e-5 at most, where nothing ties. Where the next crop lies is compared
in crop pixels, with the bar of landmarks."""

NOISE = 5e-6
"""Standard deviation of the noise on a twin's pixels, as a fraction of their value: less than a
thousandth of a grey level. Feature maps change by about 1e-5, as they do between frameworks, which
add up the products of a convolution in different orders."""

TWINS = 32
"""How many twins are computed at most. A tie goes the other way in about half of them, so one of
them most likely has three or four ties at once as the export has them."""

MAX_EXCUSED = 0.02
"""Fraction of the landmarks that may be excused, of trained and of untrained networks. Of `compact`
at three passes 0.007 are in PyTorch and 0.004 in LiteRT."""

_BATCH = 16

Answer = tuple[NDArray[np.floating], NDArray[np.floating]]
"""Landmarks [.., L, 2] in crop pixels and confidence [.., L]."""

State = Mapping[str, NDArray[Any]]
"""What a network carries from frame to frame: the parts that `folder.state_shapes` names."""


class Runner(NamedTuple):
    """A network, wherever it runs. The original network also takes float32 pixels in [0, 1].

    Attributes:
        still: from crops [B, S, S, 3] to their answer.
        step: from frames [B, S, S, 3], a state (None before the first frame) and warps [B, 2,
            3] to the answer and the next state.
    """

    still: Callable[[NDArray[Any]], Answer]
    step: Callable[[NDArray[Any], State | None, NDArray[np.float32]], tuple[Answer, State]]


def compare(
    original: Runner, stored: Runner, exported: Runner, inputs: Inputs, dtype: str
) -> dict[str, Any]:
    """Compares an export with the network on crops and streams.

    Two comparisons are made at every crop and frame. The export must be the network of the kernels
    that it stores: landmarks and confidences within the bars of float32, the next state within
    `BAR_STATE`. And it must lie within the bars of its own type from the original network.

    Max pooling stores which of four values was the largest. Where two of them tie, rounding decides
    and each program may be right in its own way. So where an export differs, it is also compared
    with twins: the answers of the network to the same input with `NOISE` on its pixels. A crop is
    accepted if one twin has all of it: every landmark, every confidence and the whole next state
    within the bars. The landmarks that differed are then excused, counted, and at most
    `MAX_EXCUSED` of all. This holds for label maps, too, where one pixel's label can turn on
    rounding. What is not finite is never accepted.

    Args:
        original: the network with the checkpoint's weights.
        stored: the network with the kernels rounded to the type in which they are stored.
        exported: the files that were written.
        inputs: `comparison_inputs`.
        dtype: of the exported kernels.

    Returns:
        Distances from the original network, in crop pixels: `max_difference_px` of all landmarks
        but the excused ones, over crops and frames, `max_difference_px_still` of crops alone,
        `max_difference_px_stream` of frames alone, and `max_difference_px_excused` of the excused
        landmarks (0 without any). `max_difference_confidence` and
        `max_difference_confidence_excused`, likewise. `bar_px`; `points` and `points_excused`,
        numbers of landmarks; `frames` and `states_excused`, numbers of states compared and of those
        that only a twin has. `max_difference_px_apart` is the largest distance of any landmark
        between streams in which the network carries its own state: there, one tie moves all later
        frames; it is reported, not judged. `compared_on` says what the inputs were.

    Raises:
        RednetError: the export is not the network, or more landmarks would have to be excused than
            may be.
    """
    # Accelerators round the factors of a product to 8 or 11 bits if one lets them.
    with jax.default_matmul_precision("highest"):
        looks = list(_frames(exported, inputs))
        still, stream = (
            _joined([_judged(original, stored, look) for look in part])
            for part in (_crops(exported, inputs), looks)
        )
        apart = _apart(original, looks, inputs)
    _expect_the_network(_joined([still, stream]), dtype)
    parts = still, stream
    kept_still, kept_stream = (_largest(part.px, ~part.excused) for part in parts)
    return {
        "max_difference_px": max(kept_still, kept_stream),
        "max_difference_px_still": kept_still,
        "max_difference_px_stream": kept_stream,
        "max_difference_px_excused": max(_largest(part.px, part.excused) for part in parts),
        "max_difference_px_apart": apart,
        "max_difference_confidence": max(
            _largest(part.confidence, ~part.excused) for part in parts
        ),
        "max_difference_confidence_excused": max(
            _largest(part.confidence, part.excused) for part in parts
        ),
        "bar_px": BAR_PX[dtype],
        "points": still.excused.size + stream.excused.size,
        "points_excused": int(still.excused.sum() + stream.excused.sum()),
        "frames": len(stream.px),
        "states_excused": int(stream.state_excused.sum()),
        "compared_on": f"{inputs.source}: {len(inputs.crops)} crops, "
        f"{inputs.frames.shape[1]} streams of {len(inputs.frames)} frames",
    }


class _Outcome(NamedTuple):
    """Landmarks [B, L, 2], confidence [B, L], and the next state of frames; crops have none."""

    landmarks: NDArray[np.floating]
    confidence: NDArray[np.floating]
    state: State


class _Look(NamedTuple):
    """Crops, or frames with the state and the warp that they were given, and the export's outcome.

    Pixels are uint8, or float32 in [0, 1] with noise.
    """

    pixels: NDArray[Any]
    state: State | None
    warp: NDArray[np.float32] | None
    found: _Outcome


class _Judged(NamedTuple):
    """Looks, judged.

    Attributes:
        px: [N, L], distances of landmarks from the original network's, crop pixels.
        confidence: [N, L], differences of confidence likewise.
        excused: [N, L] bool, landmarks that a twin has and the network does not.
        state_excused: [N] bool, likewise.
        wrong: [N, L] bool, landmarks that neither has.
        state_wrong: [N] bool, likewise.
    """

    px: NDArray[np.floating]
    confidence: NDArray[np.floating]
    excused: NDArray[np.bool_]
    state_excused: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    state_wrong: NDArray[np.bool_]


def _crops(run: Runner, inputs: Inputs) -> Iterator[_Look]:
    for start in range(0, len(inputs.crops), _BATCH):
        crops = inputs.crops[start : start + _BATCH]
        yield _Look(crops, None, None, _Outcome(*run.still(crops), {}))


def _frames(run: Runner, inputs: Inputs) -> Iterator[_Look]:
    state: State | None = None
    for frames, warp in zip(inputs.frames, inputs.warps, strict=True):
        answer, after = run.step(frames, state, warp)
        yield _Look(frames, state, warp, _Outcome(*answer, after))
        state = after


def _answered(run: Runner, look: _Look) -> _Outcome:
    """What a network makes of the same."""
    if look.warp is None:
        return _Outcome(*run.still(look.pixels), {})
    answer, after = run.step(look.pixels, look.state, look.warp)
    return _Outcome(*answer, after)


def _judged(original: Runner, stored: Runner, look: _Look) -> _Judged:
    reference = _answered(stored, look)
    points, state = _near(look, reference)
    accepted = points.all(-1) & state
    for seed in range(TWINS):
        if accepted.all():
            break
        # One twin must have all of a crop: else each wrong number could find one of its own.
        twin = _near(look, _answered(stored, look._replace(pixels=_shaken(look.pixels, seed))))
        accepted |= twin[0].all(-1) & twin[1]
    first = reference if original is stored else _answered(original, look)
    return _Judged(
        *_apart_by(look.found, first),
        excused=~points & accepted[:, None],
        state_excused=~state & accepted,
        wrong=~points & ~accepted[:, None],
        state_wrong=~state & ~accepted,
    )


def _near(look: _Look, other: _Outcome) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which landmarks [B, L] with their confidences, and which states [B], are within the bars."""
    px, confidence = _apart_by(look.found, other)
    # Not `>`: what is no number is within no bar.
    points = (px <= BAR_PX["float32"]) & (confidence <= BAR_CONFIDENCE["float32"])
    state = np.ones(len(px), bool)
    side = look.pixels.shape[1]
    for name, part in other.state.items():
        found = look.found.state[name]
        if name == "crop":
            corners = np.asarray([[0, 0], [side, 0], [0, side], [side, side]], np.float64)
            moved = apply_affine(found, corners) - apply_affine(part, corners)
            state &= (np.abs(moved) <= BAR_PX["float32"]).all((1, 2))
        else:
            state &= (np.abs(found - part) <= BAR_STATE).reshape(len(state), -1).all(1)
    return points, state


def _apart_by(one: _Outcome, other: _Outcome) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Distances [B, L] of landmarks, and differences [B, L] of confidence."""
    px: NDArray[np.floating] = np.linalg.norm(one.landmarks - other.landmarks, axis=-1)
    return px, np.abs(one.confidence - other.confidence)


def _shaken(pixels: NDArray[np.uint8], seed: int) -> NDArray[np.float32]:
    """The pixels as float32 in [0, 1], with noise."""
    noise = np.random.default_rng(seed).standard_normal(pixels.shape, np.float32)
    shaken: NDArray[np.float32] = pixels / np.float32(255) * (1 + np.float32(NOISE) * noise)
    return shaken


def _apart(original: Runner, looks: list[_Look], inputs: Inputs) -> float:
    """The largest distance from landmarks of the network that carries a state of its own."""
    state, largest = None, 0.0
    for look, frames, warp in zip(looks, inputs.frames, inputs.warps, strict=True):
        (landmarks, _), state = original.step(frames, state, warp)
        moved = np.linalg.norm(look.found.landmarks - landmarks, axis=-1)
        largest = max(largest, float(moved.max()))
    return largest


def _joined(parts: list[_Judged]) -> _Judged:
    return _Judged(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _largest(distances: NDArray[np.floating], chosen: NDArray[np.bool_]) -> float:
    return float(distances[chosen].max(initial=0))


def _expect_the_network(judged: _Judged, dtype: str) -> None:
    """Raises RednetError: in three lines, whose fault it is: the export's, the type's, or the
    network's."""
    px, confidence, count = judged.px, judged.confidence, judged.px.size
    if judged.wrong.any() or judged.state_wrong.any():
        raise RednetError(
            f"the export is not the network: {judged.wrong.sum()} of {count} landmarks differ by "
            f"more than {BAR_PX['float32']:g} px or {BAR_CONFIDENCE['float32']:g} in confidence, "
            f"by up to {_largest(px, judged.wrong):.3g} px and "
            f"{_largest(confidence, judged.wrong):.3g}, and {judged.state_wrong.sum()} states by "
            f"more than {BAR_STATE:g}; nothing is written"
        )
    far = ~((px <= BAR_PX[dtype]) & (confidence <= BAR_CONFIDENCE[dtype])) & ~judged.excused
    if far.any():
        raise RednetError(
            f"{dtype} kernels are too coarse for this network: they move {far.sum()} of {count} "
            f"landmarks by more than {BAR_PX[dtype]:g} px or {BAR_CONFIDENCE[dtype]:g} in "
            f"confidence, by up to {px[far].max():.3g} px and {confidence[far].max():.3g}; "
            "nothing is written"
        )
    excused = int(judged.excused.sum())
    if excused > MAX_EXCUSED * count:
        raise RednetError(
            f"this network cannot be checked: of its landmarks, {excused} of {count} "
            f"({excused / count:.1%}) move by up to {_largest(px, judged.excused):.3g} px with "
            f"rounding alone, and at most {MAX_EXCUSED:.0%} may; the export differs from it in "
            "nothing else; nothing is written"
        )
