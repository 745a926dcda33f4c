"""The network in JAX beside the same network in PyTorch, and MediaPipe's face mesh beside both."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rednet_jax.bench.machine import (
    Machine,
    Timing,
    check_batches,
    measure_machine,
    milliseconds,
    portrait_crops,
)
from rednet_jax.bench.scan import python_loop
from rednet_jax.data.synthetic.generate import SyntheticConfig
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.provenance import provenance
from rednet_jax.export import torch as exported
from rednet_jax.export.folder import require, versions
from rednet_jax.inference.predict import predict_crops
from rednet_jax.landmarks.builtin import HEAD70
from rednet_jax.media.images import read_image
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig
from rednet_jax.quickstart import portrait_path
from rednet_jax.train.draw import GeneratedFaces
from rednet_jax.train.experiment import Experiment, GeneratedData, Stage
from rednet_jax.train.state import initial_train_state
from rednet_jax.train.step import train_step
from rednet_jax.weights.store import load, write_torch_weights

LARGEST_DIFFERENCE = 0.01
"""Pixels by which a point may differ for two networks to count as the same."""

LARGEST_GRADIENT_DIFFERENCE = 1e-3
"""The same of loss and of the gradient's norm, as a part of them."""

TRAINING = (
    "forward, backward and AdamW of the sum of squares of the landmarks of all passes, normalised "
    "by running statistics: the same graph in both. `jax, train_step` is what training runs: "
    "normalised by the batch's moments, all losses, clipped gradient, averaged weights"
)

_RATE, _DECAY = 1e-6, 0.01

Variables = dict[str, Any]
Row = dict[str, Any]


def bench_torch(
    checkpoint: str | tuple[RedNetConfig, Variables] = "compact",
    *,
    batches: Sequence[int] = (1, 32),
    feedback_steps: Sequence[int] = (1, 2, 3),
    training_batch: int = 32,
    training_steps: Sequence[int] = (1, 2),
    compiled: bool = True,
    timing: Timing | None = None,
    report: Callable[[int, int | None], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Times a checkpoint in JAX and in PyTorch, and a training step of its network.

    PyTorch runs the module of `rednet export --to torch`. Inference is from uint8 crops to points
    as host arrays, as `Aligner` runs it.

    Args:
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        batches: faces that go through the network together; each number is measured.
        feedback_steps: every K of inference.
        training_batch: faces of a training step.
        training_steps: every K of training.
        compiled: time `torch.compile`, too.
        timing: how often each is run.
        report: called with (rows done, rows in all).

    Returns:
        `machine`: a `Machine`. `inference`: `batch`, `feedback_steps`, `runtime`, `ms`,
        `ms_per_face`, `of_product` (ms in those of the matrix product), `over_jax` (ms in those of
        JAX) and `difference_px` (the largest of any point from JAX's). `training`, which says in
        `training_step` what it is: the same with `gradient_difference` (of the gradient's norm, as
        a part of it) for `difference_px`. `mediapipe`: `ms` and `of_product` of its face mesh on
        the portrait, where the face is followed from the frame before. `left_out`: `runtime`, and
        why (`left_out`). `threads` of PyTorch; `provenance`.

    Raises:
        RednetError: PyTorch is not installed, a checkpoint that cannot be read or that PyTorch's
            module does not have, or PyTorch's points or gradients differ from JAX's.
    """
    require("torch", ["torch", "safetensors"])
    import torch

    check_batches([*batches, training_batch])
    timing = timing or Timing(rounds=3, seconds=0.3)
    config, variables = load(checkpoint) if isinstance(checkpoint, str) else checkpoint
    variables = jax.device_put(variables)
    trained = config.architecture != "ijcv_resnet"
    rows = len(batches) * len(feedback_steps) + len(training_steps) * trained
    left_out: list[Row] = []
    inference: list[Row] = []
    training: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        write_torch_weights(weights, config, variables, feedback_steps=1)
        machine = measure_machine(timing)
        for done, (batch, steps) in enumerate(itertools.product(batches, feedback_steps)):
            report(done, rows)
            inference += _inference(
                config, variables, weights, batch, steps, machine, timing, left_out, compiled
            )
        for done, steps in enumerate(training_steps if trained else ()):
            report(len(batches) * len(feedback_steps) + done, rows)
            training += _training(
                config, variables, weights, training_batch, steps, machine, timing, left_out
            )
    if not trained:
        reason = "the journal form reads its points off peaks"
        left_out.append({"runtime": "training", "left_out": reason})
    mesh = _mediapipe(machine, timing)
    left_out += [row for row in mesh if "left_out" in row]
    name = checkpoint if isinstance(checkpoint, str) else "CHECKPOINT"
    words = [f"rednet bench torch --checkpoint {name} --batch {','.join(map(str, batches))}"]
    words.append(f"--feedback-steps {','.join(map(str, feedback_steps))}")
    origin = provenance(" ".join(words), seed=0)
    packages = ["torch"] + ["mediapipe"] * (importlib.util.find_spec("mediapipe") is not None)
    return {
        "checkpoint": name,
        "timing": timing._asdict(),
        "threads": torch.get_num_threads(),
        "machine": machine._asdict(),
        "inference": inference,
        "training_step": TRAINING,
        "training": training,
        "mediapipe": [row for row in mesh if "left_out" not in row],
        "left_out": left_out,
        "provenance": {**origin, "versions": {**origin["versions"], **versions(packages)}},
    }


def _inference(
    config: RedNetConfig,
    variables: Variables,
    weights: Path,
    batch: int,
    steps: int,
    machine: Machine,
    timing: Timing,
    left_out: list[Row],
    compiled: bool,
) -> list[Row]:
    """Rows of all runtimes at one batch and K; adds to `left_out` what does not run."""
    import torch

    crops = portrait_crops(config, batch)
    _, net = _network(weights, steps)
    _, channels_last = _network(weights, steps)
    channels_last.to(memory_format=torch.channels_last)

    def asked(call: Callable[..., Any]) -> Callable[[], Any]:
        def answer() -> Any:
            with torch.inference_mode():
                points, confidence = call(torch.from_numpy(crops))
                return points.numpy(), confidence.numpy()

        return answer

    def of_jax() -> Any:
        landmarks, confidence = predict_crops(config, variables, crops, steps, batch)
        return landmarks[-1], confidence[-1]

    runtimes: dict[str, Callable[[], Any]] = {
        "jax": of_jax,
        "torch, eager": asked(net),
        "torch, eager, channels_last": asked(channels_last),
    }
    name = "torch.compile"
    if compiled and all(row["runtime"] != name for row in left_out):
        # Else a second batch size would be compiled for any batch size.
        torch.compiler.reset()
        run = asked(torch.compile(net, dynamic=False))
        try:
            run()
        except Exception as error:
            # Whatever it raises: a missing compiler of C++ is one cause of many.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            left_out.append({"runtime": name, "left_out": reason})
        else:
            runtimes[name] = run
    points = of_jax()[0]
    differences = {
        name: float(np.abs(run()[0] - points).max())
        for name, run in runtimes.items()
        if name != "jax"
    }
    for name, difference in differences.items():
        if not difference <= LARGEST_DIFFERENCE:
            raise RednetError(
                f"{name}: points differ from JAX's by {difference:.3g} px at batch {batch}, "
                f"K = {steps}; at most {LARGEST_DIFFERENCE} px is the same network"
            )
    rows = [
        {
            "batch": batch,
            "feedback_steps": steps,
            "runtime": name,
            **_times(milliseconds(run, timing), batch, machine),
            "difference_px": differences.get(name, 0.0),
        }
        for name, run in runtimes.items()
    ]
    return _beside_jax(rows)


def _training(
    config: RedNetConfig,
    variables: Variables,
    weights: Path,
    batch: int,
    steps: int,
    machine: Machine,
    timing: Timing,
    left_out: list[Row],
) -> list[Row]:
    """Rows of a training step at one K; adds to `left_out` what does not run."""
    crops = portrait_crops(config, batch).astype(np.float32) / 255
    runs: dict[str, Callable[[], tuple[Any, Any]]] = {
        "jax": _jax_step(config, variables, crops, steps, jax.lax.scan),
        "jax, passes unrolled": _jax_step(config, variables, crops, steps, python_loop),
        "torch, eager": _torch_step(config, weights, crops, steps, channels_last=False),
        "torch, eager, channels_last": _torch_step(
            config, weights, crops, steps, channels_last=True
        ),
    }
    # The first step of each, from the same weights.
    firsts = {name: np.array([float(value) for value in run()]) for name, run in runs.items()}
    differences = {}
    for name, first in firsts.items():
        apart = np.abs(first / firsts["jax"] - 1)
        differences[name] = float(apart[1])
        if not apart.max() <= LARGEST_GRADIENT_DIFFERENCE:
            raise RednetError(
                f"{name}: loss and gradient's norm differ from JAX's by {apart[0]:.2g} and "
                f"{apart[1]:.2g} of them at K = {steps}"
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
            **_times(milliseconds(run, timing), batch, machine),
            "gradient_difference": differences.get(name),
        }
        for name, run in runs.items()
    ]
    return _beside_jax(rows)


def _jax_step(
    config: RedNetConfig, variables: Variables, crops: Any, steps: int, scan: rednet.Scan
) -> Callable[[], tuple[Any, Any]]:
    """Returns a function that takes a step and returns its loss and its gradient's norm."""
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

    def one(params: Any, moments: Any, stats: Any) -> tuple[Any, ...]:
        value, gradient = jax.value_and_grad(loss)(params, stats)
        updates, moments = chain.update(gradient, moments, params)
        return optax.apply_updates(params, updates), moments, value, optax.tree.norm(gradient)

    compiled = jax.jit(one, donate_argnums=(0, 1))
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

    module, net = _network(weights, steps)
    if channels_last:
        net.to(memory_format=torch.channels_last)
    net.requires_grad_(True)
    # Where JAX's gradients end: re-crops, and unless the config opens it the way of z.
    next_crop, feedback = module.next_crop, net._feedback
    setattr(module, "next_crop", lambda *given: next_crop(*given).detach())  # noqa: B010
    if not config.open_feedback_gradient:
        net._feedback = lambda *given: feedback(*given).detach()
    passes: list[Any] = []
    net.regression.register_forward_hook(lambda _, __, answer: passes.append(answer[0]))
    optimiser = torch.optim.AdamW(net.parameters(), lr=_RATE, weight_decay=_DECAY)
    images = torch.from_numpy(crops)

    def run() -> tuple[Any, Any]:
        passes.clear()
        optimiser.zero_grad(set_to_none=True)
        net(images)
        loss = sum(points.square().sum() for points in passes)
        loss.backward()
        optimiser.step()
        gradients = [one.grad for one in net.parameters() if one.grad is not None]
        return loss.detach(), torch.nn.utils.get_total_norm(gradients)

    return run


def _whole_step(config: RedNetConfig, batch: int, steps: int) -> Callable[[], tuple[Any, Any]]:
    """Returns a function that takes a step of training as it is run by `rednet train`.

    Raises:
        RednetError: the network's landmarks are none of generated faces.
    """
    faces = SyntheticConfig(size=config.input_size, margin=config.input_margin)
    stage = Stage(data=GeneratedData(faces), batch=batch)
    model = dataclasses.replace(config, feedback_steps=max(steps, config.feedback_steps))
    experiment = Experiment("bench", model, (stage,))
    size = config.input_size
    images = jnp.asarray(portrait_crops(config, batch), jnp.float32) / 255
    points = jax.random.uniform(jax.random.key(0), (batch, HEAD70.count, 2), maxval=size - 1)
    given = GeneratedFaces(images, points)
    compiled = jax.jit(train_step, static_argnums=(0, 1, 2), donate_argnums=3)
    state = [initial_train_state(experiment)]

    def run() -> tuple[Any, Any]:
        state[0], metrics = compiled(experiment, stage, steps, state[0], given)
        return metrics["loss"], metrics["gradient_norm"]

    # Compiles, and refuses landmarks that generated faces have not.
    run()
    return run


def _mediapipe(machine: Machine, timing: Timing) -> list[Row]:
    """The face mesh of MediaPipe's solutions on the portrait, or why it is left out."""

    def without(reason: str) -> list[Row]:
        return [{"runtime": "mediapipe", "left_out": reason}]

    if importlib.util.find_spec("mediapipe") is None:
        return without("mediapipe is not installed")
    solutions = getattr(importlib.import_module("mediapipe"), "solutions", None)
    if solutions is None:
        return without("this mediapipe has no solutions, which bring their models along")
    portrait = read_image(portrait_path(), upright=True)
    with solutions.face_mesh.FaceMesh(max_num_faces=1) as mesh:
        if mesh.process(portrait).multi_face_landmarks is None:
            return without("no face found in the portrait")
        ms = milliseconds(lambda: mesh.process(portrait), timing)
    return [{"runtime": "mediapipe", **_times(ms, 1, machine)}]


def _network(weights: Path, steps: int) -> tuple[ModuleType, Any]:
    """The exported module, its functions its own, and the network of the weights at K passes."""
    module = exported.load_module(Path(exported.__file__).with_name(exported.MODULE))
    net = module.load(weights)
    net.feedback_steps = steps
    return module, net


def _times(ms: float, batch: int, machine: Machine) -> Row:
    return {"ms": ms, "ms_per_face": ms / batch, "of_product": ms / machine.product_ms}


def _beside_jax(rows: list[Row]) -> list[Row]:
    (jax_ms,) = (row["ms"] for row in rows if row["runtime"] == "jax")
    return [{**row, "over_jax": row["ms"] / jax_ms} for row in rows]
