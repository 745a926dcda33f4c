"""Checkpoints of a run: the only file that knows Orbax."""

import contextlib
import functools
import gc
import hashlib
import json
import logging
import os
import re
import sys
import time
import traceback
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
from rednet_jax.files import write_text, writing
from rednet_jax.logs import LOG_VARIABLES
from rednet_jax.reading import read_json
from rednet_jax.train.state import TrainState


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record is of something that is not raised as well.

    Orbax raises what fails, and before that logs it from each of its threads, with a traceback.
    """
    asked = any(os.environ.get(name) for name in LOG_VARIABLES)
    return asked or record.levelno != logging.ERROR or "orbax" not in _file_that_logs()


def _file_that_logs() -> str:
    """The file from which a filter is called by way of logging and absl.

    A record's `pathname` is absl's own where the logger was made before absl was imported.
    """
    between = {__name__, "logging", "absl.logging"}
    frames = (frame for frame, _ in traceback.walk_stack(None))
    caller = next(frame for frame in frames if frame.f_globals.get("__name__") not in between)
    return caller.f_code.co_filename


logging.getLogger("absl").addFilter(_is_news)


def _not_of_orbax(record: logging.LogRecord) -> bool:
    """False of what asyncio says of Orbax's tasks: the first that fails is raised anyway."""
    frames = traceback.walk_tb(record.exc_info[2]) if record.exc_info else ()
    return not any("orbax" in frame.f_code.co_filename for frame, _ in frames)


logging.getLogger("asyncio").addFilter(_not_of_orbax)

_hook = sys.unraisablehook


def _without_late_callbacks(unraisable: "sys.UnraisableHookArgs") -> None:
    """Prints what cannot be raised, but for callbacks of what a failed write left unfinished.

    TensorStore calls those from C++, at any later time, for an event loop that is closed by then.
    """
    outermost = next(traceback.walk_tb(unraisable.exc_traceback), None)
    if outermost is None or outermost[0].f_code.co_name != "call_soon_threadsafe":
        _hook(unraisable)


sys.unraisablehook = _without_late_callbacks

_Policies = ocp.training.preservation_policies

DIGESTS = "sha256.json"
"""Name, in a checkpoint's folder, of the digests of its files and the place of the reader."""

WENT_BACK = "from_step.json"
"""Name of the file that says to which step a run was taken back."""

_METADATA, _METRICS = "_CHECKPOINT_METADATA", "metrics/metrics"
_PENDING = ".orbax-checkpoint-tmp"
_CAUSE_CHARACTERS = 300
_SECONDS_TO_END = 0.3


class Resumed(NamedTuple):
    """What a run resumes from.

    Attributes:
        step: of the checkpoint.
        state: that it holds.
        reader: where the reader of batches was.
    """

    step: int
    state: TrainState
    reader: dict[str, Any]


class _NotRestoredError(RednetError):
    def __init__(self, folder: Path, cause: str) -> None:
        super().__init__(f"{folder}: cannot be restored ({cause})")
        self.cause = cause


class Checkpoints:
    """The folder RUN/checkpoints: the latest few, and the best by validation NME.

    A checkpoint appears under its step's number only once it is whole; one that was cut short
    stays under a temporary name and is not seen. One that cannot be written, on a full disk, say,
    is a RednetError of the next method called; those before it stay. Each holds the digests of its
    files, which are compared when it is loaded; older ones without digests are loaded unchecked.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        """Opens the folder, made if need be.

        Args:
            folder: of the checkpoints.
            keep: how many of the latest stay, beside the best.

        Raises:
            RednetError: the folder cannot be made.
        """
        self._folder, self._keep = folder.absolute(), keep
        self._saving: tuple[int, dict[str, Any]] | None = None
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)

    @functools.cached_property
    def _checkpointer(self) -> ocp.training.Checkpointer:
        # Made when the first checkpoint is saved: it reads the metrics of all that are there, and
        # damaged ones must have been set aside before.
        context = ocp.Context()
        # Called once all files are written, and before the folder gets its step's name. A function:
        # Orbax copies its options, and a bound method with the object that it belongs to.
        context.async_options.post_finalization_callback = lambda: self._write_digests()
        return ocp.training.Checkpointer(
            self._folder,
            context=context,
            # Orbax's own policy drops a save that falls due while another is being written.
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
        """Step of the newest checkpoint, once it is whole; None without one."""
        self._wait()
        return max(self._steps(), default=None)

    def save(self, step: int, state: TrainState, reader: dict[str, Any], nme: float) -> None:
        """Copies the state off the device and writes it while training continues.

        Args:
            step: number of the checkpoint.
            state: may be donated as soon as this returns.
            reader: where the reader of batches is, plain JSON.
            nme: validation NME of the averaged weights, percent; infinite where it was not
                measured.
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
            step: which.
            like: the tree that it must have, of `jax.ShapeDtypeStruct`, with the shardings that it
                is loaded into; those that it was saved from do not matter.

        Returns:
            The state, and where the reader was.

        Raises:
            RednetError: there is none of that step, it is damaged, or of another network.
        """
        self._wait()
        if step not in self._steps():
            there = ", ".join(map(str, self._steps())) or "none"
            raise RednetError(f"{self._folder}: no checkpoint of step {step}; there are: {there}")
        if cause := _told_by_the_first(lambda: damage(self._folder / str(step))):
            raise RednetError(f"{self._folder}/{step}: damaged ({cause})")
        return self._restored(step, like)

    def resume(self, like: TrainState, from_step: int | None = None) -> Resumed | None:
        """Reads what the run resumes from: the newest intact checkpoint, or a chosen one.

        Newer ones that are damaged are set aside as STEP.damaged, with a warning; nothing is
        deleted. With `from_step`, all newer ones are set aside as STEP.superseded. A run is taken
        back to a step once: a job requeued with the same command resumes from its newest step.

        Args:
            like: as in `load`.
            from_step: the step to resume from; None for the newest.

        Returns:
            The checkpoint, or None where there is none at all.

        Raises:
            RednetError: there are checkpoints and none can be loaded; with `from_step`, there is
                no checkpoint of that step, or it is damaged.
        """
        if from_step is not None and not self._went_back_to(from_step):
            state, reader = self.load(from_step, like)
            later = [step for step in self._steps() if step > from_step]
            self._set_aside(dict.fromkeys(later, "superseded"), "superseded", from_step)
            if jax.process_index() == 0:
                write_text(self._folder / WENT_BACK, json.dumps({"step": from_step}) + "\n")
            return Resumed(from_step, state, reader)
        damaged: dict[int, str] = {}
        resumed = None
        for step, cause in _told_by_the_first(self._looked_through):
            if cause is None and resumed is None:
                try:
                    resumed = Resumed(step, *self._restored(step, like))
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
        told = {step: f"damaged ({cause})" for step, cause in damaged.items()}
        self._set_aside(told, "damaged", resumed.step)
        return resumed

    def _looked_through(self) -> list[tuple[int, str | None]]:
        """Steps from the newest on, and what is wrong with each.

        Behind the newest that its digests show to be intact, digests are not compared any more.
        """
        found: list[tuple[int, str | None]] = []
        look = damage
        for step in reversed(self._steps()):
            folder = self._folder / str(step)
            found.append((step, look(folder)))
            if found[-1][1] is None and (folder / DIGESTS).exists():
                look = unreadable
        return found

    def _steps(self) -> list[int]:
        return sorted(
            int(path.name)
            for path in self._folder.iterdir()
            if path.name.isdecimal() and path.is_dir()
        )

    def _went_back_to(self, step: int) -> bool:
        try:
            told = read_json(self._folder / WENT_BACK)
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            raise RednetError(f"{self._folder / WENT_BACK}: cannot be read ({error})") from error
        if told != {"step": step}:
            return False
        _warn(
            f"{self._folder}: the run went back to step {step} before, and resumes from its newest "
            f"checkpoint; delete {self._folder / WENT_BACK} to go back again"
        )
        return True

    def _restored(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        folder = self._folder / str(step)
        with _quietly():
            try:
                state: TrainState = ocp.load(folder, like)
                reader: dict[str, Any] = read_json(folder / _METADATA)["custom_metadata"]["reader"]
                return state, reader
            except (OSError, KeyError, TypeError, ValueError) as error:
                cause = _cause(error)
            # What Orbax leaves unfinished complains with a traceback each when it ends.
            gc.collect()
            time.sleep(_SECONDS_TO_END)
        raise _NotRestoredError(folder, cause)

    def _set_aside(self, steps: dict[int, str], kind: str, resumed: int) -> None:
        """Renames checkpoints, each for a reason that is told; process 0 does, the others wait."""
        for step, reason in sorted(steps.items()) if jax.process_index() == 0 else ():
            folder, number = self._folder / str(step), 1
            aside = self._folder / f"{step}.{kind}"
            while aside.exists():
                number += 1
                aside = self._folder / f"{step}.{kind}-{number}"
            with writing(folder):
                folder.rename(aside)
            _warn(f"{folder}: {reason}; kept as {aside.name}; the run resumes from step {resumed}")
        if steps and jax.process_count() > 1:
            multihost_utils.sync_global_devices("checkpoints set aside")

    def _write_digests(self) -> None:
        """Describes a checkpoint that is whole but for its name."""
        assert self._saving is not None
        step, reader = self._saving
        (folder,) = self._folder.glob(f"{step}{_PENDING}*")
        found = {
            path.relative_to(folder).as_posix(): _digest(path)
            for path in sorted(folder.rglob("*"))
            # Another thread of Orbax writes this one, now and later, with the time and the reader.
            if path.is_file() and path.name != _METADATA
        }
        (folder / DIGESTS).write_text(json.dumps({"reader": reader, "files": found}) + "\n")

    def __enter__(self) -> Self:
        """For `with`."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits for what is being written; what went wrong before counts more."""
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
            raise RednetError(f"{self._folder}: cannot be written ({_cause(error)})") from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Within it, errors that nobody can catch are not printed."""
    hooks = sys.excepthook, sys.unraisablehook
    sys.excepthook, sys.unraisablehook = lambda *_: None, lambda _: None
    try:
        yield
    finally:
        sys.excepthook, sys.unraisablehook = hooks


def unreadable(folder: Path) -> str | None:
    """Returns what is wrong with a checkpoint's description; None where nothing is.

    Args:
        folder: of the checkpoint.
    """
    for name, *keys in ((_METADATA, "custom_metadata", "reader"), (_METRICS, "nme")):
        try:
            found = read_json(folder / name)
            for key in keys:
                found = found[key]
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name}: {_cause(error)}"
        except ValueError:
            return f"{name} is not JSON"
        except (KeyError, TypeError):
            return f"{name} does not say {'.'.join(keys)}"
    return None


def damage(folder: Path) -> str | None:
    """Returns what is wrong with a checkpoint's files; None where nothing is.

    Args:
        folder: of the checkpoint; without digests in it, only its description is looked at.
    """
    if cause := unreadable(folder):
        return cause
    try:
        told = read_json(folder / DIGESTS)
        reader, digests = told["reader"], dict(told["files"])
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{DIGESTS}: {_cause(error)}"
    except (ValueError, KeyError, TypeError):
        return f"{DIGESTS} holds no digests"
    if read_json(folder / _METADATA)["custom_metadata"]["reader"] != reader:
        return f"{_METADATA} and {DIGESTS} name different places of the reader"
    for name, digest in digests.items():
        try:
            # A name that leads elsewhere could be that of a device without an end.
            inside = (folder / name).resolve().is_relative_to(folder.resolve())
            if not (inside and (folder / name).is_file()):
                return f"{name} is missing"
            found = _digest(folder / name)
        except OSError as error:
            return f"{name}: {_cause(error)}"
        if found != digest:
            return f"{name} has another SHA-256 than when it was written"
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _told_by_the_first(look: Callable[[], Any]) -> Any:
    """What `look` returns in process 0, plain JSON, in all processes; each of them calls this."""
    if jax.process_count() == 1:
        return look()
    told = b""
    if jax.process_index() == 0:
        told = json.dumps(look()).encode()
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(told))))
    padded = np.frombuffer(told.ljust(length, b" "), np.uint8)
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded))))


def _warn(line: str) -> None:
    if jax.process_index() == 0:
        tqdm.write(f"rednet: warning: {line}", file=sys.stderr)


def _cause(error: Exception) -> str:
    """What the system says; TensorStore has its number, or the file, in a ValueError's text."""
    text = str(error)
    if number := re.search(r"os_error_code='(\d+)'", text):
        return os.strerror(int(number[1]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    code, files = re.match(r"[A-Z_]+(?=: )", text), re.findall(r'local file "([^"]+[^/"])"', text)
    if code and files:
        return f"{files[-1]}: {code[0]}"
    line = (text.splitlines() or [type(error).__name__])[0]
    return line if len(line) <= _CAUSE_CHARACTERS else f"{line[:_CAUSE_CHARACTERS]}..."
