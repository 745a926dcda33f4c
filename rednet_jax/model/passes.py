"""The passes over one frame: the inputs that they share, one pass, and the state after it.

`rednet_jax.model.rednet` runs them in a scan.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.feedback import feedback_map
from rednet_jax.model.layers import SAVED, AxisName, Mode
from rednet_jax.model.network import Loss, RedNet
from rednet_jax.model.recrop import crop_images, middle, next_crop, on_image, relative_transform
from rednet_jax.model.state import State, move_feedback, move_memory
from rednet_jax.model.temporal import MapGate, Memory
from rednet_jax.model.variables import network

Tree = Any

_UNROLLED = 4
"""A training step unrolls up to this many passes: a loop would stack what its gradient needs, which
takes a CPU more time than a pass. Compilation time grows with each unrolled pass. Without a
gradient, a loop runs 0 to 8 % slower, and three passes compile in 60 % of the time."""


class Scan(Protocol):
    """The signature of `lax.scan` as it is called here; a Python loop can take its place."""

    def __call__(
        self, f: Callable[[Tree, Tree], tuple[Tree, Tree]], init: Tree, xs: Tree
    ) -> tuple[Tree, Tree]: ...


class LoopOptions(NamedTuple):
    """The static arguments of one call, as in `rednet.align_clip`; `frames` is T."""

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
        """Wraps a pass or frame: its gradient recomputes all of it, the cheap layers, or nothing.

        A scan stacks all that its gradient keeps. On a CPU, accessing so much memory takes longer
        than normalising and pooling again.

        Args:
            body: a pass or frame.
            stacked: whether a scan stacks what the gradient keeps. Without `remat` it then keeps
                the convolutions alone; otherwise everything.
            looped: whether `scan` runs the body.
        """
        # In a loop XLA cannot merge the recomputation with the forward pass; elsewhere it needs a
        # barrier.
        prevent_cse = not looped or self.scan is not lax.scan
        if self.remat:
            return jax.checkpoint(body, prevent_cse=prevent_cse)
        if not stacked:
            return body
        keep = jax.checkpoint_policies.save_only_these_names(SAVED)
        return jax.checkpoint(body, prevent_cse=prevent_cse, policy=keep)

    @property
    def unrolled(self) -> bool:
        """Whether `lax.scan` unrolls the feedback loop."""
        return self.train and not self.remat and self.feedback_steps <= _UNROLLED

    @property
    def recrops(self) -> bool:
        """Whether each pass has a crop of its own."""
        return self.config.recrop != "none"

    @property
    def visits(self) -> int:
        """How often the call normalises with a layer that runs at every pass."""
        return self.frames * (self.feedback_steps + self.config.passes_per_frame)

    def mode(self, passes: jax.Array, visits: int) -> Mode:
        """Returns the mode of layers that the call runs `visits` times."""
        return Mode(self.train, passes, visits, self.axis_name, self.parts)

    def statistics(self, net: RedNet, stats: Tree) -> Tree:
        """Returns the batch statistics after a pass of `net`, which had `stats` before."""
        return nnx.to_pure_dict(nnx.state(net, nnx.BatchStat)) if self.train else stats

    def fed_back(self, z: jax.Array) -> jax.Array:
        """Returns z, without a gradient unless the config lets gradients through the loop."""
        return z if self.config.open_feedback_gradient else lax.stop_gradient(z)


class PassResult(NamedTuple):
    """The part of a pass's results that the next pass or the output needs.

    Attributes:
        landmarks: [B, L, 2], image pixels.
        response_maps: as in `PassOutput`.
        identity_logits: [B, identities].
        memory: f_tRNN's state if this pass is the frame's last; None without f_tRNN.
        crop: [B, 2, 3], the pass's crop.
        passes: [B] int32, passes before this one since z was blank.
    """

    landmarks: jax.Array
    response_maps: jax.Array
    identity_logits: jax.Array
    memory: Memory | None
    crop: jax.Array
    passes: jax.Array


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame, or an image alone, and what all passes over it share.

    Attributes:
        options: of the call.
        params: of the network.
        images: [B, H, W, 3].
        targets: of the loss.
        state: before the frame.
        recurrent: whether it is a frame; f_tRNN takes no part in an image alone.
        stem: the encoder's stem; None where each pass has a crop of its own.
        coarse: logits of the journal form's coarse pass; None in other forms.
    """

    options: LoopOptions
    params: Tree
    images: jax.Array
    targets: Tree
    state: State
    recurrent: bool
    stem: jax.Array | None = None
    coarse: jax.Array | None = None

    @property
    def memory(self) -> Memory | None:
        """f_tRNN's state before the frame, which every pass of the frame reads."""
        return self.state.memory if self.recurrent else None

    @property
    def first_crop(self) -> jax.Array | None:
        """The first pass's crop; None for the middle of the image."""
        return self.state.crop if self.options.recrops and self.recurrent else None

    def network(self, stats: Tree) -> RedNet:
        """Returns the network with these batch statistics."""
        return network(self.options.config, {"params": self.params, "batch_stats": stats})

    def run_stem(self, net: RedNet, crop: jax.Array | None) -> jax.Array:
        """Returns the stem's features of a crop [B, 2, 3]; None is the middle of the image."""
        # Frame by frame: all frames at once would be a little faster, but memory would grow with T,
        # and the moments of a training step would no longer be those of one frame.
        options = self.options
        if crop is None:
            cropped = middle(options.config, self.images)
        else:
            with jax.named_scope("recrop"):
                cropped = crop_images(options.config, self.images, crop)
        visits = options.visits if options.recrops else options.frames
        return net.stem(cropped, options.mode(jnp.zeros_like(self.state.passes), visits))

    def refine(
        self, stats: Tree, z: jax.Array | None, crop: jax.Array | None, passes: jax.Array
    ) -> tuple[PassResult, Tree, tuple[jax.Array, jax.Array, Tree]]:
        """Runs one pass; returns its result, the batch statistics, and its row of `PerStep`.

        Args:
            stats: batch statistics before the pass.
            z: the feedback map; None where it is blank.
            crop: [B, 2, 3]; None for the frame's first crop.
            passes: [B] int32, passes before this one since z was blank.
        """
        options, first_crop = self.options, self.state.crop
        config = options.config
        net = self.network(stats)
        # The coarse pass does not run the fine head: its row of statistics, if there is one, counts
        # as a visit.
        unvisited = config.passes_per_frame if config.statistics_per_pass else 0
        head = options.mode(passes, options.frames * options.feedback_steps + unvisited)
        memory, place = self.memory, first_crop if crop is None else crop
        # In the frame's first crop the memory needs no resampling.
        if options.recrops and place is not first_crop:
            with jax.named_scope("recrop"):
                memory = move_memory(config, memory, relative_transform(place, first_crop))
        output, memory = net.refine(
            self.run_stem(net, crop) if self.stem is None else self.stem,
            z,
            memory,
            self.coarse,
            options.mode(passes, options.visits),
            head=head,
            crop=place,
            coarse_crop=first_crop,
        )
        landmarks = on_image(place, output.landmarks)
        with jax.named_scope("losses"):
            losses = None if options.loss is None else options.loss(output, self.targets)
        confidence = jax.nn.sigmoid(output.confidence_logits)
        result = PassResult(
            landmarks, output.response_maps, output.identity_logits, memory, place, passes
        )
        return result, options.statistics(net, stats), (landmarks, confidence, losses)

    def state_after(self, result: PassResult, gate: MapGate | None = None) -> State:
        """Returns the state that the next pass, or the next frame, starts from.

        Args:
            result: of the last pass.
            gate: mixes z of the frame before with the new map, for the next frame; None replaces z.
        """
        options = self.options
        config = options.config
        with jax.named_scope("feedback"):
            z = options.fed_back(feedback_map(config, result.response_maps, result.passes))
            if gate is not None:
                old = self.state.feedback
                if options.recrops:
                    transform = relative_transform(result.crop, self.state.crop)
                    old = move_feedback(config, old, transform)
                first_frame = (self.state.passes == 0)[:, None, None, None]
                z = jnp.where(first_frame, z, gate(z, old))
        crop, memory = result.crop, result.memory
        if options.recrops:
            with jax.named_scope("recrop"):
                crop = next_crop(config, result.landmarks)
                memory = move_memory(config, memory, relative_transform(crop, result.crop))
            with jax.named_scope("feedback"):
                z = move_feedback(config, z, relative_transform(crop, result.crop))
        return State(z, self.state.memory if memory is None else memory, result.passes + 1, crop)


def begin_frame(
    options: LoopOptions,
    params: Tree,
    stats: Tree,
    images: jax.Array,
    state: State,
    targets: Tree,
    *,
    recurrent: bool,
) -> tuple[Frame, jax.Array | None, jax.Array, Tree]:
    """Runs the stem without re-crops, and the journal form's coarse pass.

    Returns:
        The frame; z of the first pass, None where it is blank; the number of passes before it
        since z was blank, [B] int32; and the batch statistics.
    """
    config = options.config
    frame = Frame(options, params, images, targets, state, recurrent)
    net = frame.network(stats)
    if not options.recrops:
        frame = dataclasses.replace(frame, stem=frame.run_stem(net, frame.first_crop))
    z = state.feedback if recurrent or config.passes_per_frame else None
    passes = state.passes
    if config.passes_per_frame:
        coarse = net.detect_coarse(
            frame.run_stem(net, frame.first_crop) if frame.stem is None else frame.stem,
            state.feedback,
            frame.memory,
            options.mode(passes, options.visits),
            head=options.mode(passes, options.frames),
        )
        if config.feedback != "none":
            with jax.named_scope("feedback"):
                z = options.fed_back(jax.nn.sigmoid(coarse).astype(images.dtype))
        passes = passes + 1
        frame = dataclasses.replace(frame, coarse=coarse)
    return frame, z, passes, options.statistics(net, stats)
