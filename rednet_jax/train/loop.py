"""The training loop: a run folder is begun or resumed, steps are run, watched and saved."""

from __future__ import annotations

import functools
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from rednet_jax.errors import RednetError
from rednet_jax.evaluate.metrics import face_errors, measurable
from rednet_jax.evaluate.protocols import Crops, align_crops, in_picture
from rednet_jax.files import write_text
from rednet_jax.train.checkpoints import Checkpoints
from rednet_jax.train.experiment import Experiment
from rednet_jax.train.inputs import BatchReader, open_batches, validation_crops
from rednet_jax.train.state import TrainState, initial_train_state
from rednet_jax.train.step import train_step
from rednet_jax.weights.store import BEST, Variables, write_weights

_STEPS_AHEAD = 2

_NAMED_FACES = 5
"""A broken step names so many of its faces; where all are broken, the names say nothing."""


class Pending(NamedTuple):
    """A step whose metrics are still on the device.

    Attributes:
        step: steps done with it.
        names: of its faces.
        metrics: of `train_step`.
    """

    step: int
    names: list[str]
    metrics: dict[str, jax.Array]


def train(
    experiment: Experiment,
    run_dir: Path,
    *,
    data_dir: Path | None = None,
    steps: int | None = None,
) -> TrainState:
    """Trains to the end of the experiment, or resumes where the run folder was left.

    The folder holds config.json, metrics.jsonl, checkpoints/ and best.safetensors (the averaged
    weights with the smallest validation NME at the last trained pass).

    Args:
        experiment: what to train.
        run_dir: the run's folder, made if need be.
        data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.
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
    validation = validation_crops(experiment, data_dir)
    reader = open_batches(experiment, data_dir)
    _claim(run_dir, experiment)
    try:
        with Checkpoints(run_dir / "checkpoints", experiment.keep) as checkpoints:
            if (found := checkpoints.latest) is None:
                state = initial_train_state(experiment)
            else:
                like = jax.eval_shape(functools.partial(initial_train_state, experiment))
                state, place = checkpoints.load(found, like)
                reader.set_state(place)
                print(f"{run_dir}: goes on at step {found}", flush=True)
            # Committed to the device in either case: one program, whether begun or resumed.
            state = jax.device_put(state, jax.devices()[0])
            with _Metrics(run_dir / "metrics.jsonl", kept_until=found or 0) as metrics:
                return _run(
                    experiment, run_dir, state, last, reader, validation, checkpoints, metrics
                )
    except OSError as error:
        raise RednetError(f"{error.filename or run_dir}: {error.strerror or error}") from error


def _run(
    experiment: Experiment,
    run_dir: Path,
    state: TrainState,
    last: int,
    reader: BatchReader,
    validation: Crops,
    checkpoints: Checkpoints,
    metrics: _Metrics,
) -> TrainState:
    first = int(state.step)
    best = checkpoints.best_nme
    pending: list[Pending] = []
    since, waited = time.perf_counter(), 0.0
    with tqdm(total=last, initial=first, unit="step", disable=None, leave=False) as bar:
        for step in range(first, last):
            done, passes = step + 1, _passes(experiment, step)
            if step == first or passes != _passes(experiment, step - 1):
                tqdm.write(f"step {done}: compiling for {passes} passes of the feedback loop")
            asked = time.perf_counter()
            batch = next(reader)
            waited += time.perf_counter() - asked
            state, measured = train_step(experiment, passes, state, batch)
            pending.append(Pending(done, reader.names(batch), measured))
            if len(pending) > _STEPS_AHEAD:
                # Steps are dispatched without waiting, and each holds its batch on the device.
                jax.block_until_ready(pending[-1 - _STEPS_AHEAD].metrics)
            bar.update()
            saved = done % experiment.evaluate_every == 0 or done == last
            if not saved and done % experiment.log_every:
                continue
            row = _read_out(pending, checkpoints)
            seconds = time.perf_counter() - since
            row["images_per_second"] = len(pending) * experiment.batch / seconds
            row["waiting"] = 100 * waited / seconds
            metrics.write(row)
            line = "loss {loss:.3f}  nme {nme:.2f} %  {images_per_second:.0f} images/s".format(
                **row
            )
            bar.set_postfix_str(line)
            if saved:
                nme = validation_nme(experiment, state.average, validation, passes)
                if not np.isfinite(nme).all():
                    raise _broken(f"validation NME is not finite at step {done}", checkpoints)
                metrics.write({"step": done, "validation_nme": nme})
                # Before the checkpoint: one without its weights would never be written again.
                if nme[-1] < best:
                    best = nme[-1]
                    write_weights(run_dir / BEST, experiment.model, state.average)
                checkpoints.save(done, state, reader.get_state(), nme[-1])
                by_pass = " ".join(f"{value:.2f}" for value in nme)
                tqdm.write(f"step {done}/{last}  {line}  validation nme {by_pass} %")
            pending.clear()
            since, waited = time.perf_counter(), 0.0
    return state


def validation_nme(
    experiment: Experiment, variables: Variables, crops: Crops, passes: int
) -> list[float]:
    """Returns the NME after each of the passes, percent; nan where a landmark is not finite.

    Args:
        experiment: of the network.
        variables: the averaged weights.
        crops: validation faces, truth boxes.
        passes: K.
    """
    landmarks = in_picture(crops, align_crops(experiment.model, variables, crops.images, passes))
    known = measurable(crops.labelled)
    return [
        float(face_errors(one, crops.landmarks, crops.labelled)[known].mean()) for one in landmarks
    ]


def _passes(experiment: Experiment, step: int) -> int:
    return 1 if step < experiment.one_pass_steps else experiment.model.feedback_steps


def _read_out(pending: list[Pending], checkpoints: Checkpoints) -> dict[str, float]:
    """The newest step's metrics as numbers; every step since the last call is checked."""
    fetched = jax.device_get([one.metrics for one in pending])
    for one, metrics in zip(pending, fetched, strict=True):
        finite = np.isfinite(metrics["loss_of_face"])
        if finite.all() and np.isfinite(metrics["gradient_norm"]):
            continue
        broken = [name for name, good in zip(one.names, finite, strict=True) if not good]
        more = f" and {len(broken) - _NAMED_FACES} more" if len(broken) > _NAMED_FACES else ""
        where = ", ".join(broken[:_NAMED_FACES]) + more or "none by itself"
        what = f"loss or gradient is not finite at step {one.step}, faces: {where}"
        raise _broken(what, checkpoints)
    newest = {name: float(value) for name, value in fetched[-1].items() if np.ndim(value) == 0}
    return {"step": pending[-1].step, **newest}


def _broken(what: str, checkpoints: Checkpoints) -> RednetError:
    """A run that cannot go on, and where it can be taken up again."""
    kept = checkpoints.latest
    where = "no checkpoint yet" if kept is None else f"last good checkpoint: step {kept}"
    return RednetError(f"{what}; {where}")


def _claim(run_dir: Path, experiment: Experiment) -> None:
    """Makes the folder this experiment's, or refuses one that is another's."""
    config = run_dir / "config.json"
    wanted = experiment.to_json()
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        write_text(config, json.dumps(wanted, indent=2) + "\n")
        return
    except OSError as error:
        raise RednetError(f"{config}: cannot be read ({error.strerror})") from error
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
    """RUN/metrics.jsonl: a JSON object a line. Lines of steps that are run again are dropped."""

    def __init__(self, path: Path, kept_until: int) -> None:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if _step_of(line) <= kept_until]
        write_text(path, "".join(f"{line}\n" for line in kept))
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
