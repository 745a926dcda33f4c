"""What the network carries from frame to frame for several faces at once, and its step for all."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from rednet_jax.landmarks.crops import (
    apply_affine,
    compose_affine,
    crop_transform,
    cut_crop,
    invert_affine,
)
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig

Variables = dict[str, Any]

Carry = Literal["all", "feedback", "nothing"]
"""What of a frame the next one sees: feedback map and memory of f_tRNN, the map alone, neither."""


def is_recurrent(variables: Variables) -> bool:
    """Returns whether f_tRNN was trained: its way back into the code begins at zero."""
    temporal = variables["params"].get("temporal")
    return temporal is not None and bool(np.any(np.asarray(temporal["back"]["kernel"])))


class Look(NamedTuple):
    """What the network says of one crop.

    Attributes:
        landmarks: float32 [L, 2], pixels of the frame.
        confidence: float32 [L], probability that the point lies within 5 % of the inter-ocular
            distance.
        box: float32 [4], what the crop was cut around.
    """

    landmarks: NDArray[np.float32]
    confidence: NDArray[np.float32]
    box: NDArray[np.float32]


class Streams:
    """Rows of carried state on the device, one for each face that can be followed.

    All faces of a frame go through the network in one batch, filled up to 1, 2, 4, ... or all rows,
    so that few programs are compiled, and those at the beginning.
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
        """Compiles the step for every size of batch.

        Args:
            config: of the network.
            variables: {'params': ..., 'batch_stats': ...}.
            rows: faces that can be followed at the same time.
            feedback_steps: K.
            carry: what a frame hands to the next.
        """
        self._config = config
        self._rows = rows
        self._step = functools.partial(
            _step,
            jax.device_put(variables),
            config=config,
            feedback_steps=feedback_steps,
            carry=carry,
        )
        # One more than can be used: what fills a batch up is written there.
        self._state = rednet.initial_state(config, rows + 1)
        self._affines: dict[int, NDArray[np.float64]] = {}
        powers = (2**power for power in range(rows.bit_length()))
        self._sizes = sorted({*powers, rows})
        for size in self._sizes:
            self._run(
                np.zeros((size, config.picture_size, config.picture_size, 3), np.uint8),
                np.tile(np.eye(2, 3, dtype=np.float32), (size, 1, 1)),
                np.full(size, rows, np.int32),
                np.ones(size, bool),
            )

    def blank(self, row: int) -> None:
        """Forgets what a row carries: its next face is another, or the same one found anew."""
        self._affines.pop(row, None)

    def look(
        self, image: NDArray[np.uint8], boxes: Mapping[int, NDArray[np.float32]]
    ) -> dict[int, Look]:
        """Returns what the network finds around the boxes in a frame, by row.

        The state of each row moves with its crop and goes on from there.

        Args:
            image: RGB uint8 [H, W, 3].
            boxes: [4] of each face, by row.
        """
        if not boxes:
            return {}
        side = self._config.picture_size
        rows = list(boxes)
        affines = {
            row: crop_transform(box, margin=self._config.picture_margin, size=side)
            for row, box in boxes.items()
        }
        size = next(size for size in self._sizes if size >= len(rows))
        crops = np.zeros((size, side, side, 3), np.uint8)
        warps = np.tile(np.eye(2, 3, dtype=np.float32), (size, 1, 1))
        filled = np.full(size, self._rows, np.int32)
        fresh = np.ones(size, bool)
        for place, row in enumerate(rows):
            crops[place] = cut_crop(image, affines[row], side)
            filled[place] = row
            before = self._affines.get(row)
            if before is not None:
                fresh[place] = False
                warps[place] = compose_affine(invert_affine(before), affines[row])
        points, confidence = self._run(crops, warps, filled, fresh)
        self._affines |= affines
        return {
            row: Look(
                apply_affine(affines[row], points[place]).astype(np.float32),
                confidence[place],
                boxes[row],
            )
            for place, row in enumerate(rows)
        }

    def _run(
        self,
        crops: NDArray[np.uint8],
        warps: NDArray[np.float32],
        rows: NDArray[np.int32],
        fresh: NDArray[np.bool_],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        points, confidence, self._state = self._step(self._state, crops, warps, rows, fresh)
        return np.asarray(points), np.asarray(confidence)


@functools.partial(jax.jit, static_argnames=("config", "feedback_steps", "carry"), donate_argnums=1)
def _step(
    variables: Variables,
    carried: rednet.State,
    crops: jax.Array,
    warps: jax.Array,
    rows: jax.Array,
    fresh: jax.Array,
    *,
    config: RedNetConfig,
    feedback_steps: int,
    carry: Carry,
) -> tuple[jax.Array, jax.Array, rednet.State]:
    """One step of the faces in `rows` of the carried state; `fresh` ones begin with a blank one.

    Takes crops uint8 [S, H, W, 3], warps [S, 2, 3], rows int32 [S] and fresh bool [S]; gives
    landmarks [S, L, 2] (crop pixels), confidence [S, L] and the carried state.
    """

    blank = rednet.initial_state(config, len(rows))

    def begun(blank: jax.Array, leaf: jax.Array) -> jax.Array:
        return jnp.where(fresh.reshape(-1, *[1] * (leaf.ndim - 1)), blank, leaf[rows])

    state = jax.tree.map(begun, blank, carried)
    if carry != "all":
        state = state._replace(memory=blank.memory)
    if carry == "nothing":
        state = blank
    out, state = rednet.step(
        config,
        variables,
        state,
        crops.astype(jnp.float32) / 255,
        warps,
        feedback_steps=feedback_steps,
    )
    carried = jax.tree.map(lambda rest, new: rest.at[rows].set(new), carried, state)
    return out.landmarks, out.confidence, carried
