"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from rednet_jax.errors import RednetError


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Within it an OSError becomes a RednetError: `path` cannot be written, and why."""
    try:
        yield
    except OSError as error:
        raise RednetError(f"{path}: cannot be written ({error.strerror or error})") from error


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a partial file's path to write to; at the end that file takes the place of `path`.

    After an error inside the block, `path` is as it was. Its folder is made if need be.

    Raises:
        RednetError: the file cannot be written.
    """
    # What a symbolic link points to is replaced, not the link.
    target = Path(os.path.realpath(path))
    partial = target.parent / f".{target.name}.{os.getpid()}.partial"
    with writing(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not (target.is_file() or target.is_dir()):
            # A device or a pipe would be gone, with a file in its place.
            raise RednetError(f"{path}: cannot be written (not a regular file)")
        try:
            yield partial
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Finds out, before the work that makes its contents, whether `replacing` can write a file.

    Raises:
        RednetError: it cannot: a folder has its name, or no file can be made where it should be.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        kind = "it is a folder" if target.is_dir() else "not a regular file"
        raise RednetError(f"{path}: cannot be written ({kind})")
    # Folders that are missing will be made.
    above = next(folder for folder in target.absolute().parents if os.path.lexists(folder))
    if not above.is_dir():
        raise RednetError(f"{path}: cannot be written ({above} is not a folder)")
    if not os.access(above, os.W_OK | os.X_OK):
        raise RednetError(f"{path}: cannot be written (no permission to write in {above})")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file that appears whole or not at all.

    It is UTF-8, but for the bytes of file names that are not: they are written as they were.

    Raises:
        RednetError: the file cannot be written.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")


@contextlib.contextmanager
def locked_folder(path: Path, *, wait: bool = False) -> Iterator[Path]:
    """Yields an empty folder that no other process writes to, and deletes it at the end.

    Args:
        path: of the folder; what a process that was killed left in it is deleted.
        wait: for another process that has it.

    Raises:
        RednetError: another process has it, without `wait`.
        OSError: it cannot be made or deleted.
    """
    while True:
        try:
            path.mkdir(parents=True, exist_ok=True)
            # A lock goes with its process, however that ends.
            lock = os.open(path, os.O_RDONLY)
        except (FileExistsError, FileNotFoundError):
            # Who had it may have deleted it between the two, or while the first looked at it.
            if os.path.lexists(path) and not path.is_dir():
                raise
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if not _is_still(path, lock):
                continue
            _empty(path)
            try:
                yield path
            finally:
                _empty(path)
                path.rmdir()
            return
        except BlockingIOError:
            raise RednetError(f"{path}: another process has this folder") from None
        finally:
            os.close(lock)


def _is_still(path: Path, opened: int) -> bool:
    """Whether the folder that was opened still has its name: who had it before deleted it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(opened))
    except FileNotFoundError:
        return False


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        shutil.rmtree(entry)
