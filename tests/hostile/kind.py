"""The base of the kinds of input: valid files, their mutation, and the call that reads them."""

from __future__ import annotations

import dataclasses
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hostile.mutate import mutated_bytes, mutated_text
from PIL import Image

from rednet_jax.errors import RednetError

_MISSING = 0.05


@dataclasses.dataclass
class Kind:
    """A kind of input.

    Attributes:
        files: valid files by name; a name that ends in / is a folder of files, one of which is
            mutated.
        feed: reads a file or folder with the library; its further arguments are a folder for
            outputs and the name of the mutated file.
        text: whether 80 % of the mutations change the file as text.
    """

    files: dict[str, Any]
    feed: Callable[[Path, Path, str], None]
    text: bool = False

    def write(self, rng: random.Random, folder: Path) -> tuple[Path, str]:
        """Writes a mutated file or folder; returns its path, and the name of the mutated file."""
        name = rng.choice(sorted(self.files))
        whole = self.files[name]
        path = self.whole(name, folder)
        chosen = rng.choice(sorted(whole)) if isinstance(whole, dict) else name
        place, data = (path / chosen, whole[chosen]) if path.is_dir() else (path, whole)
        if rng.random() < _MISSING and path.is_dir():
            place.unlink()
        else:
            place.write_bytes(self._mutated(data, rng))
        return path, chosen

    def whole(self, name: str, folder: Path) -> Path:
        """Writes a valid file or folder, and returns its path."""
        path = folder / name.rstrip("/")
        contents = self.files[name]
        if isinstance(contents, bytes):
            path.write_bytes(contents)
            return path
        for inner, data in contents.items():
            (path / inner).parent.mkdir(parents=True, exist_ok=True)
            (path / inner).write_bytes(data)
        return path

    def _mutated(self, data: bytes, rng: random.Random) -> bytes:
        as_text = self.text and rng.random() < 0.8
        if not as_text:
            return mutated_bytes(data, rng)
        return mutated_text(data.decode("utf-8", "surrogateescape"), rng).encode(
            "utf-8", "surrogateescape"
        )


def each(*calls: Callable[[], Any]) -> None:
    """Runs all calls; each may raise a RednetError of one line."""
    for call in calls:
        try:
            call()
        except RednetError as error:
            assert "\n" not in str(error), f"more than one line: {error}"
            assert len(str(error)) < 2000, f"{len(str(error))} characters"


def network() -> Any:
    """Returns the config and variables of a network that runs in milliseconds."""
    import jax
    from conftest import NARROW

    from rednet_jax.model.config import RedNetConfig
    from rednet_jax.model.rednet import init

    config = RedNetConfig.preset("compact", **NARROW["compact"])
    return config, jax.tree.map(np.asarray, init(config, jax.random.key(0)))


def picture(seed: int = 0, size: tuple[int, int] = (48, 40)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(256, size=(6, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
