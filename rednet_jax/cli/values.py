"""What the text of an option stands for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rednet_jax.errors import RednetError


def face_count(text: str) -> int | None:
    """Returns a number of faces; None for `all`."""
    return None if text == "all" else int(text)


def video(text: str) -> str | int:
    """Returns a path, or the number of a camera where no file has the number as its name."""
    number = text.isascii() and text.isdecimal() and not Path(text).exists()
    return int(text) if number else text


def mesh(text: str) -> dict[str, str]:
    """Returns {'mesh.data': '4', 'mesh.fsdp': '2'} of data=4,fsdp=2."""
    axes = dict(part.partition("=")[::2] for part in text.split(","))
    if not set(axes) <= {"data", "fsdp"} or not all(size.isdecimal() for size in axes.values()):
        raise argparse.ArgumentTypeError(f"{text!r} is not like data=4,fsdp=2")
    return {f"mesh.{axis}": size for axis, size in axes.items()}


def split_list(text: str) -> tuple[str, Path]:
    """Returns ('train', Path('names.txt')) of train=names.txt."""
    split, equals, path = text.partition("=")
    if not (split and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not like train=names.txt")
    return split, Path(path)


def shares(text: str) -> tuple[float, ...]:
    """Returns the numbers of 0.8,0.1,0.1."""
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers like 0.8,0.1,0.1") from None


def whole_numbers(text: str) -> tuple[int, ...]:
    """Returns the numbers of 1,2,3."""
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not whole numbers like 1,2,3") from None


def parts(text: str) -> tuple[str, ...]:
    """Returns the names of detection,regression."""
    return tuple(text.split(","))


def fields_of(words: Sequence[str]) -> dict[str, str]:
    """Returns {'field': 'value', ...} of ['--field', 'value', '--part.field=value', ...]."""
    fields = {}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        given = value if equals else next(rest, None)
        if not name.startswith("--") or given is None:
            raise RednetError(f"{word}: fields of an experiment are given as --field VALUE")
        fields[name[2:].replace("-", "_")] = given
    return fields
