"""Files of a source folder by name, and the package's split lists."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path


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


def without_ending(file: str) -> str:
    """Returns a path without its extension."""
    return re.sub(r"\.\w+$", "", file)


def read_list(name: str) -> tuple[str, ...]:
    """Returns the lines of one of the package's split lists, without comments."""
    text = resources.files("rednet_jax.data").joinpath(f"splits/{name}.txt").read_text()
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))
