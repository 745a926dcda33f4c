"""`bench scan` on a narrow network."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from rednet_jax.bench import scan
from rednet_jax.bench.scan import bench_scan, python_loop
from rednet_jax.model.config import RedNetConfig


def test_both_forms_and_the_stream_are_measured(
    narrow: Callable[..., RedNetConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The Python loops unroll FRAMES * PASSES copies of a pass, each of which compiles in seconds.
    monkeypatch.setattr(scan, "FRAMES", 2)
    monkeypatch.setattr(scan, "PASSES", 1)
    monkeypatch.setattr(scan, "BATCH", 2)
    result = bench_scan(narrow("compact"), repeats=1, frames_timed=20)
    assert (result["frames"], result["passes"], result["batch"]) == (2, 1, 2)
    numbers = {name: value for name, value in result.items() if not isinstance(value, str)}
    assert all(np.isfinite(value) and value > 0 for value in numbers.values())
    ratio = result["nested_ms"] / result["unrolled_ms"]
    assert result["nested_over_unrolled"] == pytest.approx(ratio)
    assert result["step_over_frame_budget"] == pytest.approx(result["step_ms"] / 6)


def test_the_python_loop_equals_scan() -> None:
    def body(carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return carry * x, carry + x

    xs = jnp.arange(1.0, 5.0)
    for loop, scanned in zip(
        python_loop(body, jnp.float32(1), xs), lax.scan(body, jnp.float32(1), xs), strict=True
    ):
        np.testing.assert_array_equal(loop, scanned)
