"""The check that every export goes through: the same crops and streams, here and there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.export.inputs import Inputs
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig

BAR_PX = {"float32": 1e-3, "float16": 0.1}
"""How far a landmark may move, in crop pixels, by the type that the kernels are stored in."""

BAR_CONFIDENCE = {"float32": 1e-3, "float16": 1e-2}
"""How far a confidence may move."""

JUMPS = 0.01
"""Part of the points that may move farther where z is drawn by the largest response: which one is
largest can turn on the last bit."""

TWINS = 32
"""How often at most the network runs over inputs with a little noise, to see how far it moves by
itself. Max pooling remembers places, and of two values that all but tie, rounding decides which is
larger. Crops taken anew make more of a last bit with every pass."""

NOISE = 1e-5
"""Standard deviation of that noise, as a part of a pixel's value: a four-hundredth of a grey level
at most. Sums of hundreds of products, added up in another order, differ as much."""

TIES = 0.5
"""Part of the points that may move farther than the bar because the network does, too: `compact`
had 3 %, an untrained one that registers a fifth. If more moved, it is not asked."""

_BATCH = 16

Answer = tuple[NDArray[np.floating], NDArray[np.floating]]
"""Landmarks [.., L, 2] in crop pixels and confidence [.., L]."""


class Runner(NamedTuple):
    """A network, wherever it runs; the network itself takes float32 pixels in [0, 1], too.

    Attributes:
        still: from crops [B, S, S, 3] to their answer.
        step: from frames [B, S, S, 3], a state (None before the first frame) and warps [B, 2,
            3] to the answer and the next state.
    """

    still: Callable[[NDArray[Any]], Answer]
    step: Callable[[NDArray[Any], Any, NDArray[np.float32]], tuple[Answer, Any]]


def network(config: RedNetConfig, variables: dict[str, Any], feedback_steps: int) -> Runner:
    """Returns the network itself, at K passes."""
    # Else every call copies them.
    variables = jax.device_put(variables)

    def pixels(crops: NDArray[Any]) -> jax.Array:
        return jnp.asarray(crops / np.float32(255) if crops.dtype == np.uint8 else crops)

    def still(crops: NDArray[Any]) -> Answer:
        out, _ = rednet.align_image(config, variables, pixels(crops), feedback_steps=feedback_steps)
        return np.asarray(out.landmarks), np.asarray(out.confidence)

    def step(
        frames: NDArray[np.uint8], state: Any, warp: NDArray[np.float32]
    ) -> tuple[Answer, Any]:
        if state is None:
            state = rednet.initial_state(config, len(frames))
        out, state = rednet.step(
            config, variables, state, pixels(frames), warp, feedback_steps=feedback_steps
        )
        return (np.asarray(out.landmarks), np.asarray(out.confidence)), state

    return Runner(still, step)


def compare(
    config: RedNetConfig, original: Runner, exported: Runner, inputs: Inputs, dtype: str
) -> dict[str, Any]:
    """Runs both over the same crops and streams.

    Args:
        config: of the network.
        original: `network` with the checkpoint's weights.
        exported: the files that were written.
        inputs: `comparison_inputs`.
        dtype: of the exported kernels, which decides how far landmarks and confidences may move.

    Returns:
        `max_difference_px`, `max_difference_px_still`, `max_difference_px_stream` (distance in crop
        pixels), `max_difference_confidence`, `bar_px`, `points`, `points_above_bar`, `compared_on`;
        and of points within the bar of where the network itself may move that face's if its
        input has `NOISE`, which are left out of these, `points_at_ties` and
        `max_difference_px_at_ties`.

    Raises:
        RednetError: points moved farther than they may.
    """
    bar = BAR_PX[dtype]
    # Accelerators round the factors of a product to 8 or 11 bits if one lets them.
    with jax.default_matmul_precision("highest"):
        still, stream = (
            _difference(config, run, original, exported, inputs, bar)
            for run in (_over_crops, _over_frames)
        )
    points = np.concatenate([part.moved.ravel() for part in (still, stream)])
    confidence = np.concatenate([part.confidence.ravel() for part in (still, stream)])
    # Not `>`: what is no number is above every bar.
    above = int((~((points <= bar) & (confidence <= BAR_CONFIDENCE[dtype]))).sum())
    ties = still.ties + stream.ties
    count = len(points) + ties
    result = {
        "max_difference_px": float(points.max()),
        "max_difference_px_still": float(still.moved.max()),
        "max_difference_px_stream": float(stream.moved.max()),
        "max_difference_confidence": float(confidence.max()),
        "bar_px": bar,
        "points": count,
        "points_above_bar": above,
        "points_at_ties": ties,
        "max_difference_px_at_ties": float(max(still.at_ties, stream.at_ties)),
        "compared_on": f"{inputs.source}: {len(inputs.crops)} crops, "
        f"{inputs.frames.shape[1]} streams of {len(inputs.frames)} frames",
    }
    if above > (JUMPS * count if config.feedback == "label_map" else 0):
        raise RednetError(
            f"the export is not the network: {above} of {count} landmarks moved by more than "
            f"{bar:g} px or in confidence by more than {BAR_CONFIDENCE[dtype]:g}, the farthest by "
            f"{points.max():.3g} px and {confidence.max():.3g}; nothing is written"
        )
    return result


class _Difference(NamedTuple):
    """Distances in pixels and of the confidence, both but at ties; points at ties, their largest
    distance."""

    moved: NDArray[np.floating]
    confidence: NDArray[np.floating]
    ties: int
    at_ties: float


def _difference(
    config: RedNetConfig,
    run: Callable[[Runner, Inputs], Answer],
    original: Runner,
    exported: Runner,
    inputs: Inputs,
    bar: float,
) -> _Difference:
    answer, reference = run(exported, inputs), run(original, inputs)
    moved = _distance(answer, reference)
    far = moved > bar
    by_itself = np.zeros_like(moved[..., :1])
    # A label map that turned out otherwise is carried on through a stream: it cannot be told apart.
    if far.mean() <= TIES and config.feedback != "label_map":
        for seed in range(TWINS):
            if not (far & (moved > bar + by_itself)).any():
                break
            twin = _distance(run(original, _shaken(inputs, seed)), reference)
            by_itself = np.maximum(by_itself, twin.max(-1, keepdims=True))
    ties = far & (moved <= bar + by_itself)
    confidence = np.abs(answer[1] - reference[1])
    largest = float(moved[ties].max()) if ties.any() else 0.0
    return _Difference(moved[~ties], confidence[~ties], int(ties.sum()), largest)


def _distance(one: Answer, other: Answer) -> NDArray[np.floating]:
    distance: NDArray[np.floating] = np.linalg.norm(one[0] - other[0], axis=-1)
    return distance


def _shaken(inputs: Inputs, seed: int) -> Inputs:
    """The inputs as float32 in [0, 1], with noise."""
    rng = np.random.default_rng(seed)

    def shaken(crops: NDArray[np.uint8]) -> NDArray[Any]:
        noise = 1 + NOISE * rng.standard_normal(crops.shape, np.float32)
        return crops / np.float32(255) * noise.astype(np.float32)

    return inputs._replace(crops=shaken(inputs.crops), frames=shaken(inputs.frames))


def _over_crops(run: Runner, inputs: Inputs) -> Answer:
    starts = range(0, len(inputs.crops), _BATCH)
    answers = [run.still(inputs.crops[start : start + _BATCH]) for start in starts]
    landmarks, confidence = (np.concatenate(part) for part in zip(*answers, strict=True))
    return landmarks, confidence


def _over_frames(run: Runner, inputs: Inputs) -> Answer:
    state: Any = None
    answers = []
    for frames, warp in zip(inputs.frames, inputs.warps, strict=True):
        answer, state = run.step(frames, state, warp)
        answers.append(answer)
    landmarks, confidence = (np.stack(part) for part in zip(*answers, strict=True))
    return landmarks, confidence
