"""Checkpoints of a run, written and read by Orbax."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp
from tqdm import tqdm

from rednet_jax.errors import RednetError
from rednet_jax.files import set_aside, write_text, writing
from rednet_jax.reading import read_json
from rednet_jax.train.checkpoint_files import DIGESTS as DIGESTS
from rednet_jax.train.checkpoint_files import damage as damage
from rednet_jax.train.checkpoint_files import error_cause, read_position, write_digests
from rednet_jax.train.checkpoint_files import unreadable as unreadable
from rednet_jax.train.orbax_messages import silenced_hooks
from rednet_jax.train.state import TrainState

_Policies = ocp.training.preservation_policies

WENT_BACK = "from_step.json"
"""Name of the file with the step that the run was last taken back to."""

_PENDING = ".orbax-checkpoint-tmp"
_SECONDS_TO_END = 0.3


class Resumed(NamedTuple):
    """A checkpoint that a run resumes from.

    Attributes:
        step: of the checkpoint.
        state: of the checkpoint.
        reader: position of the reader of batches.
    """

    step: int
    state: TrainState
    reader: dict[str, Any]


class _NotRestoredError(RednetError):
    def __init__(self, folder: Path, cause: str) -> None:
        super().__init__(f"{folder}: cannot be restored ({cause})")
        self.cause = cause


class Checkpoints:
    """The folder RUN/checkpoints: the latest checkpoints, and the best by validation NME.

    A checkpoint is renamed to the number of its step when it is complete. An incomplete one has a
    temporary name and is ignored. If a checkpoint cannot be written, for example to a full disk,
    the next method call raises a RednetError; earlier checkpoints remain. Each checkpoint holds the
    digests of its files, which are verified when it is loaded. Checkpoints of earlier versions
    without digests are loaded without verification.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        """Opens the folder, and creates it if it does not exist.

        Args:
            folder: of the checkpoints.
            keep: how many of the latest checkpoints are kept, in addition to the best.

        Raises:
            RednetError: the folder cannot be created.
        """
        self._folder, self._keep = folder.absolute(), keep
        self._saving: tuple[int, dict[str, Any]] | None = None
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)

    @functools.cached_property
    def _checkpointer(self) -> ocp.training.Checkpointer:
        # Created when the first checkpoint is saved: it reads the metrics of all checkpoints, so
        # damaged ones must have been set aside before.
        context = ocp.Context()
        # Called when all files are written, before the folder is renamed to its step. Not a bound
        # method: Orbax copies its options, and would copy this object with it.
        context.async_options.post_finalization_callback = lambda: self._write_digests()
        return ocp.training.Checkpointer(
            self._folder,
            context=context,
            # The default policy drops a save while another one is being written.
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=_Policies.AnyPreservationPolicy(
                [
                    _Policies.LatestN(self._keep),
                    _Policies.BestN(
                        get_metric_fn=lambda metrics: metrics["nme"], n=1, reverse=True
                    ),
                ]
            ),
            cleanup_tmp_directories=True,
        )

    @property
    def latest(self) -> int | None:
        """Step of the newest checkpoint, after pending writes; None if there is none."""
        self._wait()
        return max(self._steps(), default=None)

    def save(self, step: int, state: TrainState, reader: dict[str, Any], nme: float) -> None:
        """Copies the state to the host and writes it while training continues.

        Args:
            step: number of the checkpoint.
            state: its buffers may be donated as soon as this returns.
            reader: position of the reader of batches, JSON values.
            nme: validation NME of the averaged weights, percent; infinity if it was not measured.

        Raises:
            RednetError: the checkpoint before could not be written.
        """
        self._wait()
        with self._writing():
            self._saving = step, reader
            self._checkpointer.save_async(
                step, state, force=True, metrics={"nme": nme}, custom_metadata={"reader": reader}
            )

    def load(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Reads a checkpoint.

        Args:
            step: of the checkpoint.
            like: the expected tree, of `jax.ShapeDtypeStruct`, with the shardings to load into,
                which may differ from those that were saved.

        Returns:
            The state, and the position of the reader.

        Raises:
            RednetError: there is no checkpoint of that step, it is damaged, or it is of another
                network.
        """
        self._wait()
        if step not in self._steps():
            steps = ", ".join(map(str, self._steps())) or "none"
            raise RednetError(f"{self._folder}: no checkpoint of step {step}; there are: {steps}")
        if cause := result_of_process_0(lambda: damage(self._folder / str(step))):
            raise RednetError(f"{self._folder}/{step}: damaged ({cause})")
        return self._restored(step, like)

    def resume(
        self, like: Callable[[int], TrainState], from_step: int | None = None
    ) -> Resumed | None:
        """Reads the checkpoint that the run resumes from: the newest intact one, or a given one.

        Damaged checkpoints are renamed to STEP.damaged, with a warning; nothing is deleted. With
        `from_step`, all newer checkpoints are renamed to STEP.superseded. A run is taken back to a
        step once: a job requeued with the same command resumes from its newest step.

        Args:
            like: returns the expected tree of a step's checkpoint, as in `load`.
            from_step: the step to resume from; None for the newest.

        Returns:
            The checkpoint, or None if there are no checkpoints.

        Raises:
            RednetError: there are checkpoints and none can be loaded; with `from_step`, there is
                no checkpoint of that step, or it is damaged.
        """
        if from_step is not None and not self._went_back_to(from_step):
            state, reader = self.load(from_step, like(from_step))
            # Process 0 may rename them before another process lists the folder.
            steps = result_of_process_0(self._steps)
            later = [step for step in steps if step > from_step]
            self._set_aside(dict.fromkeys(later, "superseded"), "superseded", from_step)
            if jax.process_index() == 0:
                write_text(self._folder / WENT_BACK, json.dumps({"step": from_step}) + "\n")
            return Resumed(from_step, state, reader)
        damaged: dict[int, str] = {}
        resumed = None
        for step, cause in result_of_process_0(self._damage_of_steps):
            if cause is None and resumed is None:
                try:
                    resumed = Resumed(step, *self._restored(step, like(step)))
                except _NotRestoredError as error:
                    cause = error.cause
            if cause is not None:
                damaged[step] = cause
        if resumed is None:
            if damaged:
                newest = max(damaged)
                raise RednetError(
                    f"{self._folder}/{newest}: damaged ({damaged[newest]}), and no other "
                    "checkpoint of the run can be loaded"
                )
            return None
        reasons = {step: f"damaged ({cause})" for step, cause in damaged.items()}
        self._set_aside(reasons, "damaged", resumed.step)
        return resumed

    def _damage_of_steps(self) -> list[tuple[int, str | None]]:
        """Returns the steps, from the newest on, and what is wrong with each.

        Digests are compared down to the newest checkpoint that they show to be intact.
        """
        causes: list[tuple[int, str | None]] = []
        check = damage
        for step in reversed(self._steps()):
            folder = self._folder / str(step)
            cause = check(folder)
            causes.append((step, cause))
            if cause is None and (folder / DIGESTS).exists():
                check = unreadable
        return causes

    def _steps(self) -> list[int]:
        return sorted(
            int(path.name)
            for path in self._folder.iterdir()
            # A user's folder may have another numeral for its name, such as 007.
            if path.name.isdecimal() and path.name == str(int(path.name)) and path.is_dir()
        )

    def _went_back_to(self, step: int) -> bool:
        try:
            record = read_json(self._folder / WENT_BACK)
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            raise RednetError(f"{self._folder / WENT_BACK}: cannot be read ({error})") from error
        if record != {"step": step}:
            return False
        _warn(
            f"{self._folder}: the run was taken back to step {step} before, and resumes from its "
            f"newest checkpoint; delete {self._folder / WENT_BACK} to go back again"
        )
        return True

    def _restored(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        folder = self._folder / str(step)
        with silenced_hooks():
            try:
                state: TrainState = ocp.load(folder, like)
                return state, read_position(folder)
            except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
                cause = error_cause(error)
            # Each unfinished task of Orbax prints a traceback when it is collected.
            gc.collect()
            time.sleep(_SECONDS_TO_END)
        raise _NotRestoredError(folder, cause)

    def _set_aside(self, steps: dict[int, str], kind: str, resumed: int) -> None:
        """Renames checkpoints to STEP.KIND, in process 0; the other processes wait for it.

        Args:
            steps: of the checkpoints, and the reason for each.
            kind: suffix of the new name.
            resumed: step that the run resumes from.
        """
        for step, reason in sorted(steps.items()) if jax.process_index() == 0 else ():
            folder = self._folder / str(step)
            aside = set_aside(folder, kind)
            _warn(f"{folder}: {reason}; kept as {aside.name}; the run resumes from step {resumed}")
        if steps and jax.process_count() > 1:
            multihost_utils.sync_global_devices("checkpoints set aside")

    def _write_digests(self) -> None:
        """Writes the digests of the checkpoint being saved, before it is renamed to its step."""
        assert self._saving is not None
        step, reader = self._saving
        (folder,) = self._folder.glob(f"{step}{_PENDING}*")
        write_digests(folder, reader)

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits for pending writes; their errors do not replace an exception of the block."""
        if "_checkpointer" not in self.__dict__:
            return
        try:
            with self._writing():
                self._checkpointer.close()
        except RednetError:
            if value is None:
                raise

    def _wait(self) -> None:
        if "_checkpointer" in self.__dict__:
            with self._writing():
                self._checkpointer.wait()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            raise RednetError(
                f"{self._folder}: cannot be written ({error_cause(error)})"
            ) from error


def result_of_process_0(function: Callable[[], Any]) -> Any:
    """Returns in all processes what `function` returns in process 0: JSON values.

    All processes must call this.
    """
    if jax.process_count() == 1:
        return function()
    text = b""
    if jax.process_index() == 0:
        text = json.dumps(function()).encode()
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.frombuffer(text.ljust(length, b" "), np.uint8)
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded))))


def _warn(line: str) -> None:
    if jax.process_index() == 0:
        tqdm.write(f"rednet: warning: {line}", file=sys.stderr)
