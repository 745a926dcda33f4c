"""Presets grouped by the cost of their tests, implementations of a scan, and a training problem."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, lax

from rednet_jax.bench.scan import python_loop
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig

Tree = Any

PRESETS = ("compact", "separable", "eccv_vgg", "ijcv_resnet")
SLOW_JOURNAL = (*PRESETS[:3], pytest.param("ijcv_resnet", marks=pytest.mark.slow))
SLOW_DEEP = ("compact", *(pytest.param(name, marks=pytest.mark.slow) for name in PRESETS[1:]))

SCANS: dict[str, rednet.Scan] = {
    "scan": lax.scan,
    "unrolled scan": functools.partial(lax.scan, unroll=True),
    "python": python_loop,
}


def pass_loss(output: rednet.PassOutput, targets: Array) -> Array:
    """A smooth loss [B] of the outputs of all heads; targets [B, L, 2] in crop pixels."""
    side = output.logits.shape[1]
    terms = [
        jnp.abs(output.landmarks - targets).mean((1, 2)) / 8,
        jnp.square(output.logits).mean((1, 2, 3)) * side,
        jnp.square(output.map_landmarks - targets).mean((1, 2)) / 64,
        jnp.square(output.confidence_logits).mean(1),
        jax.nn.logsumexp(output.identity_logits, axis=-1),
    ]
    if output.coarse_logits is not None:
        terms.append(jnp.square(output.coarse_logits - 1).mean((1, 2, 3)))
    total: Array = sum(terms)  # type: ignore[assignment]
    return total


class Problem:
    """A batch of random clips with targets, in one dtype, and a loss with its gradient."""

    def __init__(
        self,
        config: RedNetConfig,
        dtype: Any = jnp.float32,
        *,
        frames: int = 2,
        passes: int = 2,
        batch: int = 4,
    ) -> None:
        self.config, self.passes, self.batch = config, passes, batch
        self.state = rednet.initial_state(config, batch, dtype)
        size = config.input_size

        rng = np.random.default_rng(3)
        self.clips = jnp.asarray(rng.random((batch, frames, size, size, 3)), dtype)
        points = (batch, frames, config.scheme.count, 2)
        self.targets = jnp.asarray(size * rng.random(points), dtype)
        variables = rednet.init(config, jax.random.key(3))
        # Kernels that are initialised to zero, of f_tRNN and of z, must have an effect here.
        params = jax.tree.map(
            lambda leaf: leaf if np.any(leaf) else 0.1 * rng.standard_normal(leaf.shape),
            variables["params"],
        )
        self.variables = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, dtype), {**variables, "params": params}
        )

    def loss(
        self,
        params: Tree,
        stats: Tree,
        scan: rednet.Scan = lax.scan,
        *,
        remat: bool = False,
        weights: tuple[float, ...] | None = None,
    ) -> tuple[Array, Tree]:
        """The mean over passes and frames (or a weighted sum over passes), and the statistics."""
        out, _, stats = rednet.align_clip(
            self.config,
            {"params": params, "batch_stats": stats},
            self.clips,
            self.state,
            feedback_steps=self.passes,
            train=True,
            loss=pass_loss,
            targets=self.targets,
            scan=scan,
            remat=remat,
        )
        losses = out.per_step.losses
        total = (
            losses.mean() if weights is None else jnp.dot(losses.mean((1, 2)), jnp.array(weights))
        )
        return total, stats

    def gradient(
        self, scan: rednet.Scan = lax.scan, **options: Any
    ) -> Callable[[Tree, Tree], Tree]:
        """Jitted (params, stats) -> ((value, stats), gradient)."""
        return jax.jit(
            jax.value_and_grad(functools.partial(self.loss, scan=scan, **options), has_aux=True)
        )
