"""Runs a command line and reports errors as lines on standard error and an exit status.

Exit status: 0 success; 1 success except for the failures on standard error, one line each; 2 the
command failed with one line on standard error; 3 another process of the run ended; 130 Ctrl-C or
SIGTERM.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

from rednet_jax.cli.options import parser
from rednet_jax.cli.output import drop_unwritten, failed
from rednet_jax.cli.training import train
from rednet_jax.cli.values import fields_of
from rednet_jax.compilation import keep_compiled
from rednet_jax.errors import RednetError
from rednet_jax.logs import quieten


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line (without the program's name) and returns its exit status."""
    quieten()
    _collect_seldom()
    try:
        status = _run(argv)
        # A standard output that cannot be written fails here, and not at exit.
        sys.stdout.flush()
        return status
    except RednetError as error:
        failed([str(error)])
        return 2
    except KeyboardInterrupt:
        failed(["interrupted"])
        return 130
    except BrokenPipeError:
        # The reader closed the pipe.
        drop_unwritten()
        return 1
    except OSError as error:
        # Such as a folder that may not be read, or a full disk.
        named = "" if error.filename is None else f"{error.filename}: "
        failed([f"{named}{error.strerror or error}"])
        drop_unwritten()
        return 2
    except UnicodeEncodeError as error:
        # Of a file's name, where standard output does not have its characters.
        failed([str(error)])
        return 2


def _run(argv: Sequence[str] | None) -> int:
    rednet = parser()
    try:
        args, rest = rednet.parse_known_args(argv)
    except SystemExit:
        # Only --help and --version exit: parse errors raise RednetError.
        return 0
    if "fields" in args:
        args.fields = fields_of(rest)
    elif rest:
        rednet.error(f"unrecognized arguments: {' '.join(rest)}")
    keep_compiled(args.compilation_cache)
    # Training saves a checkpoint on SIGTERM, in many processes through a handler of JAX.
    signals = contextlib.nullcontext() if args.run is train else _sigterm_as_interrupt()
    with signals:
        status: int = args.run(args)
    return status


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Context in which SIGTERM raises KeyboardInterrupt, so that no temporary files are left."""
    if threading.current_thread() is not threading.main_thread():
        # Python allows signal handlers only in the main thread.
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        # A handler that was not set from Python is None.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _collect_seldom() -> None:
    """Makes garbage collection less frequent, and disables it at exit.

    JAX's modules and traces are hundreds of thousands of long-lived objects. Scanning them takes a
    quarter of the time of a short command.
    """
    gc.set_threshold(50_000, 10, 10)
    atexit.register(gc.freeze)
