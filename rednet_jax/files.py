"""Atomic writing of files, results as JSON, and locked folders."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rednet_jax.errors import RednetError


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Converts an OSError in the block to a RednetError: `path` cannot be written, and why."""
    try:
        yield
    except OSError as error:
        raise RednetError(f"{path}: cannot be written ({error.strerror or error})") from error


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary file as `staged` does, for a block that only writes it.

    Raises:
        RednetError: the file cannot be written; also for an OSError in the block.
    """
    with staged(path) as partial, writing(path):
        yield partial


@contextlib.contextmanager
def staged(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields the path of a temporary file, which replaces `path` at the end of the block.

    After an exception in the block, `path` is unchanged. Its folder is created if it does not
    exist. Exceptions of the block pass unchanged, since they may be those of other files.

    Raises:
        RednetError: the folder cannot be created, or the file cannot be replaced.
    """
    # The target of a symbolic link is replaced, not the link.
    target = Path(os.path.realpath(path))
    partial = _partial(target)
    with writing(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not (target.is_file() or target.is_dir()):
            # A device or a pipe must not be replaced by a file.
            raise RednetError(f"{path}: cannot be written (not a regular file)")
    try:
        yield partial
        with writing(path):
            os.replace(partial, target)
    finally:
        with writing(path):
            partial.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str], *, folder: bool = False) -> None:
    """Checks in advance whether `replacing` can write a file, or files in a folder.

    Raises:
        RednetError: the path is a folder (or is none), or files cannot be created there.
    """
    given, target = Path(path), Path(os.path.realpath(path))
    # os.path, since Path.exists raises an error for a name that is too long.
    if os.path.exists(given) and not (given.is_dir() if folder else given.is_file()):
        kind = "it is a folder" if given.is_dir() else "not a regular file"
        kind = "not a folder" if folder else kind
        raise RednetError(f"{path}: cannot be written ({kind})")
    # `replacing` creates the missing folders.
    inside = target / "file" if folder else target
    existing = next(place for place in inside.parents if os.path.lexists(place))
    if not existing.is_dir():
        raise RednetError(f"{path}: cannot be written ({existing} is not a folder)")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise RednetError(f"{path}: cannot be written (no permission to write in {existing})")
    # Root has every permission, also in a file system without files of users.
    partial = _partial(existing / inside.name)
    with writing(path):
        partial.touch()
        partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file in UTF-8, atomically.

    Bytes of file names that are not UTF-8 are written unchanged.

    Raises:
        RednetError: the file cannot be written.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")


def set_aside(path: Path, kind: str) -> Path:
    """Renames a file or folder to NAME.KIND, or NAME.KIND-2 and so on, and returns the new path.

    Raises:
        RednetError: it cannot be renamed.
    """
    number, aside = 1, path.with_name(f"{path.name}.{kind}")
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.{kind}-{number}")
    with writing(path):
        path.rename(aside)
    return aside


def write_json(path: str | os.PathLike[str], result: Any) -> None:
    """Writes the `json_text` of a result, atomically.

    Raises:
        RednetError: the file cannot be written.
    """
    write_text(path, json_text(result))


def json_text(result: Any) -> str:
    """Returns a result as indented JSON; nan and infinities become null, since JSON has neither."""
    plain = json.loads(json.dumps(result), parse_constant=lambda name: None)
    return json.dumps(plain, indent=2) + "\n"


def lock(opened: int, path: Path, *, wait: bool) -> None:
    """Locks an open file or folder for this process alone, until it is closed.

    The operating system releases the lock when the process ends for any reason. If the file system
    has no locks, as some of clusters, a warning is printed in place of an error.

    Args:
        opened: descriptor of the file or folder.
        path: of it, for the warning.
        wait: whether to wait while another process holds the lock.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is False.
    """
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError as error:
        print(
            f"rednet: warning: {path}: cannot be locked ({error.strerror}); a second process that "
            "uses it would not be detected",
            file=sys.stderr,
        )


@contextlib.contextmanager
def locked_folder(path: Path, *, wait: bool = False) -> Iterator[Path]:
    """Yields an empty folder that only this process uses, and deletes it at the end.

    Args:
        path: of the folder. Files in it, of a process that was killed, are deleted.
        wait: whether to wait if another process uses the folder.

    Raises:
        RednetError: another process uses the folder, and `wait` is False.
        OSError: the folder cannot be created or deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            path.mkdir(exist_ok=True)
            opened = os.open(path, os.O_RDONLY)
        except (FileExistsError, FileNotFoundError):
            # Another process may have deleted the folder during these calls.
            if not path.parent.is_dir() or (os.path.lexists(path) and not path.is_dir()):
                raise
            continue
        try:
            lock(opened, path, wait=wait)
            if not _is_same(path, opened):
                continue
            _empty(path)
            try:
                yield path
            finally:
                _empty(path)
                path.rmdir()
            return
        except BlockingIOError:
            raise RednetError(f"{path}: another process uses this folder") from None
        finally:
            os.close(opened)


def _partial(target: Path) -> Path:
    return target.parent / f".{target.name}.{os.getpid()}.partial"


def _is_same(path: Path, opened: int) -> bool:
    """Whether an opened folder still exists at its path, or another process has deleted it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(opened))
    except FileNotFoundError:
        return False


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
