"""Finds the files below a folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def files_in(
    folder: str | os.PathLike[str], without: str | os.PathLike[str] | None = None
) -> tuple[list[Path], list[str]]:
    """Returns the files below a folder, sorted, and a line for each folder that cannot be read.

    Links to folders are followed. Each folder is listed once, by a path without links if there is
    one, so that links to a parent do not end in an endless search. Hidden files and folders, pipes
    and devices are left out. Files that cannot be examined, such as broken links, are not.

    Args:
        folder: the folder.
        without: a folder that is left out, unless it is `folder` itself.
    """
    files: list[Path] = []
    unreadable: list[str] = []
    visited = set()
    if without is not None and os.path.isdir(without) and not os.path.samefile(folder, without):
        visited.add(_identity(without))

    def note(error: OSError) -> None:
        unreadable.append(f"{error.filename}: cannot be read ({error.strerror})")

    pending = [os.fspath(folder)]
    while pending:
        # Links to folders are among `folders`, but os.walk does not follow them.
        for root, folders, names in os.walk(pending.pop(0), onerror=note):
            identity = _identity(root)
            if identity in visited:
                folders.clear()
                continue
            visited.add(identity)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            paths = (os.path.join(root, name) for name in folders)
            pending += [path for path in paths if os.path.islink(path)]
            files += [
                Path(root, name)
                for name in names
                if not name.startswith(".") and _is_file(os.path.join(root, name))
            ]
    return sorted(files), unreadable


def _identity(folder: str | os.PathLike[str]) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        # Reading it will tell why.
        return True
