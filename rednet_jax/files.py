"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from rednet_jax.errors import RednetError


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a partial file's path to write to; at the end that file takes the place of `path`.

    After an error inside the block, `path` is as it was. Its folder is made if need be.

    Raises:
        RednetError: the file cannot be written.
    """
    target = Path(path)
    partial = target.parent / f".{target.name}.{os.getpid()}.partial"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise RednetError(f"{path}: cannot be written ({error.strerror or error})") from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file that appears whole or not at all.

    It is UTF-8, but for the bytes of file names that are not: they are written as they were.

    Raises:
        RednetError: the file cannot be written.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")
