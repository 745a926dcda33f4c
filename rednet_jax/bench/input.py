"""Throughput of the training input: reading, augmentation, and the waiting time of steps."""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rednet_jax.data.crops import FaceCrops
from rednet_jax.data.pipeline import read_batches
from rednet_jax.data.synthetic.generate import SyntheticConfig, generate
from rednet_jax.landmarks.builtin import HEAD70
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.draw import draw
from rednet_jax.train.experiment import DataConfig, Experiment, GeneratedData, Stage
from rednet_jax.train.parallel import devices
from rednet_jax.train.state import initial_train_state

_DRAWN = 64
"""Number of distinct generated faces, which the file repeats."""


def bench_input(
    experiment: Experiment | None = None, *, faces: int = 2_048, steps: int = 20
) -> dict[str, float | int | str]:
    """Measures the reader alone, augmentation alone, and both in training.

    The faces are generated and stored in a temporary file in the format of cached crops.

    Args:
        experiment: its first stage is measured; if None, the preset `compact` with K = 1 and a
            batch of 32 faces.
        faces: number of faces in the file.
        steps: of training, after two warm-up steps.

    Returns:
        `reader_faces_per_second`; `augmentation_faces_per_second` and `augmentation_share`, its
        share of a training step, percent; `step_ms`, the median; and `waiting_share`, the share of
        the training time spent waiting for the reader, percent.
    """
    experiment = experiment or Experiment(
        name="bench",
        model=RedNetConfig.preset("compact", feedback_steps=1),
        stages=(Stage(batch=32),),
    )
    stage = experiment.stages[0]
    with tempfile.TemporaryDirectory() as folder:
        crops = _write_faces(Path(folder), experiment.model, stage.data, faces)
        reader = read_batches(
            [(crops, 1.0)],
            batch=stage.batch,
            scheme=experiment.model.scheme,
            seed=experiment.seed,
        )
        batch = jax.device_put(next(reader))
        read = [_seconds(lambda: next(reader)) for _ in range(10 * steps)]
        drawing = jax.jit(functools.partial(draw, experiment, stage))
        jax.block_until_ready(drawing(0, batch))
        drawn = [_seconds(lambda: drawing(0, batch)) for _ in range(steps)]
        placed = devices(experiment, "jit")
        state = placed.place(initial_train_state(experiment))
        step = placed.step(0, experiment.model.feedback_steps)
        waited, trained = [], []
        for _ in range(steps + 2):
            begin = time.perf_counter()
            batch = next(reader)
            received = time.perf_counter()
            state, _ = jax.block_until_ready(step(state, batch))
            waited.append(received - begin)
            trained.append(time.perf_counter() - received)
    step_seconds = statistics.median(trained[2:])
    return {
        "device": jax.devices()[0].device_kind,
        "network": experiment.model.architecture,
        "feedback_steps": experiment.model.feedback_steps,
        "batch": stage.batch,
        "reader_faces_per_second": stage.batch * len(read) / sum(read),
        "augmentation_faces_per_second": stage.batch / statistics.median(drawn),
        "augmentation_share": 100 * statistics.median(drawn) / step_seconds,
        "step_ms": 1e3 * step_seconds,
        "waiting_share": 100 * sum(waited[2:]) / (sum(waited[2:]) + sum(trained[2:])),
    }


def _write_faces(
    folder: Path, model: RedNetConfig, data: DataConfig | GeneratedData, count: int
) -> FaceCrops:
    assert isinstance(data, DataConfig)
    size = data.cached_size
    config = SyntheticConfig(size=size, margin=model.crop_margin * data.cover)
    faces = jax.jit(functools.partial(jax.lax.map, functools.partial(generate, config)))
    images, landmarks = jax.device_get(faces(jax.random.split(jax.random.key(0), _DRAWN)))
    order = np.arange(count) % _DRAWN
    stored = np.memmap(folder / "faces", np.uint8, mode="w+", shape=(count, size, size, 3))
    stored[:] = np.round(255 * images).astype(np.uint8)[order]
    stored.flush()
    return FaceCrops(
        images=np.memmap(folder / "faces", np.uint8, mode="r", shape=stored.shape),
        landmarks=landmarks[order],
        labelled=np.ones((count, HEAD70.count), bool),
        affines=np.tile(np.eye(2, 3, dtype=np.float32), (count, 1, 1)),
        starts=np.arange(count + 1),
        names=np.array([f"generated face {i}" for i in order]),
        styles=np.full(count, "300w"),
        identities=np.full(count, -1),
        scheme=HEAD70,
    )


def _seconds(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begin
