"""Limits of a call: CPU time, memory, and where it may write."""

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
"""CPU time, over all threads."""

WAITING_SECONDS = 60
"""Wall-clock time."""

MEMORY = 2 * 2**30
"""Bytes of address space, in addition to those of the process before the first case."""

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
    """Records writes outside `allowed` folders and started programs, while `enabled`.

    It is a Python audit hook, which cannot be removed from the process.
    """

    def __init__(self) -> None:
        """Installs the hook."""
        self.allowed: list[Path] = []
        self.violations: list[str] = []
        self.enabled = False
        sys.addaudithook(self._audit)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.enabled:
            return
        if event == "open":
            path, mode, flags = args
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if isinstance(path, str | bytes) and (writes or set(mode or "") & set("wax+")):
                self._check(event, path)
        elif event in _CHANGED:
            paths = [arg for arg in args if isinstance(arg, str | bytes | os.PathLike)]
            folders = args[-len(paths) :]
            for path, folder in zip(paths, folders, strict=True):
                below = isinstance(folder, int) and folder >= 0
                above = os.readlink(f"/proc/self/fd/{folder}") if below else ""
                self._check(event, os.path.join(above, os.fsdecode(path)))
        elif event in _STARTED and not (event == "subprocess.Popen" and args[0] == "git"):
            # Provenance runs git for the commit.
            self.violations.append(f"{event} {args!r}"[:200])

    def _check(self, event: str, path: Any) -> None:
        real = Path(os.path.realpath(os.fsdecode(path)))
        allowed = any(real.is_relative_to(folder) for folder in self.allowed)
        if real != Path(os.devnull) and not allowed:
            self.violations.append(f"{event} {real}")


def limit_memory() -> None:
    """Limits this process to `MEMORY` more than its current address space."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


@contextlib.contextmanager
def limited_time(stderr: TextIO) -> Iterator[None]:
    """Context that ends the process with a traceback after `SECONDS` or `WAITING_SECONDS`."""
    # CPU time does not depend on the load of the machine, as wall-clock time does.
    faulthandler.register(signal.SIGPROF, file=stderr, chain=True)
    faulthandler.dump_traceback_later(WAITING_SECONDS, exit=True, file=stderr)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
