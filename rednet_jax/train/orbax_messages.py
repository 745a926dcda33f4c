"""Filters of messages by Orbax, asyncio and TensorStore about errors that are raised as well.

They are installed when this module is imported.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Iterator

from rednet_jax.logs import LOG_VARIABLES


def _keeps_absl_record(record: logging.LogRecord) -> bool:
    """Returns False for errors that Orbax logs, unless the user has turned its messages on.

    Orbax logs an error from each of its threads, with a traceback, before it raises it.
    """
    turned_on = any(os.environ.get(name) for name in LOG_VARIABLES)
    return turned_on or record.levelno != logging.ERROR or "orbax" not in _logging_file()


def _logging_file() -> str:
    """Returns the file of the caller of logging or absl, from within a filter.

    A record's `pathname` is a file of absl if the logger was made before absl was imported.
    """
    skipped = {__name__, "logging", "absl.logging"}
    frames = (frame for frame, _ in traceback.walk_stack(None))
    caller = next(frame for frame in frames if frame.f_globals.get("__name__") not in skipped)
    return caller.f_code.co_filename


def _keeps_asyncio_record(record: logging.LogRecord) -> bool:
    """Returns False for exceptions in Orbax's tasks: the first of them is raised."""
    frames = traceback.walk_tb(record.exc_info[2]) if record.exc_info else ()
    return not any("orbax" in frame.f_code.co_filename for frame, _ in frames)


def _print_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Prints unraisable exceptions, except those of TensorStore's callbacks after a failed write.

    TensorStore calls them from C++, at any later time, for an event loop that is closed by then.
    """
    outermost = next(traceback.walk_tb(unraisable.exc_traceback), None)
    if outermost is None or outermost[0].f_code.co_name != "call_soon_threadsafe":
        _original_hook(unraisable)


logging.getLogger("absl").addFilter(_keeps_absl_record)
logging.getLogger("asyncio").addFilter(_keeps_asyncio_record)
_original_hook = sys.unraisablehook
sys.unraisablehook = _print_unraisable


@contextlib.contextmanager
def silenced_hooks() -> Iterator[None]:
    """Within the block, exceptions that cannot be caught are not printed."""
    hooks = sys.excepthook, sys.unraisablehook
    sys.excepthook, sys.unraisablehook = lambda *_: None, lambda _: None
    try:
        yield
    finally:
        sys.excepthook, sys.unraisablehook = hooks
