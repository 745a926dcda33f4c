"""The training loop: starts or resumes a run folder, runs steps, watches and saves them."""

from __future__ import annotations

import dataclasses
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from rednet_jax.errors import RednetError
from rednet_jax.evaluate.provenance import provenance
from rednet_jax.train.checkpoints import Checkpoints
from rednet_jax.train.distributed import after_the_first, check_alike, check_shared
from rednet_jax.train.experiment import Experiment, GeneratedData, Stage
from rednet_jax.train.folder import best_nme, changed_data, claim, initial_weights
from rednet_jax.train.inputs import BatchReader, Inputs
from rednet_jax.train.lock import only_writer
from rednet_jax.train.parallel import Devices, Parallel, devices
from rednet_jax.train.report import write_report
from rednet_jax.train.state import (
    TrainState,
    check_parts,
    initial_train_state,
    learning_rate,
    stage_optimiser,
    with_weights,
)
from rednet_jax.train.trace import Trace
from rednet_jax.train.validation import validate
from rednet_jax.train.watch import JITTER, VALIDATION, RunLog
from rednet_jax.weights.store import BEST, Variables, write_weights

_STEPS_AHEAD = 2
"""Steps are dispatched without waiting for them, and each holds its batch on the device."""

_NAMED_FACES = 5
"""A broken step names so many of its faces; where all are broken, the names say nothing."""


class Pending(NamedTuple):
    """A step whose metrics are still on the device.

    Attributes:
        step: steps done with it.
        names: of this process's faces.
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
    stop_after: int | None = None,
    parallel: Parallel = "jit",
    init_from: str | None = None,
    fresh: Sequence[str] = (),
    from_step: int | None = None,
    profile: int = 0,
) -> TrainState:
    """Trains to the end of the experiment, or resumes where the run folder was left.

    The folder holds config.json, init_from.json (the weights that the run began with),
    environment.jsonl (a line for each start: command, machine, versions, mesh, data),
    metrics.jsonl, checkpoints/, pictures/, tensorboard/, report.html and best.safetensors (the
    averaged weights with the smallest validation NME at the last trained pass). SIGTERM saves a
    checkpoint and ends the run, as pre-emptible machines need. Within `distributed.joined` all
    processes call this alike.

    Args:
        experiment: what to train.
        run_dir: the run's folder, made if need be.
        data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.
        stop_after: stop after so many optimiser steps in total and save there; changes no
            schedule.
        parallel: one program over the mesh (`jit`), or one a device (`pmap`).
        init_from: checkpoint whose weights a new run begins with. The run folder records it: a run
            that is started again needs it no more, and refuses another one.
        fresh: parts of the network, such as `detection`, that begin with fresh weights beside
            those of `init_from`.
        from_step: resume from this checkpoint, once, and set newer ones aside; None for the newest
            that is intact.
        profile: write a trace of so many steps, after the first two of this call, to RUN/profile.

    Returns:
        The state at the end.

    Raises:
        RednetError: a folder of another experiment, that another process trains in or that cannot
            be written, processes that were given different experiments, options, versions or data,
            no checkpoint that can be loaded, data that cannot be read, a mesh that does not fit, a
            loss that is not finite, too few steps to profile.
    """
    state: TrainState
    options = {
        "stop-after": stop_after,
        "parallel": parallel,
        "init-from": init_from,
        "fresh": list(fresh),
        "from-step": from_step,
        "profile": profile,
    }
    here = provenance(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]), experiment.seed)
    code = {"versions": here["versions"], "git_commit": here["git_commit"]}
    # Before anything that processes do together: with other shapes they would wait forever.
    check_alike(
        experiment.to_json() | {f"--{name}": value for name, value in options.items()} | code
    )
    if stop_after is not None and stop_after < 1:
        raise RednetError(f"--stop-after must be at least 1, not {stop_after}")
    last = experiment.steps if stop_after is None else min(stop_after, experiment.steps)
    check_parts(experiment)
    placed = devices(experiment, parallel)
    if unused := jax.devices()[experiment.mesh.devices :]:
        _say(f"devices that the mesh leaves unused: {', '.join(map(str, unused))}")
    inputs = after_the_first(lambda: Inputs(experiment, data_dir))
    data = inputs.fingerprints()
    if fresh and init_from is None:
        raise RednetError("--fresh is for the parts that --init-from does not give")
    initial = initial_weights(run_dir, init_from, experiment, fresh)
    begun_with = None if initial is None else initial._asdict()
    check_alike({"data": data, "--init-from": begun_with})
    try:
        with (
            only_writer(run_dir),
            Checkpoints(run_dir / "checkpoints", experiment.keep) as checkpoints,
        ):
            if jax.process_index() == 0:
                claim(run_dir, experiment, initial)
            check_shared(run_dir, checkpoints.latest)
            resumed = checkpoints.resume(placed.abstract(), from_step)
            if resumed is None:
                begun, state, place = 0, initial_train_state(experiment), None
                if initial is not None:
                    state = with_weights(state, experiment.model, *initial)
                    beside = f"; fresh: {', '.join(initial.fresh)}" if initial.fresh else ""
                    _say(f"{run_dir}: begins with the weights of {initial.checkpoint}{beside}")
            else:
                begun, state, place = resumed
                _say(f"{run_dir}: {_resumed(begun, last, experiment)}")
            for split in changed_data(run_dir, data) if begun < last else ():
                _say(f"{run_dir}: the data differ from those of the last start; {split}")
            trace = Trace(run_dir / "profile", profile, max(last - begun, 0), _say)
            start = here | {
                "mesh": dataclasses.asdict(experiment.mesh),
                "parallel": parallel,
                "processes": jax.process_count(),
                "init_from": begun_with,
                "data": data,
            }
            stopped = False
            if begun < last:
                with _run_log(run_dir, begun, start) as log, _asked_to_stop() as stop:
                    run = _Run(
                        experiment, run_dir, placed, inputs, checkpoints, log, stop, trace, begun
                    )
                    state = run.to(last, placed.place(state), place)
                stopped = stop.is_set()
        # Who asks a run to stop does not wait long.
        if jax.process_index() == 0 and not stopped:
            write_report(run_dir)
        return state
    except OSError as error:
        raise RednetError(f"{error.filename or run_dir}: {error.strerror or error}") from error


class _Run(NamedTuple):
    """What stays the same through all steps of one call."""

    experiment: Experiment
    run_dir: Path
    devices: Devices
    inputs: Inputs
    checkpoints: Checkpoints
    log: RunLog | None
    stop: threading.Event
    trace: Trace
    begun: int

    def to(self, last: int, state: TrainState, place: dict[str, Any] | None) -> TrainState:
        """Goes on from a state, and a place of its stage's reader, until `last` steps are done."""
        done = int(self.devices.gathered(state).step)
        # Only on a terminal, and of many processes in the first.
        silent = True if jax.process_index() else None
        with tqdm(total=last, initial=done, unit="step", disable=silent, leave=False) as bar:
            while done < last and not self.stop.is_set():
                number, within = self.experiment.stage_at(done)
                reader = self.inputs.open(number)
                if within and place is not None:
                    reader.set_state(place)
                if not within and done:
                    _say(f"step {done + 1}: stage {self.experiment.stages[number].name}")
                    state = self._with_new_optimiser(number, state)
                end = min(last, done - within + self.experiment.stages[number].steps)
                state = self._through_stage(number, reader, state, done, end, bar)
                done = int(self.devices.gathered(state).step)
        self.trace.end(done, state)
        return self.devices.gathered(state)

    def _with_new_optimiser(self, number: int, state: TrainState) -> TrainState:
        fresh = jax.jit(stage_optimiser(self.experiment.stages[number]).init)
        state = self.devices.gathered(state)
        return self.devices.place(state._replace(opt_state=fresh(state.params)))

    def _through_stage(
        self, number: int, reader: BatchReader, state: TrainState, first: int, end: int, bar: tqdm
    ) -> TrainState:
        experiment, stage = self.experiment, self.experiment.stages[number]
        best = best_nme(self.run_dir, after=_first_step_like(experiment, number))
        frames = 1 if stage.clips is None else stage.clips.frames
        rate = learning_rate(stage.optimiser, stage.steps)
        pending: list[Pending] = []
        since, waited = time.perf_counter(), 0.0
        for step in range(first, end):
            done, passes = step + 1, experiment.passes(step)
            if step == first or passes != experiment.passes(step - 1):
                _say(f"step {done}: compiling for {passes} passes of the feedback loop")
            self.trace.before(done, state)
            with jax.profiler.StepTraceAnnotation("train", step_num=done):
                asked = time.perf_counter()
                batch = next(reader)
                waited += time.perf_counter() - asked
                state, measured = self.devices.step(number, passes)(state, batch)
            pending.append(Pending(done, reader.names(batch), measured))
            if len(pending) > _STEPS_AHEAD:
                jax.block_until_ready(pending[-1 - _STEPS_AHEAD].metrics)
            bar.update()
            stopping = self._stops(done)
            saved = done % experiment.evaluate_every == 0 or done == end
            if not (saved or stopping) and done % experiment.log_every:
                continue
            row = _read_out(pending, self.checkpoints, self.devices.names)
            seconds = time.perf_counter() - since
            row["learning_rate"] = float(rate(experiment.stage_at(step)[1]))
            row["frames_per_second"] = len(pending) * stage.batch * frames / seconds
            row["waiting"] = 100 * waited / seconds
            self._log(row)
            line = "loss {loss:.3f}  nme {nme:.2f} %  {frames_per_second:.0f} frames/s".format(
                **row
            )
            bar.set_postfix_str(line)
            if saved:
                best = self._save(number, done, passes, state, reader, best, line)
            elif stopping:
                self.checkpoints.save(
                    done, self.devices.gathered(state), reader.get_state(), float("inf")
                )
                _say(f"step {done}: asked to stop, saved")
            if stopping:
                self.stop.set()
                break
            pending.clear()
            since, waited = time.perf_counter(), 0.0
        return state

    def _save(
        self,
        number: int,
        done: int,
        passes: int,
        state: TrainState,
        reader: BatchReader,
        best: float,
        line: str,
    ) -> float:
        """Validates, keeps the weights if they are the best, and saves; returns the best NME."""
        state = self.devices.gathered(state)
        average = whole(state.average)
        found = validate(self.experiment.model, average, self.inputs.validation(number), passes)
        nme = found.nme
        if not np.isfinite(nme).all():
            raise _broken(f"validation NME is not finite at step {done}", self.checkpoints)
        jitter = {} if found.jitter is None else {JITTER: found.jitter}
        self._log({"step": done, VALIDATION: nme, **jitter})
        if self.log is not None:
            self.log.images(done, found.shown)
        # Before the checkpoint: one without its weights would never be written again.
        if nme[-1] < best:
            best = nme[-1]
            if jax.process_index() == 0:
                write_weights(self.run_dir / BEST, self.experiment.model, average)
        self.checkpoints.save(done, state, reader.get_state(), nme[-1])
        by_pass = " ".join(f"{value:.2f}" for value in nme)
        shake = "" if found.jitter is None else f"  jitter {found.jitter[-1]:.2f} %"
        _say(f"step {done}/{self.experiment.steps}  {line}  validation nme {by_pass} %{shake}")
        return best

    def _stops(self, done: int) -> bool:
        """Whether the run was asked to stop; of many processes all agree on the step."""
        if jax.process_count() > 1:
            # From 1 in every process: of a signal before the first call JAX makes the call 1.
            return bool(multihost_utils.reached_preemption_sync_point(done - self.begun))
        return self.stop.is_set()

    def _log(self, row: dict[str, Any]) -> None:
        if self.log is not None:
            self.log.write(row)


def _resumed(found: int, last: int, experiment: Experiment) -> str:
    """What is said of a run that has a checkpoint."""
    if found >= experiment.steps:
        return f"finished, all {experiment.steps} steps are done"
    if found >= last:
        return f"step {found} is done, no step is left of --stop-after {last}"
    return f"resumes at step {found}"


def _first_step_like(experiment: Experiment, number: int) -> int:
    """Steps before the first of the stages up to this one that validate on the same faces."""

    def faces(stage: Stage) -> object:
        return stage.data if isinstance(stage.data, GeneratedData) else stage.data.validation

    stages = experiment.stages
    while number and faces(stages[number - 1]) == faces(stages[number]):
        number -= 1
    return sum(stage.steps for stage in stages[:number])


def whole(variables: Variables) -> Variables:
    """Returns weights as host arrays, of a tree that may lie on the devices of many processes."""

    def one(leaf: jax.Array) -> Any:
        if leaf.is_fully_addressable:
            return leaf
        return multihost_utils.process_allgather(leaf, tiled=True)

    host: Variables = jax.device_get(jax.tree.map(one, variables))
    return host


@contextmanager
def _run_log(run_dir: Path, kept_until: int, start: dict[str, Any]) -> Iterator[RunLog | None]:
    """Yields the run's log; of many processes the first one writes it, and the others get None."""
    if jax.process_index():
        yield None
        return
    with RunLog(run_dir, kept_until, start) as log:
        yield log


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """Yields what SIGTERM sets; of many processes JAX listens for it, see `_Run._stops`."""
    stop = threading.Event()
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(line: str) -> None:
    if jax.process_index() == 0:
        tqdm.write(line)


def _read_out(
    pending: list[Pending],
    checkpoints: Checkpoints,
    of_all: Callable[[list[str]], list[str]] = list,
) -> dict[str, float]:
    """The newest step's metrics as numbers; every step since the last call is checked.

    `of_all` is `Devices.names`: where one process finds a face broken, so do all.
    """
    fetched = jax.device_get([one.metrics for one in pending])
    for one, metrics in zip(pending, fetched, strict=True):
        finite = np.isfinite(metrics["loss_of_face"])
        if finite.all() and np.isfinite(metrics["gradient_norm"]):
            continue
        names = of_all(one.names)
        broken = [name for name, good in zip(names, finite, strict=True) if not good]
        more = f" and {len(broken) - _NAMED_FACES} more" if len(broken) > _NAMED_FACES else ""
        where = ", ".join(broken[:_NAMED_FACES]) + more or "none by itself"
        what = f"loss or gradient is not finite at step {one.step}, faces: {where}"
        raise _broken(what, checkpoints)
    newest = {name: float(value) for name, value in fetched[-1].items() if np.ndim(value) == 0}
    return {"step": pending[-1].step, **newest}


def _broken(what: str, checkpoints: Checkpoints) -> RednetError:
    """A run that cannot continue, and where it can be resumed."""
    kept = checkpoints.latest
    where = "no checkpoint yet" if kept is None else f"last good checkpoint: step {kept}"
    return RednetError(f"{what}; {where}")
