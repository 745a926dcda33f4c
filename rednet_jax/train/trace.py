"""A profiler's trace of some steps of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from rednet_jax.errors import RednetError

SKIPPED = 2
"""Steps of a call before the ones that are traced: the first compiles."""


class Trace:
    """Traces a number of steps to a folder, for TensorBoard's profiler, XProf or Perfetto."""

    def __init__(self, folder: Path, steps: int, left: int, say: Callable[[str], None]) -> None:
        """Traces nothing yet.

        Args:
            folder: of the trace.
            steps: how many to trace; 0 for no trace.
            left: how many the call will run.
            say: told, in a line, which steps the folder holds.

        Raises:
            RednetError: fewer steps are left than that takes.
        """
        if steps < 0:
            raise RednetError(f"--profile must be at least 0, not {steps}")
        if steps and left < SKIPPED + steps:
            raise RednetError(
                f"--profile {steps} takes {SKIPPED + steps} steps, as the first {SKIPPED} are not "
                f"traced; {left} are left to run"
            )
        self._folder, self._steps, self._say = folder, steps, say
        self._done = 0
        self._first: int | None = None

    def before(self, step: int, state: Any) -> None:
        """Begins or ends the trace; to be called before every step.

        Args:
            step: its number, counted from 1.
            state: of the step before, which may still be computed.
        """
        if self._steps and self._done == SKIPPED:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self._folder))
            self._first = step
        elif self._done == SKIPPED + self._steps:
            self.end(step - 1, state)
        self._done += 1

    def end(self, step: int, state: Any) -> None:
        """Ends the trace, if one is being taken; to be called after the last step.

        Args:
            step: the last one's number.
            state: of that step, which may still be computed.
        """
        if self._first is not None:
            # Else the steps would not be in it: they are dispatched ahead of the device.
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            self._say(f"{self._folder}: trace of steps {self._first} to {step}")
            self._first = None
