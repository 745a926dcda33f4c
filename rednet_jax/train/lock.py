"""The lock of a run folder, which has one writer at a time."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import jax

from rednet_jax.errors import RednetError
from rednet_jax.files import lock, writing

LOCK = ".lock"
"""Name of the lock file in a run's folder."""


@contextlib.contextmanager
def only_writer(run_dir: Path) -> Iterator[None]:
    """Holds the lock of a run's folder within the block.

    Process 0 holds it for all processes of the run. The lock is released when the process ends, in
    whatever way; the file remains.

    Args:
        run_dir: the run's folder, created if it does not exist.

    Raises:
        RednetError: another process holds the lock, or the file cannot be written.
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
            lock(file, path, wait=False)
        except BlockingIOError:
            holder = os.read(file, 500).decode(errors="replace").strip() or "unknown"
            raise RednetError(
                f"{run_dir}: another process is training in this folder ({holder})"
            ) from None
        with writing(path):
            os.ftruncate(file, 0)
            os.pwrite(file, f"host {socket.gethostname()}, process {os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(file)
