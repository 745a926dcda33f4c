"""Cost of the two nested scans, compared with unrolled Python loops, and of streaming."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from rednet_jax.compiler_options import inference_options, training_options
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import OptimiserConfig
from rednet_jax.train.losses import LossConfig, pass_losses
from rednet_jax.train.state import optimiser
from rednet_jax.train.terms import Targets

FRAMES = 3
PASSES = 2
BATCH = 8

Tree = Any


class Step(NamedTuple):
    """A compiled training step, with its compile time and temporary memory."""

    run: Callable[[], Tree]
    compile_seconds: float
    temporary_mib: float


def python_loop(
    f: Callable[[Tree, Tree], tuple[Tree, Tree]], init: Tree, xs: Array
) -> tuple[Tree, Tree]:
    """Computes the same as `lax.scan`, with a Python loop that is unrolled when traced."""
    carry, rows = init, []
    for x in xs:
        carry, row = f(carry, x)
        rows.append(row)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def bench_scan(
    config: RedNetConfig | None = None, *, repeats: int = 9, frames_timed: int = 200
) -> dict[str, float | int | str]:
    """Measures a training step on clips in both forms alternately, and `step` at K = 1 per frame.

    Args:
        config: of the network; the preset `compact` if None.
        repeats: number of timed runs of each form.
        frames_timed: number of frames of the stream.

    Returns:
        `nested_over_unrolled`: the time of the step with nested scans divided by that with Python
        loops, median over pairs of runs; `step_over_frame_budget`: the median time of `step`
        divided by 6 ms, a budget that allows decoding and drawing at 100 frames/s; and the times
        and sizes behind both.
    """
    config = config or RedNetConfig.preset("compact")
    variables = rednet.init(config, jax.random.key(0))
    nested = _training_step(config, variables, lax.scan)
    unrolled = _training_step(config, variables, python_loop)
    nested_times, unrolled_times = [], []
    for _ in range(repeats):
        nested_times.append(_seconds(nested.run))
        unrolled_times.append(_seconds(unrolled.run))
    ratios = [a / b for a, b in zip(nested_times, unrolled_times, strict=True)]
    frame_times = _stream(config, variables, frames_timed)
    frame_ms = 1e3 * statistics.median(frame_times)
    return {
        "network": config.architecture,
        "device": jax.devices()[0].device_kind,
        "frames": FRAMES,
        "passes": PASSES,
        "batch": BATCH,
        "nested_over_unrolled": statistics.median(ratios),
        "nested_ms": 1e3 * statistics.median(nested_times),
        "unrolled_ms": 1e3 * statistics.median(unrolled_times),
        "nested_compile_s": nested.compile_seconds,
        "unrolled_compile_s": unrolled.compile_seconds,
        "nested_temporary_mib": nested.temporary_mib,
        "unrolled_temporary_mib": unrolled.temporary_mib,
        "step_over_frame_budget": frame_ms / 6,
        "step_ms": frame_ms,
        "step_ms_90th_percentile": 1e3 * statistics.quantiles(frame_times, n=10)[-1],
    }


def _training_step(config: RedNetConfig, variables: Tree, scan: rednet.Scan) -> Step:
    """Compiles a training step on clips: gradient, batch statistics, AdamW."""
    keys = jax.random.split(jax.random.key(1))
    size = config.input_size
    clips = jax.random.uniform(keys[0], (BATCH, FRAMES, size, size, 3))
    points = jax.random.uniform(keys[1], (BATCH, FRAMES, config.scheme.count, 2), maxval=size - 1)
    targets = Targets(
        points, jnp.ones(points.shape[:-1], bool), jnp.full(points.shape[:-2], -1, jnp.int32)
    )
    state = rednet.initial_state(config, BATCH)
    loss = pass_losses(LossConfig(), config)

    chain = optimiser(OptimiserConfig(), steps=1_000)

    def total(params: Tree, stats: Tree) -> tuple[Array, Tree]:
        out, _, stats = rednet.align_clip(
            config,
            {"params": params, "batch_stats": stats},
            clips,
            state,
            feedback_steps=PASSES,
            train=True,
            loss=loss,
            targets=targets,
            scan=scan,
        )
        return jnp.mean(out.per_step.losses["total"]), stats

    def step(params: Tree, stats: Tree, moments: Tree) -> tuple[Tree, Tree, Tree]:
        gradient, stats = jax.grad(total, has_aux=True)(params, stats)
        updates, moments = chain.update(gradient, moments, params)
        return optax.apply_updates(params, updates), stats, moments

    arguments = (variables["params"], variables["batch_stats"], chain.init(variables["params"]))
    begin = time.perf_counter()
    compiled = jax.jit(step, compiler_options=training_options()).lower(*arguments).compile()
    seconds = time.perf_counter() - begin
    analysis = compiled.memory_analysis()
    memory = analysis.temp_size_in_bytes / 2**20 if analysis else float("nan")
    run = functools.partial(compiled, *arguments)
    jax.block_until_ready(run())
    return Step(run, seconds, memory)


def _stream(config: RedNetConfig, variables: Tree, count: int) -> list[float]:
    """Returns the seconds of each `step` at K = 1, including the wait for its result."""
    step = jax.jit(
        functools.partial(rednet.step, config, feedback_steps=1),
        compiler_options=inference_options(),
    )
    frame = jax.random.uniform(jax.random.key(2), (1, config.input_size, config.input_size, 3))
    warp = jnp.eye(2, 3)[None]
    state = rednet.initial_state(config, 1)
    times = []
    for _ in range(count + 10):
        begin = time.perf_counter()
        out, state = jax.block_until_ready(step(variables, state, frame, warp))
        times.append(time.perf_counter() - begin)
    del out
    return times[10:]


def _seconds(run: Callable[[], Tree]) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begin
