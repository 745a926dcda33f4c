"""What a call may do to the machine: how long it may take, how much memory, where it may write."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

SECONDS = 10
"""Of computing, in all threads."""

WAITING_SECONDS = 60
MEMORY = 2 * 2**30
"""Bytes of address space beyond what the process has before the first case."""

_CHANGED = ("os.mkdir", "os.link", "os.symlink", "os.rename", "os.remove", "os.rmdir")
_STARTED = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
)


class Writes:
    """Records what Python writes outside a folder, and which programs it starts."""

    def __init__(self) -> None:
        """Begins to listen; a hook of Python's audit stays for as long as the process."""
        self.allowed: list[Path] = []
        self.found: list[str] = []
        self.listening = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.listening:
            return
        if event == "open":
            path, mode, flags = args
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if isinstance(path, str | bytes) and (writes or set(mode or "") & set("wax+")):
                self._check(event, path)
        elif event in _CHANGED:
            paths = [one for one in args if isinstance(one, str | bytes | os.PathLike)]
            folders = args[-len(paths) :]
            for path, folder in zip(paths, folders, strict=True):
                below = isinstance(folder, int) and folder >= 0
                above = os.readlink(f"/proc/self/fd/{folder}") if below else ""
                self._check(event, os.path.join(above, os.fsdecode(path)))
        elif event in _STARTED and not (event == "subprocess.Popen" and args[0] == "git"):
            # Git says which commit a result was measured at.
            self.found.append(f"{event} {args!r}"[:200])

    def _check(self, event: str, path: Any) -> None:
        real = Path(os.path.realpath(os.fsdecode(path)))
        if real != Path(os.devnull) and not any(real.is_relative_to(one) for one in self.allowed):
            self.found.append(f"{event} {real}")


def limit_memory() -> None:
    """Lets this process take `MEMORY` more than it has, and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


@contextlib.contextmanager
def limited_time(stderr: TextIO) -> Iterator[None]:
    """Ends the process, with a traceback, where the block computes or waits for too long."""
    # On a busy machine the wall clock alone would tell nothing.
    faulthandler.register(signal.SIGPROF, file=stderr, chain=True)
    faulthandler.dump_traceback_later(WAITING_SECONDS, exit=True, file=stderr)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
