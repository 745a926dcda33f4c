"""Start-up times of commands, cold and warm, and program size over passes and frames."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from rednet_jax.errors import RednetError
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig
from rednet_jax.quickstart import portrait_path
from rednet_jax.train.demonstration import smoke_path
from rednet_jax.train.watch import METRICS

PASSES = (1, 2, 3, 4, 5, 6, 8)
FRAMES = (1, 2, 4, 8, 16, 32)

_OTHER_CACHES = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")
_REDNET = ("-m", "rednet_jax")

Row = dict[str, int | float]


def _import(folder: Path) -> float:
    return _seconds(folder, ["-c", "import rednet_jax"])


def _align(folder: Path) -> float:
    out = folder / "landmarks.csv"
    return _seconds(folder, [*_REDNET, "align", str(portrait_path()), "--csv", str(out)])


def _smoke(folder: Path) -> float:
    """Returns the seconds until the first step's metrics are written, before validation."""
    run_dir = Path(tempfile.mkdtemp(dir=folder)) / "run"
    words = [*_REDNET, "train", str(smoke_path()), "--run-dir", str(run_dir), "--stop-after", "1"]
    return _seconds(folder, words, until=run_dir / METRICS)


def _quickstart(folder: Path) -> float:
    return _seconds(folder, [*_REDNET, "quickstart", "--out", tempfile.mkdtemp(dir=folder)])


STARTS: dict[str, Callable[[Path], float]] = {
    "import rednet_jax": _import,
    "rednet align IMAGE": _align,
    "smoke.py to its first step": _smoke,
    "rednet quickstart": _quickstart,
}
"""Functions that return the seconds of a new process with a folder for its files."""


def bench_startup(
    config: RedNetConfig | None = None,
    *,
    starts: Sequence[str] = tuple(STARTS),
    passes: Sequence[int] = PASSES,
    frames: Sequence[int] = FRAMES,
) -> dict[str, Any]:
    """Measures starts in new processes, and the compiled programs for each K and T.

    Disable this process's compilation cache: compile times are measured here.

    Args:
        config: of the network in the tables; the preset `compact` if None.
        starts: keys of `STARTS`; each is run twice, first with an empty compilation cache, then
            with the cache of the first run.
        passes: all K of the table of passes.
        frames: all T of the table of clips.

    Returns:
        `starts`: rows of `start`, `first_s` and `second_s`. `passes`: a forward pass over one image
        for each K. `frames`: the gradient of two passes over a clip for each T. Rows of both have
        `trace_s`, `compile_s` and `instructions` of the compiled program.

    Raises:
        RednetError: a process failed.
    """
    config = config or RedNetConfig.preset("compact")
    rows = []
    for name in starts:
        with tempfile.TemporaryDirectory() as folder:
            first, second = (STARTS[name](Path(folder)) for _ in range(2))
        rows.append({"start": name, "first_s": first, "second_s": second})
    return {
        "network": config.architecture,
        "device": jax.devices()[0].device_kind,
        "starts": rows,
        "passes": [{"K": steps, **_forward(config, steps)} for steps in passes],
        "frames": [{"T": count, **_clip_gradient(config, count)} for count in frames],
    }


def _seconds(folder: Path, words: Sequence[str], until: Path | None = None) -> float:
    """Returns the seconds until a process ends, or until the file `until` is not empty."""
    environment = {name: value for name, value in os.environ.items() if name not in _OTHER_CACHES}
    environment["REDNET_JAX_DATA"] = str(folder / "data")
    with tempfile.TemporaryFile("w+") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *words], env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        reached = None
        try:
            while process.poll() is None:
                if until is None:
                    process.wait()
                elif reached is None and until.exists() and until.stat().st_size:
                    reached = time.perf_counter()
                else:
                    time.sleep(0.02)
        finally:
            process.kill()
        end = time.perf_counter() if reached is None else reached
        if process.returncode:
            output.seek(0)
            line = (output.read().strip().splitlines() or ["no output"])[-1]
            raise RednetError(f"{' '.join(words)}: {line}")
    return end - begin


def _forward(config: RedNetConfig, steps: int) -> Row:
    variables = _shapes(config)
    images = jax.ShapeDtypeStruct((1, config.input_size, config.input_size, 3), jnp.float32)

    def landmarks(variables: Any, images: jax.Array) -> Any:
        out, _ = rednet.align_image(config, variables, images, feedback_steps=steps)
        return out.landmarks

    return _compiled(landmarks, variables, images)


def _clip_gradient(config: RedNetConfig, count: int) -> Row:
    size = config.input_size
    clips = jax.ShapeDtypeStruct((1, count, size, size, 3), jnp.float32)

    def total(params: Any, stats: Any, clips: jax.Array) -> Any:
        variables = {"params": params, "batch_stats": stats}
        state = rednet.initial_state(config, 1)
        out, _, _ = rednet.align_clip(config, variables, clips, state, feedback_steps=2, train=True)
        return out.per_step.landmarks.sum()

    variables = _shapes(config)
    return _compiled(jax.grad(total), variables["params"], variables["batch_stats"], clips)


def _shapes(config: RedNetConfig) -> Any:
    return jax.eval_shape(lambda: rednet.init(config, jax.random.key(0)))


def _compiled(function: Callable[..., Any], *arguments: Any) -> Row:
    begin = time.perf_counter()
    lowered = jax.jit(function).lower(*arguments)
    traced = time.perf_counter()
    compiled = lowered.compile()
    end = time.perf_counter()
    instructions = sum(" = " in line for line in (compiled.as_text() or "").splitlines())
    return {
        "trace_s": traced - begin,
        "compile_s": end - traced,
        "instructions": instructions,
    }
