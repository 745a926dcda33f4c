"""Shared by the network benchmarks: timing of calls, the machine's rates, crops of a face."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.crops import crop_image
from rednet_jax.model.config import RedNetConfig
from rednet_jax.quickstart import SIDE, portrait_clip

Name = TypeVar("Name", bound=Hashable)

PRODUCT = 2048
"""Side of the matrices for the measured product."""

COPIED = 64 * 2**20
"""Bytes of the array for the measured copy: larger than caches."""


class Timing(NamedTuple):
    """Number of timed calls.

    Attributes:
        rounds: of calls; the fastest round is reported.
        seconds: approximate time of a round, which has at least three calls; their median is used.
    """

    rounds: int = 10
    seconds: float = 0.1


class Machine(NamedTuple):
    """Measured rates of this machine.

    Attributes:
        product_ms: time of a product of two float32 matrices of 2048 x 2048.
        gflop_per_s: of that product.
        copy_gb_per_s: bytes read and written by the copy of an array, 10^9 per second.
        call_ms: time of a compiled program that adds two numbers: the overhead of a call.
    """

    product_ms: float
    gflop_per_s: float
    copy_gb_per_s: float
    call_ms: float


def milliseconds(run: Callable[[], Any], timing: Timing) -> float:
    """Returns the time of a call in ms: the median of a round's calls, in the fastest round.

    Args:
        run: the call; JAX arrays that it returns are waited for.
        timing: number of calls.
    """
    return interleaved_milliseconds({"run": run}, timing)["run"]


def interleaved_milliseconds(
    runs: Mapping[Name, Callable[[], Any]], timing: Timing
) -> dict[Name, float]:
    """Returns the times of calls that are compared with each other, as `milliseconds` defines them.

    Each round times all calls, so a machine that is slower for some seconds is slower for all of
    them, and the fastest rounds of all are comparable.

    Args:
        runs: the calls by name.
        timing: number of timed calls of each.
    """
    calls = {}
    for name, run in runs.items():
        jax.block_until_ready(run())
        calls[name] = max(3, round(timing.seconds / max(_seconds(run), 1e-9)))
    fastest = dict.fromkeys(runs, math.inf)
    for _ in range(timing.rounds):
        for name, run in runs.items():
            median = statistics.median(_seconds(run) for _ in range(calls[name]))
            fastest[name] = min(fastest[name], 1e3 * median)
    return fastest


def measure_machine(timing: Timing) -> Machine:
    """Measures the rates of JAX's default device in float32."""
    keys = jax.random.split(jax.random.key(0))
    left, right = (jax.random.normal(key, (PRODUCT, PRODUCT)) for key in keys)
    product = jax.jit(jnp.matmul)
    copied = jnp.ones(COPIED // 4)
    # A negation, since a compiler may remove a copy.
    negated = jax.jit(jnp.negative)
    scalar, add = jnp.ones(()), jax.jit(jnp.add)
    product_ms = milliseconds(lambda: product(left, right), timing)
    copy_ms = milliseconds(lambda: negated(copied), timing)
    return Machine(
        product_ms,
        2 * PRODUCT**3 / product_ms / 1e6,
        2 * COPIED / copy_ms / 1e6,
        milliseconds(lambda: add(scalar, scalar), timing),
    )


def check_batches(batches: Sequence[int]) -> None:
    """Raises RednetError if a batch size is below 1."""
    if min(batches) < 1:
        raise RednetError(f"batch is {min(batches)}, but must be at least 1")


def portrait_crops(config: RedNetConfig, count: int) -> NDArray[np.uint8]:
    """Returns crops uint8 [count, S, S, 3] of a moving portrait, S = config.input_size."""
    size = config.input_size
    scale = SIDE / size
    shift = (scale - 1) / 2
    affine = np.array([[scale, 0, shift], [0, scale, shift]])
    frames, _ = portrait_clip()
    return np.stack([crop_image(frames[i % len(frames)], affine, size) for i in range(count)])


def _seconds(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begin
