"""One call of `train`: runs steps, logs, validates and saves, stage by stage."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from rednet_jax.errors import RednetError
from rednet_jax.train.checkpoints import Checkpoints
from rednet_jax.train.experiment import Experiment
from rednet_jax.train.folder import best_nme
from rednet_jax.train.inputs import BatchReader, Inputs
from rednet_jax.train.parallel import Devices
from rednet_jax.train.state import TrainState, learning_rate, stage_optimiser
from rednet_jax.train.trace import Trace
from rednet_jax.train.validation import validate
from rednet_jax.train.watch import JITTER, VALIDATION, RunLog, comparable_after
from rednet_jax.weights.store import BEST, Variables, write_weights

_STEPS_AHEAD = 2
"""Steps are dispatched without waiting for them, and each holds its batch on the device."""

_NAMED_FACES = 5
"""So many faces of a step with non-finite values are named."""


class PendingStep(NamedTuple):
    """A step with metrics that are still on the device.

    Attributes:
        step: its number, counted from 1.
        names: of the faces of this process's batch.
        metrics: of `train_step`.
    """

    step: int
    names: list[str]
    metrics: dict[str, jax.Array]


class Session(NamedTuple):
    """One call of `train`: its options, and the objects that all of its steps use.

    Attributes:
        experiment: of the run.
        run_dir: the run's folder.
        devices: of the mesh.
        inputs: of the run.
        checkpoints: of the run.
        log: of the run; None in processes other than 0.
        stop: set when the run is to stop after the current step.
        trace: of the profiler.
        initial_step: steps done before the call.
    """

    experiment: Experiment
    run_dir: Path
    devices: Devices
    inputs: Inputs
    checkpoints: Checkpoints
    log: RunLog | None
    stop: threading.Event
    trace: Trace
    initial_step: int

    def run(self, last: int, state: TrainState, position: dict[str, Any] | None) -> TrainState:
        """Runs steps until `last` are done or the run is stopped; returns the state then.

        Args:
            last: steps done at the end, counted from the beginning of the run.
            state: on the devices of the mesh.
            position: of the reader of the state's stage; None for its first batch.
        """
        done = int(self.devices.gathered(state).step)
        # None: only on a terminal.
        disable = True if jax.process_index() else None
        with tqdm(total=last, initial=done, unit="step", disable=disable, leave=False) as bar:
            while done < last and not self.stop.is_set():
                number, within = self.experiment.stage_at(done)
                reader = self.inputs.open(number)
                if within and position is not None:
                    reader.set_state(position)
                if not within and done:
                    say(f"step {done + 1}: stage {self.experiment.stages[number].name}")
                    state = self._with_new_optimiser(number, state)
                end = min(last, done - within + self.experiment.stages[number].steps)
                state = self._run_stage(number, reader, state, done, end, bar)
                done = int(self.devices.gathered(state).step)
        self.trace.end(done, state)
        return self.devices.gathered(state)

    def _with_new_optimiser(self, number: int, state: TrainState) -> TrainState:
        init = jax.jit(stage_optimiser(self.experiment.stages[number]).init)
        state = self.devices.gathered(state)
        return self.devices.place(state._replace(opt_state=init(state.params)))

    def _run_stage(
        self, number: int, reader: BatchReader, state: TrainState, first: int, end: int, bar: tqdm
    ) -> TrainState:
        """Runs the steps of a stage from `first`, counted from 0, until `end` steps are done."""
        experiment, stage = self.experiment, self.experiment.stages[number]
        comparable = comparable_after(experiment.to_json()["stages"], number)
        best = best_nme(self.run_dir, after=comparable)
        frames = 1 if stage.clips is None else stage.clips.frames
        rate = learning_rate(stage.optimiser, stage.steps)
        pending: list[PendingStep] = []
        logged, waited = time.perf_counter(), 0.0
        end_of_stage = sum(each.steps for each in experiment.stages[: number + 1])
        for step in range(first, end):
            done, passes = step + 1, experiment.passes(step)
            if step == first or passes != experiment.passes(step - 1):
                say(f"step {done}: compiling for {passes} passes of the feedback loop")
            self.trace.before(done, state)
            with jax.profiler.StepTraceAnnotation("train", step_num=done):
                requested = time.perf_counter()
                batch = next(reader)
                waited += time.perf_counter() - requested
                state, metrics = self.devices.step(number, passes)(state, batch)
            pending.append(PendingStep(done, reader.names(batch), metrics))
            if len(pending) > _STEPS_AHEAD:
                jax.block_until_ready(pending[-1 - _STEPS_AHEAD].metrics)
            bar.update()
            stopping = self._is_stopping(done)
            # Not where --stop-after ends this call: an uninterrupted run does not choose its best
            # weights there.
            validating = done % experiment.evaluate_every == 0 or done == end_of_stage
            saving = stopping or done == end
            if not (validating or saving) and done % experiment.log_every:
                continue
            row = checked_metrics(pending, self.checkpoints, self.devices.names)
            seconds = time.perf_counter() - logged
            row["learning_rate"] = float(rate(experiment.stage_at(step)[1]))
            row["frames_per_second"] = len(pending) * stage.batch * frames / seconds
            row["waiting"] = 100 * waited / seconds
            self._log(row)
            line = "loss {loss:.3f}  nme {nme:.2f} %  {frames_per_second:.0f} frames/s".format(
                **row
            )
            bar.set_postfix_str(line)
            if validating:
                best = self._validate_and_save(number, done, passes, state, reader, best, line)
            elif saving:
                self.checkpoints.save(
                    done, self.devices.gathered(state), reader.get_state(), float("inf")
                )
                say(f"step {done}: stopped, checkpoint saved")
            if stopping:
                self.stop.set()
                break
            pending.clear()
            logged, waited = time.perf_counter(), 0.0
        return state

    def _validate_and_save(
        self,
        number: int,
        done: int,
        passes: int,
        state: TrainState,
        reader: BatchReader,
        best: float,
        line: str,
    ) -> float:
        """Validates, writes the weights if they are the best, and saves; returns the best NME."""
        state = self.devices.gathered(state)
        average = on_host(state.average)
        result = validate(self.experiment.model, average, self.inputs.validation(number), passes)
        nme = result.nme
        if not np.isfinite(nme).all():
            raise _not_finite(f"validation NME is not finite at step {done}", self.checkpoints)
        jitter = {} if result.jitter is None else {JITTER: result.jitter}
        self._log({"step": done, VALIDATION: nme, **jitter})
        if self.log is not None:
            self.log.images(done, result.shown)
        # Before the checkpoint: a run that resumes from it would not write these weights again.
        if nme[-1] < best:
            best = nme[-1]
            if jax.process_index() == 0:
                write_weights(self.run_dir / BEST, self.experiment.model, average)
        self.checkpoints.save(done, state, reader.get_state(), nme[-1])
        by_pass = " ".join(f"{value:.2f}" for value in nme)
        shown_jitter = "" if result.jitter is None else f"  jitter {result.jitter[-1]:.2f} %"
        say(
            f"step {done}/{self.experiment.steps}  {line}  validation nme {by_pass} %{shown_jitter}"
        )
        return best

    def _is_stopping(self, done: int) -> bool:
        """Returns whether the run stops after this step, the same in all processes."""
        if jax.process_count() > 1:
            # Counted from 1 in this call: JAX takes a signal before the first call as step 1.
            return bool(multihost_utils.reached_preemption_sync_point(done - self.initial_step))
        return self.stop.is_set()

    def _log(self, row: dict[str, Any]) -> None:
        if self.log is not None:
            self.log.write(row)


def say(line: str) -> None:
    """Prints a line above the progress bar, in process 0."""
    if jax.process_index() == 0:
        tqdm.write(line)


def on_host(variables: Variables) -> Variables:
    """Returns weights as host arrays; they may be sharded over the devices of many processes."""

    def addressable(leaf: jax.Array) -> Any:
        if leaf.is_fully_addressable:
            return leaf
        return multihost_utils.process_allgather(leaf, tiled=True)

    host: Variables = jax.device_get(jax.tree.map(addressable, variables))
    return host


def checked_metrics(
    pending: list[PendingStep],
    checkpoints: Checkpoints,
    gather_names: Callable[[list[str]], list[str]] = list,
) -> dict[str, float]:
    """Returns the scalar metrics of the newest step, after checking all pending steps.

    Args:
        pending: the steps since the last call.
        checkpoints: of the run.
        gather_names: `Devices.names`; all processes find the same faces, and all call it.

    Raises:
        RednetError: loss or gradient of a step is not finite; names its faces.
    """
    fetched = jax.device_get([step.metrics for step in pending])
    for step, metrics in zip(pending, fetched, strict=True):
        finite = np.isfinite(metrics["loss_of_face"])
        if finite.all() and np.isfinite(metrics["gradient_norm"]):
            continue
        names = gather_names(step.names)
        broken = [name for name, good in zip(names, finite, strict=True) if not good]
        more = f" and {len(broken) - _NAMED_FACES} more" if len(broken) > _NAMED_FACES else ""
        faces = ", ".join(broken[:_NAMED_FACES]) + more or "none"
        message = f"loss or gradient is not finite at step {step.step}, faces: {faces}"
        raise _not_finite(message, checkpoints)
    newest = {name: float(value) for name, value in fetched[-1].items() if np.ndim(value) == 0}
    return {"step": pending[-1].step, **newest}


def _not_finite(message: str, checkpoints: Checkpoints) -> RednetError:
    """Returns an error with the step that the run can be resumed from."""
    latest = checkpoints.latest
    resumable = "no checkpoint yet" if latest is None else f"last good checkpoint: step {latest}"
    return RednetError(f"{message}; {resumable}")
