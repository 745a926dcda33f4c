"""The recurrent states of several faces, and one step of the network on a batch of them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from rednet_jax.compiler_options import inference_options
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.crops import (
    apply_affine,
    compose_affine,
    crop_image,
    crop_transform,
    invert_affine,
)
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig

Variables = dict[str, Any]

Carry = Literal["all", "feedback", "nothing"]
"""The state carried from frame to frame: feedback map and hidden state of f_tRNN ("all"), the map
only ("feedback"), or no state ("nothing")."""

_SLOTS = 5
"""Copies of a face's state: that of the previous frame, and one for each look at a frame."""


def is_recurrent(variables: Variables) -> bool:
    """Returns whether f_tRNN was trained: its output projection is initialised with zeros."""
    temporal = variables["params"].get("temporal")
    return temporal is not None and bool(np.any(np.asarray(temporal["back"]["kernel"])))


def carried_state(config: RedNetConfig, state: rednet.State, carry: Carry) -> rednet.State:
    """Returns the parts of a state that a frame passes to the next; the others are initial.

    Raises:
        RednetError: an unknown `carry`.
    """
    if carry not in get_args(Carry):
        raise RednetError(f"carry: {carry!r} is not one of {', '.join(get_args(Carry))}")
    if carry == "all":
        return state
    initial = rednet.initial_state(config, len(state.passes), state.feedback.dtype)
    return initial if carry == "nothing" else state._replace(memory=initial.memory)


class Region(NamedTuple):
    """Where a face is expected in an image.

    Attributes:
        box: float32 [4], the bounding box of the face in image pixels, before the rotation.
        roll: rotation of the box about its centre, radians, clockwise in the image.
    """

    box: NDArray[np.float32]
    roll: float = 0.0


class Look(NamedTuple):
    """The network's result for one region of a frame.

    Attributes:
        landmarks: float32 [L, 2], pixels of the frame.
        confidence: float32 [L], probability that the landmark's error is at most 5 % of the
            inter-ocular distance.
        region: the region of the crop.
        crop: uint8 [S, S, 3], the network's input.
        affine: float64 [2, 3], pixels of the crop -> pixels of the frame.
        slot: index of the state after this look in `Streams`.
    """

    landmarks: NDArray[np.float32]
    confidence: NDArray[np.float32]
    region: Region
    crop: NDArray[np.uint8]
    affine: NDArray[np.float64]
    slot: int


class Streams:
    """The recurrent states on the device, one row for each face that can be tracked.

    `look` runs the network from the state after the previous frame and does not change that state,
    so that a second look at the same frame starts from it, too. `keep` selects the look after which
    the state is carried to the next frame. All faces of a frame are one batch, padded to 1, 2, 4,
    ... or all rows, so that few shapes are compiled, all of them at construction.
    """

    def __init__(
        self,
        config: RedNetConfig,
        variables: Variables,
        rows: int,
        *,
        feedback_steps: int,
        carry: Carry = "all",
    ) -> None:
        """Compiles the step for every batch size.

        Args:
            config: of the network.
            variables: {'params': ..., 'batch_stats': ...}.
            rows: number of faces that can be tracked at the same time.
            feedback_steps: K.
            carry: the state carried from frame to frame.

        Raises:
            RednetError: an unknown `carry`.
        """
        self._config = config
        self._step = functools.partial(
            _compiled_step(),
            jax.device_put(variables),
            config=config,
            feedback_steps=feedback_steps,
            carry=carry,
        )
        # The last slot is for the padding of batches.
        self._padding = _SLOTS * rows
        self._state = rednet.initial_state(config, self._padding + 1)
        self._kept: dict[int, Look] = {}
        self._written = dict.fromkeys(range(rows), 0)
        powers = (2**power for power in range(rows.bit_length()))
        self._sizes = sorted({*powers, rows})
        for size in self._sizes:
            self._run(*self._batch(size))

    def forget(self, row: int) -> None:
        """Resets the state of a row to the initial state."""
        self._kept.pop(row, None)

    def keep(self, row: int, look: Look) -> None:
        """Carries the state after a look of a row to the next frame."""
        self._kept[row] = look

    def look(self, image: NDArray[np.uint8], regions: Mapping[int, Region]) -> dict[int, Look]:
        """Returns the network's result for a region of each row.

        The state of each row is resampled from the crop of its kept look into the new crop. Of the
        looks since the last `keep` of a row, only the last four can be kept.

        Args:
            image: RGB uint8 [H, W, 3].
            regions: the region of each row.
        """
        if not regions:
            return {}
        side = self._config.input_size
        size = next(size for size in self._sizes if size >= len(regions))
        crops, warps, sources, targets, fresh = batch = self._batch(size)
        affines = []
        for index, (row, region) in enumerate(regions.items()):
            affine = crop_transform(
                region.box, margin=self._config.input_margin, size=side, roll=region.roll
            )
            affines.append(affine)
            crops[index] = crop_image(image, affine, side)
            kept = self._kept.get(row)
            targets[index] = self._free_slot(row)
            if kept is not None:
                fresh[index] = False
                sources[index] = kept.slot
                warps[index] = compose_affine(invert_affine(kept.affine), affine)
        points, confidence = self._run(*batch)
        return {
            row: Look(
                apply_affine(affine, points[index]).astype(np.float32),
                confidence[index],
                region,
                crops[index],
                affine,
                int(targets[index]),
            )
            for index, ((row, region), affine) in enumerate(
                zip(regions.items(), affines, strict=True)
            )
        }

    def _free_slot(self, row: int) -> int:
        kept = self._kept.get(row)
        slots = [_SLOTS * row + (self._written[row] + step) % _SLOTS for step in (1, 2)]
        slot = slots[0] if kept is None or kept.slot != slots[0] else slots[1]
        self._written[row] = slot - _SLOTS * row
        return slot

    def _batch(
        self, size: int
    ) -> tuple[
        NDArray[np.uint8],
        NDArray[np.float32],
        NDArray[np.int32],
        NDArray[np.int32],
        NDArray[np.bool_],
    ]:
        """The arguments of `_step` after the state, for a batch of only padding."""
        side = self._config.input_size
        return (
            np.zeros((size, side, side, 3), np.uint8),
            np.tile(np.eye(2, 3, dtype=np.float32), (size, 1, 1)),
            np.full(size, self._padding, np.int32),
            np.full(size, self._padding, np.int32),
            np.ones(size, bool),
        )

    def _run(
        self,
        crops: NDArray[np.uint8],
        warps: NDArray[np.float32],
        sources: NDArray[np.int32],
        targets: NDArray[np.int32],
        fresh: NDArray[np.bool_],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        points, confidence, self._state = self._step(
            self._state, crops, warps, sources, targets, fresh
        )
        return np.asarray(points), np.asarray(confidence)


@functools.cache
def _compiled_step() -> jax.stages.Wrapped:
    return jax.jit(
        _step,
        static_argnames=("config", "feedback_steps", "carry"),
        donate_argnums=1,
        compiler_options=inference_options(),
    )


def _step(
    variables: Variables,
    carried: rednet.State,
    crops: jax.Array,
    warps: jax.Array,
    sources: jax.Array,
    targets: jax.Array,
    fresh: jax.Array,
    *,
    config: RedNetConfig,
    feedback_steps: int,
    carry: Carry,
) -> tuple[jax.Array, jax.Array, rednet.State]:
    """Runs the network on S faces, from the slots `sources` of the carried state to `targets`.

    Takes crops uint8 [S, H, W, 3], warps [S, 2, 3], sources and targets int32 [S], and fresh bool
    [S], True for faces that start from the initial state. Returns landmarks [S, L, 2] (crop
    pixels), confidence [S, L] and the carried state.
    """

    initial = rednet.initial_state(config, len(sources))

    def source_state(first: jax.Array, leaf: jax.Array) -> jax.Array:
        return jnp.where(fresh.reshape(-1, *[1] * (leaf.ndim - 1)), first, leaf[sources])

    state = jax.tree.map(source_state, initial, carried)
    out, state = rednet.step(
        config,
        variables,
        carried_state(config, state, carry),
        crops.astype(jnp.float32) / 255,
        warps,
        feedback_steps=feedback_steps,
    )
    carried = jax.tree.map(lambda slots, new: slots.at[targets].set(new), carried, state)
    return out.landmarks, out.confidence, carried
