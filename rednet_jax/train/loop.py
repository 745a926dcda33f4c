"""The training loop: starts or resumes the run of a folder, and trains it to the end."""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax

from rednet_jax.errors import RednetError
from rednet_jax.evaluate.provenance import provenance
from rednet_jax.files import set_aside
from rednet_jax.train.checkpoints import Checkpoints, result_of_process_0
from rednet_jax.train.distributed import after_the_first, check_alike, check_shared
from rednet_jax.train.experiment import Experiment
from rednet_jax.train.folder import changed_data, claim, initial_weights
from rednet_jax.train.inputs import Inputs
from rednet_jax.train.lock import only_writer
from rednet_jax.train.parallel import Parallel, devices
from rednet_jax.train.report import write_report
from rednet_jax.train.session import Session, on_host, say
from rednet_jax.train.state import TrainState, check_parts, initial_train_state, with_weights
from rednet_jax.train.trace import Trace, check_trace
from rednet_jax.train.watch import METRICS, RunLog, best_of, read_rows
from rednet_jax.weights.store import BEST, write_weights


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
    """Trains to the end of the experiment, resuming from the checkpoints in the run folder.

    The folder holds config.json, init_from.json (the checkpoint of the initial weights, or null),
    environment.jsonl (a line for each start: command, machine, versions, mesh, data),
    metrics.jsonl, checkpoints/, images/, tensorboard/, report.html and best.safetensors (the
    averaged weights with the smallest validation NME at the last trained pass). On SIGTERM, which
    preempted machines get, and on Ctrl-C a checkpoint is saved and the run stops. Within
    `distributed.joined`, all processes must call this with the same arguments.

    Args:
        experiment: of the run.
        run_dir: the run's folder, created if it does not exist.
        data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.
        stop_after: save and stop after this number of optimiser steps of the run; schedules and
            validations do not change.
        parallel: one program over the mesh (`jit`), or one per device (`pmap`).
        init_from: checkpoint with the initial weights of a new run. The run folder records it, so
            a run that is started again does not need it; another checkpoint is an error.
        fresh: parts of the network, such as `detection`, that are initialised instead of taken
            from `init_from`.
        from_step: resume from this checkpoint, once, and set newer ones aside; None for the newest
            that is intact.
        profile: number of steps to trace to RUN/profile, after the first two of this call.

    Returns:
        The state at the end.

    Raises:
        RednetError: the folder belongs to another experiment, another process trains in it, or it
            cannot be written; processes have different experiments, options, versions or data; no
            checkpoint can be loaded; data cannot be read; the mesh does not fit the devices; a
            loss is not finite; or too few steps are left to profile.
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
    origin = provenance(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]), experiment.seed)
    code = {"versions": origin["versions"], "git_commit": origin["git_commit"]}
    # Before any other collective: with different shapes, processes would wait forever.
    check_alike(
        experiment.to_json() | {f"--{name}": value for name, value in options.items()} | code
    )
    if stop_after is not None and stop_after < 1:
        raise RednetError(f"--stop-after must be at least 1, not {stop_after}")
    last = experiment.steps if stop_after is None else min(stop_after, experiment.steps)
    check_parts(experiment)
    placed = devices(experiment, parallel)
    if unused := jax.devices()[experiment.mesh.devices :]:
        say(f"devices that the mesh leaves unused: {', '.join(map(str, unused))}")
    # All errors of options are found before the data, which may have to be cropped first.
    check_trace(profile, last)
    if fresh and init_from is None:
        raise RednetError("--fresh needs --init-from")
    initial = initial_weights(run_dir, init_from, experiment, fresh)
    inputs = after_the_first(lambda: Inputs(experiment, data_dir))
    data = inputs.fingerprints()
    initial_record = None if initial is None else initial._asdict()
    check_alike({"data": data, "--init-from": initial_record})

    def form_of_step(step: int) -> TrainState:
        """Returns shapes and types of the checkpoint of a step, by its stage's optimiser."""
        # The folder may have checkpoints of a longer run.
        number, _ = experiment.stage_at(min(step, experiment.steps) - 1)
        return placed.abstract(number)

    try:
        with (
            only_writer(run_dir),
            Checkpoints(run_dir / "checkpoints", experiment.keep) as checkpoints,
        ):
            if jax.process_index() == 0:
                claim(run_dir, experiment, initial)
            check_shared(run_dir, checkpoints.latest)
            resumed = checkpoints.resume(form_of_step, from_step)
            if resumed is None:
                initial_step, state, position = 0, initial_train_state(experiment), None
                if initial is not None:
                    state = with_weights(state, experiment.model, *initial)
                    except_parts = f"; fresh: {', '.join(initial.fresh)}" if initial.fresh else ""
                    say(f"{run_dir}: starts from the weights of {initial.checkpoint}{except_parts}")
            else:
                initial_step, state, position = resumed
                say(f"{run_dir}: {_progress(initial_step, last, experiment)}")
            for split in changed_data(run_dir, data) if initial_step < last else ():
                say(f"{run_dir}: the data differ from those of the last start; {split}")
            trace = Trace(run_dir / "profile", profile, max(last - initial_step, 0), say)
            start = origin | {
                "mesh": dataclasses.asdict(experiment.mesh),
                "parallel": parallel,
                "processes": jax.process_count(),
                "init_from": initial_record,
                "data": data,
            }
            stopped = False
            if initial_step < last:
                _restore_best(run_dir, experiment, checkpoints, form_of_step, initial_step)
                with _run_log(run_dir, initial_step, start) as log, _stop_on_signals() as stop:
                    session = Session(
                        experiment,
                        run_dir,
                        placed,
                        inputs,
                        checkpoints,
                        log,
                        stop,
                        trace,
                        initial_step,
                    )
                    state = session.run(last, placed.place(state), position)
                stopped = stop.is_set()
        # Not after a signal: the process may be killed soon.
        if jax.process_index() == 0 and not stopped:
            write_report(run_dir)
        return state
    except OSError as error:
        raise RednetError(f"{error.filename or run_dir}: {error.strerror or error}") from error


def _progress(done: int, last: int, experiment: Experiment) -> str:
    """Returns a message about a run with a newest checkpoint of step `done`."""
    if done >= experiment.steps:
        return f"finished, all {experiment.steps} steps are done"
    if done >= last:
        return f"step {done} is done, no step is left of --stop-after {last}"
    return f"resumes at step {done}"


def _restore_best(
    run_dir: Path,
    experiment: Experiment,
    checkpoints: Checkpoints,
    form_of_step: Callable[[int], TrainState],
    done: int,
) -> None:
    """Replaces the best weights if they are those of a step that runs again.

    The new ones are those of the best step before, from its checkpoint. If that does not exist any
    more, the file is renamed, and written again once the NME is smaller than at that step.

    Args:
        run_dir: the run's folder, with the metrics of all steps.
        experiment: of the run.
        checkpoints: of the run.
        form_of_step: returns the expected tree of a step's checkpoint.
        done: steps done by the state that the run resumes with.
    """

    def best_steps() -> list[int]:
        rows = read_rows(run_dir / METRICS)
        kept = [row for row in rows if row["step"] <= done]
        bests = (best_of(each, experiment.to_json()["stages"]) for each in (rows, kept))
        return [0 if best is None else best[1] for best in bests]

    newest, before = result_of_process_0(best_steps)
    if newest <= done:
        return
    average = None
    if before:
        with suppress(RednetError):
            average = on_host(checkpoints.load(before, form_of_step(before))[0].average)
    best = run_dir / BEST
    if jax.process_index():
        return
    reason = f"because step {newest} runs again"
    if average is not None:
        write_weights(best, experiment.model, average)
        say(f"{best}: now has the weights of step {before}, {reason}")
    elif best.exists():
        aside = set_aside(best, "superseded")
        gone = f", and there is no intact checkpoint of the best step before, {before}"
        say(f"{best}: renamed to {aside.name}, {reason}{gone if before else ''}")


@contextmanager
def _run_log(run_dir: Path, kept_until: int, start: dict[str, Any]) -> Iterator[RunLog | None]:
    """Yields the run's log in process 0, which writes it, and None in the others."""
    if jax.process_index():
        yield None
        return
    with RunLog(run_dir, kept_until, start) as log:
        yield log


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """Yields an event that SIGTERM or the first Ctrl-C sets; the second Ctrl-C stops at once.

    With many processes JAX handles SIGTERM instead, and Ctrl-C stops at once.
    """
    stop = threading.Event()
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def interrupt(number: int, frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before[signal.SIGINT])
        # `print` may not be called in a handler that interrupts a `print`.
        os.write(2, b"\nstops after this step, with a checkpoint; Ctrl-C again stops at once\n")

    before = {signal.SIGINT: signal.signal(signal.SIGINT, interrupt)}
    before[signal.SIGTERM] = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
