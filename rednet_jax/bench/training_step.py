"""A training step of the network in JAX and of the same network in PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rednet_jax.bench.machine import Machine, Timing, interleaved_milliseconds, portrait_crops
from rednet_jax.bench.runtimes import Row, Variables, beside_jax, time_row, torch_network
from rednet_jax.bench.scan import python_loop
from rednet_jax.compiler_options import training_options
from rednet_jax.data.synthetic.generate import SyntheticConfig
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.builtin import HEAD70
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.draw import GeneratedFaces
from rednet_jax.train.experiment import Experiment, GeneratedData, Stage
from rednet_jax.train.state import initial_train_state
from rednet_jax.train.step import train_step

LARGEST_GRADIENT_DIFFERENCE = 1e-3
"""Largest relative difference of loss and gradient norm for two networks to count as the same."""

TRAINING = (
    "forward, backward and AdamW of the sum of squares of the landmarks of all passes, normalised "
    "by running statistics: the same graph in both. `jax, train_step` is what training runs: "
    "normalised by the batch's moments, all losses, clipped gradient, averaged weights"
)

_RATE, _DECAY = 1e-6, 0.01


def training_rows(
    config: RedNetConfig,
    variables: Variables,
    weights: Path,
    batch: int,
    steps: int,
    machine: Machine,
    timing: Timing,
    left_out: list[Row],
) -> list[Row]:
    """Returns rows of a training step at one K; adds runtimes that do not run to `left_out`.

    Raises:
        RednetError: PyTorch's loss or gradient norm differs from JAX's.
    """
    crops = portrait_crops(config, batch).astype(np.float32) / 255
    runs: dict[str, Callable[[], tuple[Any, Any]]] = {
        "jax": _jax_step(config, variables, crops, steps, jax.lax.scan),
        "jax, passes unrolled": _jax_step(config, variables, crops, steps, python_loop),
        "torch, eager": _torch_step(config, weights, crops, steps, channels_last=False),
        "torch, eager, channels_last": _torch_step(
            config, weights, crops, steps, channels_last=True
        ),
    }
    # The first steps, which start from the same weights.
    firsts = {name: np.array([float(value) for value in run()]) for name, run in runs.items()}
    differences = {}
    for name, first in firsts.items():
        relative = np.abs(first / firsts["jax"] - 1)
        differences[name] = float(relative[1])
        if not relative.max() <= LARGEST_GRADIENT_DIFFERENCE:
            raise RednetError(
                f"{name}: loss and gradient norm differ from JAX's by {100 * relative[0]:.2g} % "
                f"and {100 * relative[1]:.2g} % at K = {steps}"
            )
    try:
        runs["jax, train_step"] = _whole_step(config, batch, steps)
    except RednetError as error:
        left_out.append({"runtime": "jax, train_step", "left_out": str(error)})
    rows = [
        {
            "batch": batch,
            "feedback_steps": steps,
            "runtime": name,
            **time_row(ms, batch, machine),
            "gradient_difference": differences.get(name),
        }
        for name, ms in interleaved_milliseconds(runs, timing).items()
    ]
    return beside_jax(rows)


def _jax_step(
    config: RedNetConfig, variables: Variables, crops: Any, steps: int, scan: rednet.Scan
) -> Callable[[], tuple[Any, Any]]:
    """Returns a function that runs a training step and returns its loss and gradient norm."""
    chain = optax.adamw(_RATE, weight_decay=_DECAY)
    images = jnp.asarray(crops)

    def squares(output: Any, _: Any) -> jax.Array:
        return jnp.sum(jnp.square(output.landmarks))

    def loss(params: Any, stats: Any) -> jax.Array:
        whole = {"params": params, "batch_stats": stats}
        out, _ = rednet.align_image(
            config, whole, images, feedback_steps=steps, loss=squares, scan=scan
        )
        total: jax.Array = jnp.sum(out.per_step.losses)
        return total

    def step(params: Any, moments: Any, stats: Any) -> tuple[Any, ...]:
        value, gradient = jax.value_and_grad(loss)(params, stats)
        updates, moments = chain.update(gradient, moments, params)
        return optax.apply_updates(params, updates), moments, value, optax.tree.norm(gradient)

    compiled = jax.jit(step, donate_argnums=(0, 1), compiler_options=training_options())
    params = jax.device_put(variables["params"], may_alias=False)
    state = [params, chain.init(params)]

    def run() -> tuple[Any, Any]:
        *state[:], value, norm = compiled(*state, variables["batch_stats"])
        return value, norm

    return run


def _torch_step(
    config: RedNetConfig, weights: Path, crops: Any, steps: int, *, channels_last: bool
) -> Callable[[], tuple[Any, Any]]:
    """Returns the same step in PyTorch."""
    import torch

    module, net = torch_network(weights, steps)
    if channels_last:
        net.to(memory_format=torch.channels_last)
    net.requires_grad_(True)
    # The stop_gradients of JAX's network: re-crops, and unless the config disables it feedback.
    next_crop, feedback = module.next_crop, net._feedback
    setattr(module, "next_crop", lambda *args: next_crop(*args).detach())  # noqa: B010
    if not config.open_feedback_gradient:
        net._feedback = lambda *args: feedback(*args).detach()
    passes: list[Any] = []
    net.regression.register_forward_hook(lambda _, __, output: passes.append(output[0]))
    optimiser = torch.optim.AdamW(net.parameters(), lr=_RATE, weight_decay=_DECAY)
    images = torch.from_numpy(crops)

    def run() -> tuple[Any, Any]:
        passes.clear()
        optimiser.zero_grad(set_to_none=True)
        net(images)
        loss = sum(points.square().sum() for points in passes)
        loss.backward()
        optimiser.step()
        gradients = [leaf.grad for leaf in net.parameters() if leaf.grad is not None]
        return loss.detach(), torch.nn.utils.get_total_norm(gradients)

    return run


def _whole_step(config: RedNetConfig, batch: int, steps: int) -> Callable[[], tuple[Any, Any]]:
    """Returns a function that runs a step of `rednet train`.

    Raises:
        RednetError: the network's scheme is not one of generated faces.
    """
    faces = SyntheticConfig(size=config.input_size, margin=config.input_margin)
    stage = Stage(data=GeneratedData(faces), batch=batch)
    model = dataclasses.replace(config, feedback_steps=max(steps, config.feedback_steps))
    experiment = Experiment("bench", model, (stage,))
    size = config.input_size
    images = jnp.asarray(portrait_crops(config, batch), jnp.float32) / 255
    points = jax.random.uniform(jax.random.key(0), (batch, HEAD70.count, 2), maxval=size - 1)
    faces_drawn = GeneratedFaces(images, points)
    compiled = jax.jit(
        train_step,
        static_argnums=(0, 1, 2),
        donate_argnums=3,
        compiler_options=training_options(),
    )
    state = [initial_train_state(experiment)]

    def run() -> tuple[Any, Any]:
        state[0], metrics = compiled(experiment, stage, steps, state[0], faces_drawn)
        return metrics["loss"], metrics["gradient_norm"]

    # Compiles, and raises for landmarks that generated faces do not have.
    run()
    return run
