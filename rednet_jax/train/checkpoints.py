"""Checkpoints of a run: the only file that knows Orbax."""

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from orbax.checkpoint import v1 as ocp

from rednet_jax.errors import RednetError
from rednet_jax.logs import ASKED
from rednet_jax.train.state import TrainState


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record is of something that is not raised as well.

    Orbax raises what fails, and before that logs it from each of its threads, with a traceback.
    """
    asked = any(os.environ.get(name) for name in ASKED)
    return asked or record.levelno != logging.ERROR or "orbax" not in record.pathname


logging.getLogger("absl").addFilter(_is_news)

_Policies = ocp.training.preservation_policies


class Checkpoints:
    """The folder RUN/checkpoints: the latest few, and the best by validation NME.

    A checkpoint appears under its step's number only once it is whole; one that was cut short
    stays under a temporary name and is not seen. One that cannot be written, on a full disk, say,
    is a RednetError of the next method called; those before it stay.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        """Opens the folder, made if need be.

        Args:
            folder: of the checkpoints.
            keep: how many of the latest stay, beside the best.
        """
        self._checkpointer = ocp.training.Checkpointer(
            folder.absolute(),
            # Orbax's own policy drops a save that falls due while another is being written.
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=_Policies.AnyPreservationPolicy(
                [
                    _Policies.LatestN(keep),
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
        with self._writing():
            self._checkpointer.wait()
        newest = self._checkpointer.latest
        return None if newest is None else int(newest.step)

    def save(self, step: int, state: TrainState, reader: dict[str, Any], nme: float) -> None:
        """Copies the state off the device and writes it while training goes on.

        Args:
            step: number of the checkpoint.
            state: may be donated as soon as this returns.
            reader: where the reader of batches is, plain JSON.
            nme: validation NME of the averaged weights, percent; infinite where it was not
                measured.
        """
        with self._writing():
            self._checkpointer.wait()
            self._checkpointer.save_async(
                step, state, force=True, metrics={"nme": nme}, custom_metadata={"reader": reader}
            )

    def load(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Reads a checkpoint.

        Args:
            step: which.
            like: the tree of `jax.ShapeDtypeStruct`s that it must have, with the shardings that it
                is wanted in; those that it was saved from do not matter.

        Returns:
            The state, and where the reader was.

        Raises:
            RednetError: it is damaged, or of another network.
        """
        try:
            state: TrainState = self._checkpointer.load(step, like)
            reader: dict[str, Any] = self._checkpointer.metadata(step).custom_metadata["reader"]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise RednetError(
                f"{self._checkpointer.directory}/{step}: cannot be restored ({_cause(error)})"
            ) from error
        return state, reader

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
        try:
            with self._writing():
                self._checkpointer.close()
        except RednetError:
            if value is None:
                raise

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            folder = self._checkpointer.directory
            raise RednetError(f"{folder}: cannot be written ({_cause(error)})") from error


def _cause(error: Exception) -> str:
    """What the system says; TensorStore has its number in the text of a ValueError."""
    number = re.search(r"os_error_code='(\d+)'", str(error))
    if number:
        return os.strerror(int(number[1]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]
