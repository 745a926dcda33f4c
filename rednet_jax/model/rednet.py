"""The network as pure functions: the feedback loop in `lax.scan`, the frames in a second one.

Variables are plain dicts, {'params': ..., 'batch_stats': ...}. The layers are Flax NNX modules, and
every transform is JAX's own over those dicts.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rednet_jax.model.arguments import check_arguments
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.layers import AxisName, Mode
from rednet_jax.model.network import Loss, PassOutput
from rednet_jax.model.passes import LoopOptions, Scan, begin_frame
from rednet_jax.model.recrop import middle
from rednet_jax.model.state import State, initial_state, on_new_image
from rednet_jax.model.variables import by_path, init, mismatch, network, shapes_of

__all__ = [
    "Loss",
    "Output",
    "PassOutput",
    "PerStep",
    "Scan",
    "State",
    "align_clip",
    "align_image",
    "by_path",
    "encode",
    "init",
    "initial_state",
    "mismatch",
    "shapes_of",
    "step",
]

Tree = Any
"""A nested dict of arrays, or any other tree of them."""

_STATIC = ("feedback_steps", "train", "loss", "remat", "scan", "axis_name", "parts")


class PerStep(NamedTuple):
    """The results of every pass, first axis K, float32 or wider.

    Attributes:
        landmarks: [K, B, L, 2], or [K, B, T, L, 2]; image pixels.
        confidence: [K, B, L], or [K, B, T, L].
        losses: what `loss` returned at each pass, with leading axes K, or K and T; None without a
            loss.
    """

    landmarks: jax.Array
    confidence: jax.Array
    losses: Tree


class Output(NamedTuple):
    """The results of the last pass, and those of every pass in `per_step`.

    Shapes are those of images; for clips they are [B, T, ...] instead of [B, ...]. All landmarks
    are in pixels of the input image. If the config has re-crops, this image is larger than the
    first crop. The response maps have the dtype of the images; the other arrays are float32, or
    float64 for float64 images.

    Attributes:
        landmarks: [B, L, 2], image pixels (x, y), pixel centres at integers.
        confidence: [B, L], probability that the point lies within 5 % of the inter-ocular distance.
        response_maps: [B, h, w, L + 1], background first; journal form [B, h, w, L].
        identity_logits: [B, identities].
        coarse: [B, h, w, 7], the journal form's coarse maps, else None.
        crop: [B, 2, 3], crop of the last pass, in which the maps are: pixels of that crop ->
            pixels of the image.
        per_step: landmarks, confidence and losses of every pass.
    """

    landmarks: jax.Array
    confidence: jax.Array
    response_maps: jax.Array
    identity_logits: jax.Array
    coarse: jax.Array | None
    crop: jax.Array
    per_step: PerStep


@functools.partial(jax.jit, static_argnums=0, static_argnames=_STATIC)
def align_image(
    config: RedNetConfig,
    variables: dict[str, Tree],
    images: jax.Array,
    *,
    feedback_steps: int,
    train: bool = False,
    loss: Loss | None = None,
    targets: Tree = None,
    remat: bool = False,
    scan: Scan = lax.scan,
    axis_name: AxisName | None = None,
    parts: int = 1,
) -> tuple[Output, Tree]:
    """Finds landmarks in images by K passes of the feedback loop, without f_tRNN.

    Gradients are reverse-mode (`jax.grad`, `jax.vjp`): convolutions have a custom rule, so
    `jax.jvp` raises a TypeError. No gradient flows through the position of a crop, and through z
    only with `config.open_feedback_gradient`. Without it, the gradient of the landmarks is that of
    the last pass alone.

    Args:
        config: of the network.
        variables: of `init` or of a checkpoint.
        images: [B, H, W, 3] floating, RGB in [0, 1], H = W = config.input_size. The type is
            checked, values are not: divide 8-bit values by 255.
        feedback_steps: K, at least 1; it need not be the K that the network was trained with.
        train: normalise by the batch's moments and return updated batch statistics.
        loss: called inside the loop at each pass, so that the maps of all passes need not be kept.
        targets: tree of [B, ...] passed to `loss`.
        remat: recompute each pass in the gradient, at the cost of about one more forward pass:
            memory grows with K by the carried map alone.
        scan: runs the loop; for tests and measurements.
        axis_name: the mapped axes that the batch is split over, for moments of the whole batch.
        parts: how many calls make up one training step, each with a part of its batch: the batch
            statistics are updated by one call's share of a step.

    Returns:
        The output, and the batch statistics (updated if `train`).

    Raises:
        RednetError: feedback_steps < 1, images of another shape or no floating type, or variables
            of another config.
    """
    check_arguments(config, variables, images, ("B",), feedback_steps)
    state = initial_state(config, images.shape[0], images.dtype)
    options = LoopOptions(
        config, feedback_steps, train, loss, remat, scan, axis_name, frames=1, parts=parts
    )
    params, stats = variables["params"], variables["batch_stats"]
    output, _, stats = _run_frame(options, params, stats, images, state, targets, recurrent=False)
    return output, stats


@functools.partial(jax.jit, static_argnums=0, static_argnames=_STATIC)
def align_clip(
    config: RedNetConfig,
    variables: dict[str, Tree],
    clips: jax.Array,
    state: State,
    warps: jax.Array | None = None,
    *,
    feedback_steps: int,
    train: bool = False,
    loss: Loss | None = None,
    targets: Tree = None,
    remat: bool = False,
    scan: Scan = lax.scan,
    axis_name: AxisName | None = None,
    parts: int = 1,
) -> tuple[Output, State, Tree]:
    """Finds landmarks in clips by K passes a frame; z and f_tRNN's memory are carried on.

    Args:
        config: of the network.
        variables: of `init` or of a checkpoint.
        clips: [B, T, H, W, 3], otherwise as `images` of `align_image`.
        state: of `initial_state` or of the clip before.
        warps: [B, T, 2, 3], pixels of each frame's image -> pixels of the image before it; None
            for identities.
        feedback_steps: K.
        train: as in `align_image`.
        loss: as in `align_image`.
        targets: tree of [B, T, ...]; `loss` gets [B, ...] of each frame.
        remat: recompute each frame, and each pass in it, in the gradient, at the cost of about two
            more forward passes: memory grows with K and T by the carried state alone. Without it,
            gradients keep the convolutions of every pass and recompute the rest.
        scan: runs both loops.
        axis_name: as in `align_image`.
        parts: as in `align_image`.

    Returns:
        The output [B, T, ...], the state after the last frame, and the batch statistics.

    Raises:
        RednetError: feedback_steps < 1, clips of another shape or type than the state's, warps of
            another shape, or variables or a state of another config.
    """
    check_arguments(config, variables, clips, ("B", "T"), feedback_steps, state, warps)
    frames = clips.shape[1]
    options = LoopOptions(
        config, feedback_steps, train, loss, remat, scan, axis_name, frames=frames, parts=parts
    )
    params = variables["params"]

    def run_frame(carry: tuple[State, Tree], index: jax.Array) -> tuple[tuple[State, Tree], Output]:
        # Frames are taken by index: a transposed copy of the clips would grow with T.
        def at_index(leaf: jax.Array) -> jax.Array:
            frame: jax.Array = lax.dynamic_index_in_dim(leaf, index, axis=1, keepdims=False)
            return frame

        state, stats = carry
        if warps is not None:
            state = on_new_image(config, state, at_index(warps))
        images, frame_targets = at_index(clips), jax.tree.map(at_index, targets)
        output, state, stats = _run_frame(
            options, params, stats, images, state, frame_targets, recurrent=True
        )
        return (state, stats), output

    body = options.rematerialised(run_frame, stacked=True)
    carry = (state, variables["batch_stats"])
    (state, stats), outputs = scan(body, carry, jnp.arange(frames))
    per_step = jax.tree.map(
        lambda stack: jnp.moveaxis(stack, 0, 2), outputs.per_step._replace(losses=None)
    )
    losses = jax.tree.map(lambda stack: jnp.swapaxes(stack, 0, 1), outputs.per_step.losses)
    outputs = jax.tree.map(lambda stack: jnp.swapaxes(stack, 0, 1), outputs._replace(per_step=None))
    return outputs._replace(per_step=per_step._replace(losses=losses)), state, stats


@functools.partial(jax.jit, static_argnums=0, static_argnames=("feedback_steps", "scan"))
def step(
    config: RedNetConfig,
    variables: dict[str, Tree],
    state: State,
    frames: jax.Array,
    warp: jax.Array | None = None,
    *,
    feedback_steps: int,
    scan: Scan = lax.scan,
) -> tuple[Output, State]:
    """Finds landmarks in the next frame of a stream, as `align_clip` does in a clip.

    Args:
        config: of the network.
        variables: of `init` or of a checkpoint.
        state: of `initial_state`, or of the frame before.
        frames: [B, H, W, 3], as `images` of `align_image`.
        warp: [B, 2, 3], pixels of this image -> pixels of the one before; None for the identity.
        feedback_steps: K.
        scan: runs the feedback loop.

    Returns:
        The output [B, ...] and the state for the next frame.

    Raises:
        RednetError: feedback_steps < 1, frames of another shape or type than the state's, a warp of
            another shape, or variables or a state of another config.
    """
    check_arguments(config, variables, frames, ("B",), feedback_steps, state, warp)
    if warp is not None:
        state = on_new_image(config, state, warp)
    options = LoopOptions(config, feedback_steps, False, None, False, scan, None, frames=1)
    params, stats = variables["params"], variables["batch_stats"]
    output, state, _ = _run_frame(options, params, stats, frames, state, None, recurrent=True)
    return output, state


@functools.partial(jax.jit, static_argnums=0)
def encode(config: RedNetConfig, variables: dict[str, Tree], images: jax.Array) -> jax.Array:
    """Returns the code C of f_ENC in the first pass over images, before f_tRNN.

    Args:
        config: of the network.
        variables: of `init` or of a checkpoint.
        images: [B, H, W, 3], as `images` of `align_image`.

    Returns:
        [B, code_size, code_size, code_width]; the first half of the channels is C_id, the second
        C_pe.

    Raises:
        RednetError: images of another shape or no floating type, or variables of another config.
    """
    check_arguments(config, variables, images, ("B",), 1)
    state = initial_state(config, images.shape[0], images.dtype)
    net = network(config, variables)
    mode = Mode(False, state.passes, 1)
    code: jax.Array = net.encoder(net.stem(middle(config, images), mode), state.feedback, mode).code
    return code


def _run_frame(
    options: LoopOptions,
    params: Tree,
    stats: Tree,
    images: jax.Array,
    state: State,
    targets: Tree,
    *,
    recurrent: bool,
) -> tuple[Output, State, Tree]:
    """Runs the stem and, in the journal form, the coarse pass; then K passes.

    The first pass runs before the loop over the others: for an image alone, not `recurrent`, z is
    blank and the crop is the middle of the image, and neither is computed.
    """
    frame, first_z, passes, stats = begin_frame(
        options, params, stats, images, state, targets, recurrent=recurrent
    )

    def first_pass(stats: Tree, z: jax.Array | None) -> Tree:
        return frame.refine(stats, z, frame.first_crop, passes)

    def next_pass(carry: Tree, _: None) -> tuple[Tree, tuple[jax.Array, jax.Array, Tree]]:
        # The maps of the last pass are in the carry, so that those of the others are not stacked.
        last, stats = carry
        before = frame.state_after(last)
        crop = before.crop if options.recrops else None
        last, stats, row = frame.refine(stats, before.feedback, crop, before.passes)
        return (last, stats), row

    # In a clip, `align_clip` rematerialises whole frames.
    stacked = not recurrent and not options.unrolled
    rematerialised = options.rematerialised(first_pass, stacked=stacked, looped=False)
    last, stats, row = rematerialised(stats, first_z)
    per_pass = jax.tree.map(lambda leaf: leaf[None], row)
    if options.feedback_steps > 1:
        body = options.rematerialised(next_pass, stacked=stacked)
        scan = options.scan
        if scan is lax.scan:
            scan = functools.partial(lax.scan, unroll=options.unrolled)
        (last, stats), others = scan(body, (last, stats), jnp.arange(options.feedback_steps - 1))
        per_pass = jax.tree.map(lambda *parts: jnp.concatenate(parts), per_pass, others)
    per_step = PerStep(*per_pass)
    output = Output(
        landmarks=per_step.landmarks[-1],
        confidence=per_step.confidence[-1],
        response_maps=last.response_maps,
        identity_logits=last.identity_logits,
        coarse=None if frame.coarse is None else jax.nn.sigmoid(frame.coarse),
        crop=last.crop,
        per_step=per_step,
    )
    gate = frame.network(stats).gate if recurrent else None
    return output, frame.state_after(last, gate), stats
