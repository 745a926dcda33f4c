"""Profiler traces of training steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from rednet_jax.errors import RednetError

SKIPPED = 2
"""Number of steps before those that are traced: the first one compiles."""


def check_trace(steps: int, left: int) -> None:
    """Checks the number of steps to trace.

    Args:
        steps: number of steps to trace; 0 for no trace.
        left: number of steps that will run.

    Raises:
        RednetError: too few steps are left.
    """
    if steps < 0:
        raise RednetError(f"--profile must be at least 0, not {steps}")
    if steps and left < SKIPPED + steps:
        raise RednetError(
            f"--profile {steps} takes {SKIPPED + steps} steps, as the first {SKIPPED} are not "
            f"traced; {left} are left to run"
        )


class Trace:
    """Writes a trace of steps to a folder, for TensorBoard's profiler, XProf or Perfetto."""

    def __init__(self, folder: Path, steps: int, left: int, say: Callable[[str], None]) -> None:
        """Checks the number of steps as `check_trace` does; the trace starts later.

        Args:
            folder: of the trace.
            steps: number of steps to trace; 0 for no trace.
            left: number of steps that will run.
            say: prints a line, which names the folder and its steps.

        Raises:
            RednetError: too few steps are left.
        """
        check_trace(steps, left)
        self._folder, self._steps, self._say = folder, steps, say
        self._done = 0
        self._first: int | None = None

    def before(self, step: int, state: Any) -> None:
        """Starts or ends the trace; must be called before every step.

        Args:
            step: its number, counted from 1.
            state: after the step before; it may not be computed yet.
        """
        if self._steps and self._done == SKIPPED:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self._folder))
            self._first = step
        elif self._done == SKIPPED + self._steps:
            self.end(step - 1, state)
        self._done += 1

    def end(self, step: int, state: Any) -> None:
        """Ends the trace if one is running; must be called after the last step.

        Args:
            step: number of the last step.
            state: after that step; it may not be computed yet.
        """
        if self._first is not None:
            # Steps are dispatched asynchronously: without waiting, they would not be in the trace.
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            self._say(f"{self._folder}: trace of steps {self._first} to {step}")
            self._first = None
