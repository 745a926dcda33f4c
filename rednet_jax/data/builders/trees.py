"""Files of a publisher's tree by name, and the split lists of the package."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path


def files_by_name(
    root: Path, folders: Iterable[str], endings: Iterable[str]
) -> dict[str, list[str]]:
    """Returns the files that lie in some folders, by name: the path below `root` without ending.

    Args:
        root: the source folder.
        folders: below it, without those inside them; one that is not there holds no file.
        endings: lower-case; files may have them in any case. Hidden files do not count.

    Returns:
        Paths below `root` with `/`; several where only their endings differ. In the order of the
        folders, in each by file name.
    """
    taken = tuple(endings)
    found: dict[str, list[str]] = {}
    for folder in folders:
        files = sorted((root / folder).iterdir()) if (root / folder).is_dir() else []
        for path in files:
            if path.suffix.lower() in taken and not path.name.startswith("."):
                relative = path.relative_to(root)
                found.setdefault(relative.with_suffix("").as_posix(), []).append(
                    relative.as_posix()
                )
    return found


def without_ending(file: str) -> str:
    """Returns the name of an image's face: its path without extension."""
    return re.sub(r"\.\w+$", "", file)


def read_list(name: str) -> tuple[str, ...]:
    """Returns the lines of a split list of the package, without its comments."""
    text = resources.files("rednet_jax.data").joinpath(f"splits/{name}.txt").read_text()
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))
