"""The network as pure functions: the feedback loop in `lax.scan`, the frames in a second one.

Variables are plain dicts, {'params': ..., 'batch_stats': ...}; Flax NNX gives the layers, and every
transform is JAX's own over those trees.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.crops import compose_affine, invert_affine
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.convolutions import wide
from rednet_jax.model.feedback import feedback_map, move
from rednet_jax.model.layers import SAVED, AxisName, Draw, Mode, normal
from rednet_jax.model.network import PassOutput, RedNet
from rednet_jax.model.recrop import (
    crop_images,
    first_crop,
    middle,
    next_crop,
    on_image,
    relative_transform,
)
from rednet_jax.model.temporal import Memory, memory_shape

Tree = Any
"""A nested dict of arrays, or any other tree of them."""

Loss = Callable[[PassOutput, Tree], Tree]
"""From a pass's output and the frame's targets to a tree of arrays; runs inside the loop."""


_STATIC = ("feedback_steps", "train", "loss", "remat", "scan", "axis_name", "parts")

_UNROLLED = 4
"""A training step unrolls up to this many passes: a loop would stack what its gradient needs, which
takes a CPU more time than a pass. Compilation time grows with each. Without a gradient a loop costs
0 to 8 %, and three passes compile in 60 % of the time."""


class Scan(Protocol):
    """What `lax.scan` is, and what a plain loop can stand in for."""

    def __call__(
        self, f: Callable[[Tree, Tree], tuple[Tree, Tree]], init: Tree, xs: Tree
    ) -> tuple[Tree, Tree]: ...


class State(NamedTuple):
    """What is carried from frame to frame.

    Attributes:
        feedback: z, [B, feedback_size, feedback_size, feedback_channels].
        memory: f_tRNN's hidden and cell state, [B, units] or [B, h, w, channels] each; the cell
            state is at least float32.
        passes: [B] int32, passes since z was blank.
        crop: [B, 2, 3], where the next pass looks and both maps lie: pixels of that crop -> pixels
            of the image. The identity unless the config has re-crops.
    """

    feedback: jax.Array
    memory: Memory
    passes: jax.Array
    crop: jax.Array


class PerStep(NamedTuple):
    """The passes one by one, first axis K.

    Attributes:
        landmarks: [K, B, L, 2], or [K, B, T, L, 2]; image pixels.
        confidence: [K, B, L], or [K, B, T, L].
        losses: what `loss` returned at each pass, with K (and then T) in front; None without one.
    """

    landmarks: jax.Array
    confidence: jax.Array
    losses: Tree


class Output(NamedTuple):
    """The last pass's answer, and the passes before it. For clips [B, T, ...] instead of [B, ...].

    The network is given images of its crop and, where the config has re-crops, of what is around
    it; all points are in their pixels.

    Attributes:
        landmarks: [B, L, 2], image pixels (x, y), pixel centres at integers.
        confidence: [B, L], probability that the point lies within 5 % of the inter-ocular distance.
        response_maps: [B, h, w, L + 1], background first; journal form [B, h, w, L].
        identity_logits: [B, identities].
        coarse: [B, h, w, 7], the journal form's coarse maps, else None.
        crop: [B, 2, 3], where the last pass looked and the maps lie: pixels of that crop -> pixels
            of the image.
        per_step: every pass's points, confidence and losses.
    """

    landmarks: jax.Array
    confidence: jax.Array
    response_maps: jax.Array
    identity_logits: jax.Array
    coarse: jax.Array | None
    crop: jax.Array
    per_step: PerStep


def init(config: RedNetConfig, key: jax.Array) -> dict[str, Tree]:
    """Returns fresh variables, {'params': ..., 'batch_stats': ...}: plain dicts of float32.

    The host draws them: a compiled program for so many small arrays would take longer to compile
    than all of them take to draw. The values depend on the key alone, and not on the device.

    Args:
        config: of the network.
        key: a key of `jax.random`; a tracer works, too.
    """
    words = jax.random.key_data(key)
    draw = functools.partial(_drawn, config)
    if isinstance(words, jax.core.Tracer):
        variables: dict[str, Tree] = jax.pure_callback(
            draw, _abstract(config)[1], words, vmap_method="sequential"
        )
        return variables
    placed: dict[str, Tree] = jax.device_put(draw(words))
    return placed


@functools.cache
def _abstract(config: RedNetConfig) -> tuple[Any, dict[str, Tree]]:
    """The network's graph, and the shapes and types of its variables."""
    graph, variables = _split(config, lambda shape, _: np.broadcast_to(np.float32(0), shape))
    return graph, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)


def _drawn(config: RedNetConfig, words: Any) -> dict[str, Tree]:
    return _split(config, normal(np.asarray(words)))[1]


def _split(config: RedNetConfig, draw: Draw) -> tuple[Any, dict[str, Tree]]:
    graph, *states = nnx.split(RedNet(config, draw), nnx.Param, nnx.BatchStat)
    params, stats = map(nnx.to_pure_dict, states)
    return graph, {"params": params, "batch_stats": stats}


def shapes_of(config: RedNetConfig) -> dict[str, Tree]:
    """Returns shapes and types of a network's variables, {'params': ..., 'batch_stats': ...}."""
    return _abstract(config)[1]


def mismatch(config: RedNetConfig, variables: Tree, besides: Sequence[str] = ()) -> str | None:
    """Returns how variables differ in structure or shape from those of a config, or None.

    Args:
        config: of the network.
        variables: arrays of any type; nested dicts, or one dict of paths such as
            `params/encoder/stem1/conv/kernel`.
        besides: parts of the network, such as `detection`, that are not compared.
    """

    def compared(tree: Tree) -> dict[str, tuple[int, ...]]:
        return {
            path: shape
            for path, shape in by_path(tree).items()
            if not any(f"{path.partition('/')[2]}/".startswith(f"{part}/") for part in besides)
        }

    expected, found = compared(shapes_of(config)), compared(variables)
    for name, shape in expected.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != shape:
            return f"{name} is {found[name]}, its config asks {shape}"
    extra = sorted(set(found) - set(expected))
    return f"{extra[0]} belongs to no part of its config's network" if extra else None


def by_path(tree: Tree) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each array of variables by its path, its keys with slashes."""
    leaves = jax.tree.leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): jnp.shape(leaf)
        for path, leaf in leaves
    }


def initial_state(config: RedNetConfig, batch: int, dtype: Any = jnp.float32) -> State:
    """Returns the state before a first frame: a blank feedback map and an empty memory."""
    side = config.feedback_size
    shape = memory_shape(config, batch)
    return State(
        feedback=jnp.zeros((batch, side, side, config.feedback_channels), dtype),
        # The cell state is a sum over frames.
        memory=(jnp.zeros(shape, dtype), wide(jnp.zeros(shape, dtype))),
        passes=jnp.zeros(batch, jnp.int32),
        crop=first_crop(config, batch, dtype),
    )


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
    """Finds landmarks in images by K passes of the feedback loop; f_tRNN takes no part.

    Args:
        config: of the network.
        variables: of `init` or of a checkpoint.
        images: [B, H, W, 3] floating, RGB in [0, 1], H = W = config.input_size. The type is
            checked, values are not: divide those of 8 bits by 255.
        feedback_steps: K, any number from 1 on, whatever the network was trained with.
        train: normalise by the batch's moments and return moved batch statistics.
        loss: called inside the loop at each pass, so that the maps of all passes need not be kept.
        targets: tree of [B, ...] passed to `loss`.
        remat: recompute each pass in the gradient, for about one forward pass more: memory grows
            with K by the carried map alone.
        scan: runs the loop; for tests and measurements.
        axis_name: the mapped axes that the batch lies on, for global batch moments.
        parts: calls that together are one training step, each with a part of its batch: the batch
            statistics that it returns have moved by one call's share of a step.

    Returns:
        The output, and the batch statistics (moved if `train`).

    Raises:
        RednetError: feedback_steps < 1, or images of another shape or no floating type.
    """
    _check(config, variables, images, ("B",), feedback_steps)
    state = initial_state(config, images.shape[0], images.dtype)
    run = _Run(config, feedback_steps, train, loss, remat, scan, axis_name, frames=1, parts=parts)
    frame, _, stats = run.frame(
        variables["params"], variables["batch_stats"], images, state, targets, recurrent=False
    )
    return frame, stats


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
    """Finds landmarks in clips: K passes a frame, the map and f_tRNN's memory carried along.

    Args:
        config: of the network.
        variables: of `init` or of a checkpoint.
        clips: [B, T, H, W, 3], otherwise as `images` of `align_image`.
        state: of `initial_state` or of the clip before.
        warps: [B, T, 2, 3], pixels of each frame's image -> pixels of the one before it; None
            where it stands still.
        feedback_steps: K.
        train: as in `align_image`.
        loss: as in `align_image`.
        targets: tree of [B, T, ...]; `loss` sees [B, ...] of its frame.
        remat: recompute each frame, and each pass in it, in the gradient, for about two forward
            passes more: memory grows with K and T by the carried state alone. Without it, gradients
            keep the convolutions of every pass and recompute the rest.
        scan: runs both loops.
        axis_name: as in `align_image`.
        parts: as in `align_image`.

    Returns:
        The output [B, T, ...], the state after the last frame, and the batch statistics.

    Raises:
        RednetError: feedback_steps < 1, or clips of another shape or type than the state's.
    """
    _check(config, variables, clips, ("B", "T"), feedback_steps, state)
    frames = clips.shape[1]
    run = _Run(
        config, feedback_steps, train, loss, remat, scan, axis_name, frames=frames, parts=parts
    )
    params = variables["params"]

    def one(carry: tuple[State, Tree], index: jax.Array) -> tuple[tuple[State, Tree], Output]:
        # Frames are taken by index: a transposed copy of the clips would grow with T.
        def at(frame: jax.Array) -> jax.Array:
            taken: jax.Array = lax.dynamic_index_in_dim(frame, index, axis=1, keepdims=False)
            return taken

        before, stats = carry
        if warps is not None:
            before = _on_new_image(config, before, at(warps))
        output, after, stats = run.frame(
            params, stats, at(clips), before, jax.tree.map(at, targets), recurrent=True
        )
        return (after, stats), output

    body = run.rematerialised(one, stacked=True)
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
    """Finds landmarks in the next frame of a stream: the same numbers as `align_clip`.

    Args:
        config: of the network.
        variables: of `init` or of a checkpoint.
        state: of `initial_state`, or of the frame before.
        frames: [B, H, W, 3], as `images` of `align_image`.
        warp: [B, 2, 3], pixels of this image -> pixels of the one before; None if it stands
            still.
        feedback_steps: K.
        scan: runs the feedback loop.

    Returns:
        The output [B, ...] and the state for the next frame.

    Raises:
        RednetError: feedback_steps < 1, or frames of another shape or type than the state's.
    """
    _check(config, variables, frames, ("B",), feedback_steps, state)
    if warp is not None:
        state = _on_new_image(config, state, warp)
    run = _Run(config, feedback_steps, False, None, False, scan, None, frames=1)
    output, state, _ = run.frame(
        variables["params"], variables["batch_stats"], frames, state, None, recurrent=True
    )
    return output, state


@functools.partial(jax.jit, static_argnums=0)
def encode(config: RedNetConfig, variables: dict[str, Tree], images: jax.Array) -> jax.Array:
    """Returns the code C of the first pass over images, of f_ENC, before f_tRNN.

    Args:
        config: of the network.
        variables: of `init` or of a checkpoint.
        images: [B, H, W, 3], as `images` of `align_image`.

    Returns:
        [B, code_size, code_size, code_width]; the first half of the channels is C_id, the second
        C_pe.

    Raises:
        RednetError: images of another shape or no floating type.
    """
    _check(config, variables, images, ("B",), 1)
    state = initial_state(config, images.shape[0], images.dtype)
    net = nnx.merge(_abstract(config)[0], variables["params"], variables["batch_stats"], copy=True)
    mode = Mode(False, state.passes, 1)
    code: jax.Array = net.encoder(net.stem(middle(config, images), mode), state.feedback, mode).code
    return code


class _Run(NamedTuple):
    """What stays the same through all frames and passes of one call."""

    config: RedNetConfig
    feedback_steps: int
    train: bool
    loss: Loss | None
    remat: bool
    scan: Scan
    axis_name: AxisName | None
    frames: int
    parts: int = 1

    def rematerialised(
        self, body: Callable[[Tree, Tree], Tree], *, stacked: bool, looped: bool = True
    ) -> Callable[[Tree, Tree], Tree]:
        """Wraps a pass or frame: its gradient keeps nothing, or what is dear to compute again.

        A scan stacks all that its gradient keeps, and on a CPU touching so much memory costs more
        time than normalising and pooling once more.
        """
        # A while loop keeps the recomputation apart; elsewhere it needs a barrier.
        apart = not looped or self.scan is not lax.scan
        if self.remat:
            return jax.checkpoint(body, prevent_cse=apart)
        if not stacked:
            return body
        keep = jax.checkpoint_policies.save_only_these_names(SAVED)
        return jax.checkpoint(body, prevent_cse=apart, policy=keep)

    @property
    def unrolled(self) -> bool:
        """Whether `lax.scan` unrolls the feedback loop."""
        return self.train and not self.remat and self.feedback_steps <= _UNROLLED

    def mode(self, passes: jax.Array, visits: int) -> Mode:
        return Mode(self.train, passes, visits, self.axis_name, self.parts)

    def frame(
        self,
        params: Tree,
        stats: Tree,
        images: jax.Array,
        state: State,
        targets: Tree,
        *,
        recurrent: bool,
    ) -> tuple[Output, State, Tree]:
        """The stem and, where there is one, the coarse pass; then K passes.

        The first pass stands before the loop over the others: in an image alone, not `recurrent`,
        its feedback map is blank and its crop the middle of the image, and neither is computed.
        """
        config = self.config
        frames, steps = self.frames, self.feedback_steps
        recrops = config.recrop != "none"
        visits = frames * (steps + config.passes_per_frame)
        memory = state.memory if recurrent else None
        begin = state.crop

        # Frame by frame: all frames at once would be a little faster, but memory would grow with T,
        # and the moments of a training step would no longer be those of one frame.
        def look(net: RedNet, crop: jax.Array | None) -> jax.Array:
            if crop is None:
                seen = middle(config, images)
            else:
                with jax.named_scope("recrop"):
                    seen = crop_images(config, images, crop)
            mode = self.mode(jnp.zeros_like(state.passes), visits if recrops else frames)
            return net.stem(seen, mode)

        first = begin if recrops and recurrent else None
        net = self._network(params, stats)
        # Where the crop stands still, all passes see the same.
        still = None if recrops else look(net, first)
        z = state.feedback if recurrent or config.passes_per_frame else None
        passes, coarse = state.passes, None
        if config.passes_per_frame:
            coarse = net.detect_coarse(
                look(net, first) if still is None else still,
                state.feedback,
                memory,
                self.mode(passes, visits),
                head=self.mode(passes, frames),
            )
            if config.feedback != "none":
                with jax.named_scope("feedback"):
                    z = self._cross(jax.nn.sigmoid(coarse).astype(images.dtype))
            passes = passes + 1
        stats = self._statistics(net, stats)

        def refine(
            stats: Tree, z: jax.Array | None, crop: jax.Array | None, passes: jax.Array
        ) -> tuple[_Pass, Tree, tuple[jax.Array, jax.Array, Tree]]:
            """One pass, the batch statistics after it, and its row of `PerStep`."""
            net = self._network(params, stats)
            # A coarse pass leaves the fine head out: its row, where there is one, is a visit.
            unvisited = config.passes_per_frame if config.statistics_per_pass else 0
            head = self.mode(passes, frames * steps + unvisited)
            before, place = memory, begin if crop is None else crop
            # In the frame's first crop, memory lies where the pass looks.
            if recrops and place is not begin:
                with jax.named_scope("recrop"):
                    before = _with_crop(config, memory, relative_transform(place, begin))
            output, after = net.refine(
                look(net, crop) if still is None else still,
                z,
                before,
                coarse,
                self.mode(passes, visits),
                head=head,
                crop=place,
                coarse_crop=begin,
            )
            landmarks = on_image(place, output.landmarks)
            with jax.named_scope("losses"):
                losses = None if self.loss is None else self.loss(output, targets)
            confidence = jax.nn.sigmoid(output.confidence_logits)
            last = _Pass(
                landmarks, output.response_maps, output.identity_logits, after, place, passes
            )
            return last, self._statistics(net, stats), (landmarks, confidence, losses)

        def follow(last: _Pass) -> State:
            """What the next pass, or the next frame, starts from."""
            with jax.named_scope("feedback"):
                z = self._cross(feedback_map(config, last.response_maps, last.passes))
            crop, after = last.crop, last.memory
            if recrops:
                with jax.named_scope("recrop"):
                    crop = next_crop(config, last.landmarks)
                    after = _with_crop(config, after, relative_transform(crop, last.crop))
                with jax.named_scope("feedback"):
                    z = _moved(config, z, relative_transform(crop, last.crop))
            return State(z, state.memory if after is None else after, last.passes + 1, crop)

        def one(carry: Tree, _: None) -> tuple[Tree, tuple[jax.Array, jax.Array, Tree]]:
            # The last pass's maps ride in the carry, so that those of the others are not stacked.
            last, stats = carry
            given = follow(last)
            last, stats, row = refine(
                stats, given.feedback, given.crop if recrops else None, given.passes
            )
            return (last, stats), row

        # Within a frame of a clip, the frame's own rule decides what is kept.
        stacked = not recurrent and not self.unrolled
        begun = self.rematerialised(
            lambda stats, z: refine(stats, z, first, passes), stacked=stacked, looped=False
        )
        last, stats, row = begun(stats, z)
        per_pass = jax.tree.map(lambda leaf: leaf[None], row)
        if steps > 1:
            body = self.rematerialised(one, stacked=stacked)
            scan = self.scan
            if scan is lax.scan:
                scan = functools.partial(lax.scan, unroll=self.unrolled)
            (last, stats), others = scan(body, (last, stats), jnp.arange(steps - 1))
            per_pass = jax.tree.map(lambda *parts: jnp.concatenate(parts), per_pass, others)
        per_step = PerStep(*per_pass)
        output = Output(
            landmarks=per_step.landmarks[-1],
            confidence=per_step.confidence[-1],
            response_maps=last.response_maps,
            identity_logits=last.identity_logits,
            coarse=None if coarse is None else jax.nn.sigmoid(coarse),
            crop=last.crop,
            per_step=per_step,
        )
        return output, follow(last), stats

    def _network(self, params: Tree, stats: Tree) -> RedNet:
        net: RedNet = nnx.merge(_abstract(self.config)[0], params, stats, copy=True)
        return net

    def _statistics(self, net: RedNet, stats: Tree) -> Tree:
        return nnx.to_pure_dict(nnx.state(net, nnx.BatchStat)) if self.train else stats

    def _cross(self, z: jax.Array) -> jax.Array:
        return z if self.config.open_feedback_gradient else lax.stop_gradient(z)


class _Pass(NamedTuple):
    """What the next pass or the output needs of a pass; `passes` counts those before it."""

    landmarks: jax.Array
    response_maps: jax.Array
    identity_logits: jax.Array
    memory: Memory | None
    crop: jax.Array
    passes: jax.Array


def _on_new_image(config: RedNetConfig, state: State, warp: jax.Array) -> State:
    """The state before a frame, of which `warp` maps pixels to those of the frame before."""
    if config.recrop != "none":
        # Crop and maps stay on the face; only the pixels that they are told in change.
        return state._replace(crop=compose_affine(invert_affine(warp), state.crop))
    return state._replace(
        feedback=_moved(config, state.feedback, warp),
        memory=_with_crop(config, state.memory, warp),
    )


def _moved(config: RedNetConfig, feedback: jax.Array, warp: jax.Array) -> jax.Array:
    """The feedback map resampled into a new crop, of which `warp` maps pixels to the old one's."""
    if config.feedback == "none":
        return feedback
    nearest = config.feedback == "label_map"
    return move(feedback, warp, config.image_size, nearest=nearest)


def _with_crop(config: RedNetConfig, memory: Tree, warp: jax.Array) -> Tree:
    """The memory, or none, resampled likewise where it has a grid."""
    if memory is None or memory[0].ndim != 4 or not memory[0].shape[-1]:
        return memory
    return tuple(move(part, warp, config.image_size) for part in memory)


def _check(
    config: RedNetConfig,
    variables: Tree,
    images: jax.Array,
    axes: tuple[str, ...],
    feedback_steps: int,
    state: State | None = None,
) -> None:
    """Refuses what does not fit together; `axes` are those before height, width and channels."""
    if feedback_steps < 1:
        raise RednetError(f"feedback_steps is {feedback_steps}; at least one pass must run")
    size = config.input_size
    if images.ndim != len(axes) + 3 or images.shape[len(axes) :] != (size, size, 3):
        takes = ", ".join((*axes, str(size), str(size), "3"))
        without = images.ndim == len(axes) + 2 and images.shape[-3:] == (size, size, 3)
        remedy = ": images[None] adds the batch axis" if without else ""
        raise RednetError(
            f"images are {images.shape}; this {config.architecture} takes [{takes}]{remedy}"
        )
    expected = "floating" if state is None else state.feedback.dtype
    if not jnp.issubdtype(images.dtype, jnp.floating) or expected not in ("floating", images.dtype):
        raise RednetError(f"images are {images.dtype}, not {expected}, values in [0, 1]")
    if complaint := mismatch(config, variables):
        raise RednetError(f"variables are not those of this config: {complaint}")
    if state is None:
        return
    batch = images.shape[0]
    fresh = by_path(jax.eval_shape(lambda: initial_state(config, batch, images.dtype)))
    for name, shape in by_path(state).items():
        if shape != fresh.get(name):
            raise RednetError(
                f"state: {name} is {shape}, and {batch} images of this config need "
                f"{fresh.get(name)}; see initial_state"
            )
