"""Files of a source folder by name, and the package's split lists."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path

from rednet_jax.media.images import ENDINGS


def files_by_name(
    root: Path, folders: Iterable[str], endings: Iterable[str]
) -> dict[str, list[str]]:
    """Returns the files in some folders, by name: the path relative to `root` without extension.

    Args:
        root: the source folder.
        folders: relative to `root`; searched without their subfolders, skipped if they are missing.
        endings: extensions in lower case, matched in any case. Hidden files are ignored.

    Returns:
        Paths relative to `root` with `/`; several if files differ in their extensions only. In the
        order of the folders, then by file name.
    """
    extensions = tuple(endings)
    files_of: dict[str, list[str]] = {}
    for folder in folders:
        files = sorted((root / folder).iterdir()) if (root / folder).is_dir() else []
        for path in files:
            if path.suffix.lower() in extensions and not path.name.startswith("."):
                relative = path.relative_to(root)
                files_of.setdefault(relative.with_suffix("").as_posix(), []).append(
                    relative.as_posix()
                )
    return files_of


def files_below(root: Path, endings: Iterable[str]) -> dict[str, list[str]]:
    """Returns the files as `files_by_name`, of a folder and all folders below, without hidden."""
    folders = [
        path.relative_to(root).as_posix()
        for path in (root, *sorted(root.rglob("*")))
        if path.is_dir() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]
    return files_by_name(root, folders, endings)


def first_image(files: Iterable[str]) -> str | None:
    """Returns the image whose extension is the first in `ENDINGS`; None if there is no image."""

    def order(file: str) -> tuple[int, str]:
        return ENDINGS.index(Path(file).suffix.lower()), file

    return min(files, key=order, default=None)


def image_finder(root: Path) -> Callable[[str], str | None]:
    """Returns a function of the name of an image in a list, relative to `root`.

    The function returns the path of the file relative to `root`, or None. A name has no extension,
    the file's, or the file's in another case. Of several extensions the first of `ENDINGS` is
    taken.
    """

    @functools.cache
    def extensions(folder: Path) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path in folder.iterdir():
            if path.suffix.lower() in ENDINGS:
                found.setdefault(path.stem, []).append(path.suffix)
        return found

    def find(name: str) -> str | None:
        # The file system does not allow every name.
        with contextlib.suppress(OSError, ValueError):
            path = root / name
            if path.is_file():
                return name
            known = extensions(path.parent)
            added = [f"{name}{extension}" for extension in known.get(path.name, [])]
            stem = name.removesuffix(path.suffix)
            changed = [
                f"{stem}{extension}"
                for extension in known.get(path.stem, [])
                if extension.lower() == path.suffix.lower()
            ]
            return first_image(file for file in (*added, *changed) if (root / file).is_file())
        return None

    return find


def lower_ending(file: str) -> str:
    """Returns a path with its extension in lower case."""
    return re.sub(r"\.\w+$", lambda ending: ending[0].lower(), file)


def without_ending(file: str) -> str:
    """Returns a path without its extension."""
    return re.sub(r"\.\w+$", "", file)


def hash_share(name: str) -> float:
    """Returns a number in [0, 1) from the SHA-256 of a name, which divides samples into splits."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:4]) / 2**32


def read_list(name: str) -> tuple[str, ...]:
    """Returns the lines of one of the package's split lists, without comments."""
    text = resources.files("rednet_jax.data").joinpath(f"splits/{name}.txt").read_text()
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))
