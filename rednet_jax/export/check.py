"""Compares an export with the network on the same crops and frames.

The export runs streams as a user does: each frame starts from the state that the export returned
for the previous frame. The network starts each frame from that same state, so that every frame is
compared with equal inputs and rounding errors of earlier frames do not accumulate.
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
"""Maximum distance of a landmark from the original network's, crop pixels, by kernel dtype."""

BAR_CONFIDENCE = {"float32": 1e-3, "float16": 1e-2}
"""Maximum difference of a confidence from the original network's, by kernel dtype."""

BAR_STATE = 1e-4
"""Maximum difference of a number of the state from that of the network with the same kernels.
Without ties, rounding makes differences of at most 1e-5. The position of the next crop is compared
in crop pixels, with the limit of landmarks."""

NOISE = 5e-6
"""Relative standard deviation of the noise on a twin's pixels, less than a thousandth of a grey
level. It changes feature maps by about 1e-5. Frameworks differ by as much, since they sum the
products of a convolution in different orders."""

TWINS = 32
"""Maximum number of twins. A tie is resolved the other way in about half of them, so that one of
them probably has the export's resolution of three or four ties at once."""

MAX_EXCUSED = 0.02
"""Maximum fraction of excused landmarks. For `compact` with three passes it is 0.002 in PyTorch,
0.005 in ONNX, and 0.004 in LiteRT or, with float16 kernels, 0.011."""

_BATCH = 16

Answer = tuple[NDArray[np.floating], NDArray[np.floating]]
"""Landmarks [..., L, 2] in crop pixels and confidence [..., L]."""

State = Mapping[str, NDArray[Any]]
"""The state carried from frame to frame: the arrays of `folder.state_shapes`."""


class Runner(NamedTuple):
    """A network in any framework. The original network also accepts float32 pixels in [0, 1].

    Attributes:
        still: from crops [B, S, S, 3] to their landmarks and confidence.
        step: from frames [B, S, S, 3], a state (None before the first frame) and warps [B, 2, 3] to
            landmarks and confidence, and the next state.
    """

    still: Callable[[NDArray[Any]], Answer]
    step: Callable[[NDArray[Any], State | None, NDArray[np.float32]], tuple[Answer, State]]


def compare(
    original: Runner, stored: Runner, exported: Runner, inputs: Inputs, dtype: str
) -> dict[str, Any]:
    """Compares an export with the network on crops and streams.

    Each crop and frame is compared twice. The export is compared with the network with the same
    stored kernels: landmarks and confidences must be within the float32 limits, the next state
    within `BAR_STATE`. It is also compared with the original network, with the limits of the
    export's kernel dtype.

    Max pooling stores the index of the largest of four values. If two values tie, rounding decides,
    and both results are correct. Therefore, where an export differs, it is also compared with
    twins: results of the network for the same input with `NOISE` on its pixels. A crop is accepted
    if a single twin agrees with all of it: every landmark, every confidence and the whole next
    state are within the limits. The landmarks that differed are then excused. They are counted, and
    at most the fraction `MAX_EXCUSED` may be excused. The same applies to label maps, in which
    rounding can change a pixel's label. Values that are not finite are never accepted.

    Args:
        original: the network with the checkpoint's weights.
        stored: the network with kernels rounded to the dtype in which they are stored.
        exported: the exported files.
        inputs: from `comparison_inputs`.
        dtype: of the exported kernels.

    Returns:
        Distances from the original network, in crop pixels: `max_difference_px` of all landmarks
        that are not excused, over crops and frames; `max_difference_px_still` of crops;
        `max_difference_px_stream` of frames; `max_difference_px_excused` of the excused landmarks
        (0 without any). `max_difference_confidence` and `max_difference_confidence_excused`,
        likewise. `bar_px`; `points` and `points_excused`, numbers of landmarks; `frames` and
        `states_excused`, numbers of compared states and of those that agree only with a twin.
        `max_difference_px_apart` is the largest distance of a landmark between streams if the
        network carries its own state; one tie can move all later frames, so that it has no limit.
        `compared_on` describes the inputs.

    Raises:
        RednetError: the export differs from the network, or more landmarks than `MAX_EXCUSED` would
            have to be excused.
    """
    # By default, accelerators round the factors of a product to 8 or 11 bits.
    with jax.default_matmul_precision("highest"):
        looks = list(_frames(exported, inputs))
        still, stream = (
            _joined([_compared(original, stored, look) for look in part])
            for part in (_crops(exported, inputs), looks)
        )
        apart = _apart(original, looks, inputs)
    _check_limits(_joined([still, stream]), dtype)
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
    """Landmarks [B, L, 2], confidence [B, L], and the next state, {} for crops."""

    landmarks: NDArray[np.floating]
    confidence: NDArray[np.floating]
    state: State


class _Look(NamedTuple):
    """Crops, or frames with their state and warp, and the export's outcome for them.

    Pixels are uint8, or float32 in [0, 1] with noise.
    """

    pixels: NDArray[Any]
    state: State | None
    warp: NDArray[np.float32] | None
    exported: _Outcome


class _Comparison(NamedTuple):
    """The comparison of N crops or frames.

    Attributes:
        px: [N, L], distances of landmarks from the original network's, crop pixels.
        confidence: [N, L], differences of confidence likewise.
        excused: [N, L] bool, landmarks that agree with a twin, but not with the network.
        state_excused: [N] bool, likewise.
        wrong: [N, L] bool, landmarks that agree with neither.
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


def _outcome(run: Runner, look: _Look) -> _Outcome:
    """A network's outcome for the same input."""
    if look.warp is None:
        return _Outcome(*run.still(look.pixels), {})
    answer, after = run.step(look.pixels, look.state, look.warp)
    return _Outcome(*answer, after)


def _compared(original: Runner, stored: Runner, look: _Look) -> _Comparison:
    reference = _outcome(stored, look)
    points, state = _near(look, reference)
    accepted = points.all(-1) & state
    for seed in range(TWINS):
        if accepted.all():
            break
        # A single twin must agree with the whole crop, or wrong numbers could match several twins.
        twin = _near(look, _outcome(stored, look._replace(pixels=_noisy(look.pixels, seed))))
        accepted |= twin[0].all(-1) & twin[1]
    unrounded = reference if original is stored else _outcome(original, look)
    return _Comparison(
        *_differences(look.exported, unrounded),
        excused=~points & accepted[:, None],
        state_excused=~state & accepted,
        wrong=~points & ~accepted[:, None],
        state_wrong=~state & ~accepted,
    )


def _near(look: _Look, outcome: _Outcome) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns which landmarks and confidences [B, L], and which states [B], are within limits."""
    px, confidence = _differences(look.exported, outcome)
    # These comparisons are False for nan.
    points = (px <= BAR_PX["float32"]) & (confidence <= BAR_CONFIDENCE["float32"])
    state = np.ones(len(px), bool)
    side = look.pixels.shape[1]
    for name, expected in outcome.state.items():
        exported = look.exported.state[name]
        if name == "crop":
            corners = np.asarray([[0, 0], [side, 0], [0, side], [side, side]], np.float64)
            moved = apply_affine(exported, corners) - apply_affine(expected, corners)
            state &= (np.abs(moved) <= BAR_PX["float32"]).all((1, 2))
        else:
            state &= (np.abs(exported - expected) <= BAR_STATE).reshape(len(state), -1).all(1)
    return points, state


def _differences(a: _Outcome, b: _Outcome) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Distances [B, L] of landmarks, and differences [B, L] of confidence."""
    px: NDArray[np.floating] = np.linalg.norm(a.landmarks - b.landmarks, axis=-1)
    return px, np.abs(a.confidence - b.confidence)


def _noisy(pixels: NDArray[np.uint8], seed: int) -> NDArray[np.float32]:
    """The pixels as float32 in [0, 1], with noise."""
    noise = np.random.default_rng(seed).standard_normal(pixels.shape, np.float32)
    noisy: NDArray[np.float32] = pixels / np.float32(255) * (1 + np.float32(NOISE) * noise)
    return noisy


def _apart(original: Runner, looks: list[_Look], inputs: Inputs) -> float:
    """The largest distance from the landmarks of the network if it carries its own state."""
    state, largest = None, 0.0
    for look, frames, warp in zip(looks, inputs.frames, inputs.warps, strict=True):
        (landmarks, _), state = original.step(frames, state, warp)
        moved = np.linalg.norm(look.exported.landmarks - landmarks, axis=-1)
        largest = max(largest, float(moved.max()))
    return largest


def _joined(parts: list[_Comparison]) -> _Comparison:
    return _Comparison(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _largest(distances: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    return float(distances[mask].max(initial=0))


def _check_limits(comparison: _Comparison, dtype: str) -> None:
    """Raises RednetError with the cause: the export, its kernel dtype, or the network."""
    px, confidence, count = comparison.px, comparison.confidence, comparison.px.size
    wrong, state_wrong = comparison.wrong, comparison.state_wrong
    if wrong.any() or state_wrong.any():
        raise RednetError(
            f"the export differs from the network: {wrong.sum()} of {count} landmarks differ by "
            f"more than {BAR_PX['float32']:g} px or {BAR_CONFIDENCE['float32']:g} in confidence, "
            f"by up to {_largest(px, wrong):.3g} px and {_largest(confidence, wrong):.3g}, and "
            f"{state_wrong.sum()} states by more than {BAR_STATE:g}; nothing is written"
        )
    far = ~((px <= BAR_PX[dtype]) & (confidence <= BAR_CONFIDENCE[dtype])) & ~comparison.excused
    if far.any():
        raise RednetError(
            f"{dtype} kernels are too coarse for this network: they move {far.sum()} of {count} "
            f"landmarks by more than {BAR_PX[dtype]:g} px or {BAR_CONFIDENCE[dtype]:g} in "
            f"confidence, by up to {px[far].max():.3g} px and {confidence[far].max():.3g}; "
            "nothing is written"
        )
    excused = int(comparison.excused.sum())
    if excused > MAX_EXCUSED * count:
        raise RednetError(
            f"this network cannot be checked: rounding alone moves {excused} of {count} landmarks "
            f"({excused / count:.1%}) by up to {_largest(px, comparison.excused):.3g} px, and at "
            f"most {MAX_EXCUSED:.0%} may be excused; there is no other difference; nothing is "
            "written"
        )
