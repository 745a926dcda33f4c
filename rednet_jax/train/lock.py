"""One writer a run folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import jax

from rednet_jax.errors import RednetError
from rednet_jax.files import writing

LOCK = ".lock"
"""Name of the file in a run's folder that its writer holds locked."""


@contextlib.contextmanager
def only_writer(run_dir: Path) -> Iterator[None]:
    """Within the block no other job writes to the run's folder.

    Of many processes that train together the first holds the lock. It ends with the process,
    however that ends, and the file stays.

    Args:
        run_dir: the run's folder, made if need be.

    Raises:
        RednetError: another process holds it, or the file cannot be written.
    """
    if jax.process_index():
        yield
        return
    path = run_dir / LOCK
    with writing(path):
        run_dir.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 500).decode(errors="replace").strip() or "not known which"
            raise RednetError(
                f"{run_dir}: another process is training in this folder ({holder})"
            ) from None
        except OSError as error:
            # Some file systems of clusters have no locks.
            print(
                f"rednet: warning: {path}: cannot be locked ({error.strerror}); a second job in "
                "this folder would not be noticed",
                file=sys.stderr,
            )
        with writing(path):
            os.ftruncate(file, 0)
            os.pwrite(file, f"host {socket.gethostname()}, process {os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(file)
