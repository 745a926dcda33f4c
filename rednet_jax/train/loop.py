"""The training loop: a run folder is begun or resumed, steps are run, watched and saved."""

from __future__ import annotations

import functools
import json
import logging
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from rednet_jax.data.cache import FaceCache, cache_faces
from rednet_jax.data.sources import read_split
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.metrics import face_errors
from rednet_jax.evaluate.protocols import Crops, align_crops, cut_split, in_picture
from rednet_jax.train.checkpoints import Checkpoints
from rednet_jax.train.experiment import Experiment
from rednet_jax.train.state import TrainState, initial_train_state
from rednet_jax.train.step import batch_indices, train_step
from rednet_jax.weights.store import BEST, write_weights

_LOG = logging.getLogger(__name__)


class Faces(NamedTuple):
    """Training faces on the device, their names, and the validation crops on the host."""

    train: FaceCache
    names: list[str]
    validation: Crops


def train(
    experiment: Experiment,
    run_dir: Path,
    *,
    data_root: Path | None = None,
    steps: int | None = None,
) -> TrainState:
    """Trains to the end of the experiment, or resumes where the run folder was left.

    The folder holds config.json, metrics.jsonl, checkpoints/ and best.safetensors (the averaged
    weights with the smallest validation NME at the last trained pass).

    Args:
        experiment: what to train.
        run_dir: the run's folder, made if need be.
        data_root: the data set's folder; None for $REDNET_JAX_DATA.
        steps: stop after so many optimiser steps in total and save there; changes no schedule.

    Returns:
        The state at the end.

    Raises:
        RednetError: a folder of another experiment or that cannot be written, data that cannot be
            read, a loss that is not finite.
    """
    if steps is not None and steps < 1:
        raise RednetError(f"--steps must be at least 1, not {steps}")
    last = experiment.steps if steps is None else min(steps, experiment.steps)
    _claim(run_dir, experiment)
    faces = _read_faces(experiment, data_root)
    with Checkpoints(run_dir / "checkpoints", experiment.keep) as checkpoints:
        begin = jax.jit(functools.partial(initial_train_state, experiment))
        if (found := checkpoints.latest) is None:
            state = begin()
        else:
            state = checkpoints.load(found, jax.eval_shape(begin))
            print(f"{run_dir}: goes on at step {found}", flush=True)
        with _Metrics(run_dir / "metrics.jsonl", kept_until=int(state.step)) as metrics:
            return _run(experiment, run_dir, state, last, faces, checkpoints, metrics)


def _run(
    experiment: Experiment,
    run_dir: Path,
    state: TrainState,
    last: int,
    faces: Faces,
    checkpoints: Checkpoints,
    metrics: _Metrics,
) -> TrainState:
    step_fn = jax.jit(train_step, static_argnums=(0, 1), donate_argnums=2)
    first = int(state.step)
    waiting: list[tuple[int, np.ndarray, dict[str, jax.Array]]] = []
    since = time.perf_counter()
    best = checkpoints.best_nme
    row: dict[str, Any] = {}
    with tqdm(total=last, initial=first, unit="step", disable=None, leave=False) as bar:
        for step in range(first, last):
            indices = batch_indices(
                experiment.seed, step, batch=experiment.batch, faces=len(faces.names)
            )
            passes = _passes(experiment, step)
            if step in (first, experiment.one_pass_steps):
                _LOG.info("compiling the training step for %d passes", passes)
            state, measured = step_fn(experiment, passes, state, faces.train, indices)
            waiting.append((step + 1, indices, measured))
            bar.update()
            due = (step + 1) % experiment.evaluate_every == 0 or step + 1 == last
            if due or (step + 1) % experiment.log_every == 0:
                row = _read_out(waiting, faces.names, checkpoints)
                now = time.perf_counter()
                row["images_per_second"] = len(waiting) * experiment.batch / (now - since)
                metrics.write(row)
                bar.set_postfix_str(_line(row))
                waiting.clear()
                since = now
            if due:
                nme = validation_nme(experiment, state, faces.validation)
                metrics.write({"step": step + 1, "validation_nme": nme})
                checkpoints.save(step + 1, state, nme[-1])
                if nme[-1] < best:
                    best = nme[-1]
                    write_weights(run_dir / BEST, experiment.model, state.average)
                by_pass = " ".join(f"{value:.2f}" for value in nme)
                tqdm.write(f"step {step + 1}/{last}  {_line(row)}  validation nme {by_pass} %")
                since = time.perf_counter()
    return state


def validation_nme(experiment: Experiment, state: TrainState, crops: Crops) -> list[float]:
    """Returns the averaged weights' NME after each trained pass, percent, truth boxes."""
    model = experiment.model
    passes = _passes(experiment, int(state.step) - 1)
    landmarks = align_crops(model, state.average, crops.images, passes)
    errors = face_errors(in_picture(crops, landmarks), _each(crops.landmarks, passes),
                         _each(crops.labelled, passes))
    return [float(value) for value in np.nanmean(errors, axis=1)]


def _each(array: np.ndarray, passes: int) -> np.ndarray:
    return np.broadcast_to(array, (passes, *array.shape))


def _passes(experiment: Experiment, step: int) -> int:
    return 1 if step < experiment.one_pass_steps else experiment.model.feedback_steps


def _read_faces(experiment: Experiment, data_root: Path | None) -> Faces:
    data, model = experiment.data, experiment.model
    samples = read_split(data.name, data.train, data_root)
    cache, names = cache_faces(
        samples, margin=model.crop_margin * data.cover, size=data.cached_size
    )
    validation = cut_split(read_split(data.name, data.validation, data_root), model)
    for line in (*samples.skipped, *validation.skipped):
        print(f"left out: {line}", flush=True)
    print(f"{len(names)} faces to train on, {len(validation.names)} to validate", flush=True)
    return Faces(jax.device_put(cache), names, validation)


def _read_out(
    waiting: list[tuple[int, np.ndarray, dict[str, jax.Array]]],
    names: list[str],
    checkpoints: Checkpoints,
) -> dict[str, Any]:
    """The newest step's metrics as numbers; every step since the last call is checked."""
    for step, indices, measured in waiting:
        losses = np.asarray(measured["loss_of_face"])
        if np.isfinite(losses).all() and np.isfinite(measured["gradient_norm"]):
            continue
        broken = [names[i] for i, loss in zip(indices, losses, strict=True) if loss - loss != 0]
        where = ", ".join(broken) or "none by itself (the gradient is not finite)"
        kept = checkpoints.latest
        raise RednetError(
            f"loss or gradient is not finite at step {step}; faces: {where}; "
            f"{'no checkpoint yet' if kept is None else f'last good checkpoint: step {kept}'}"
        )
    step, _, measured = waiting[-1]
    scalars = {name: float(value) for name, value in measured.items() if np.ndim(value) == 0}
    return {"step": step, **scalars}


def _line(row: dict[str, Any]) -> str:
    return (
        f"loss {row['loss']:.3f}  nme {row['nme']:.2f} %  {row['images_per_second']:.0f} images/s"
    )


def _claim(run_dir: Path, experiment: Experiment) -> None:
    """Makes the folder this experiment's, or refuses one that is another's."""
    config = run_dir / "config.json"
    wanted = experiment.to_json()
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        if not config.exists():
            partial = config.with_name(f".{config.name}.{os.getpid()}.partial")
            partial.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
            os.replace(partial, config)
            return
        found = json.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise RednetError(f"{error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise RednetError(f"{config}: not a run's config ({error})") from error
    if difference := _first_difference(found, wanted, ""):
        raise RednetError(f"{config}: the folder holds another run; {difference}")


def _first_difference(found: Any, wanted: Any, name: str) -> str | None:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted({*found, *wanted}):
            inner = _first_difference(found.get(key), wanted.get(key), f"{name}.{key}".lstrip("."))
            if inner:
                return inner
        return None
    return None if found == wanted else f"{name} was {found}, now is {wanted}"


class _Metrics:
    """RUN/metrics.jsonl: a JSON object a line. Lines of steps that will be run again are dropped."""

    def __init__(self, path: Path, kept_until: int) -> None:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if _step_of(line) <= kept_until]
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        os.replace(partial, path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def __enter__(self) -> _Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        # Half a line, left by a run that was killed while it wrote.
        return float("inf")
