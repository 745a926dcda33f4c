"""Parses the values of options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rednet_jax.errors import RednetError


def face_count(text: str) -> int | None:
    """Returns a number of faces, or None for `all`."""
    return None if text == "all" else int(text)


def video(text: str) -> str | int:
    """Returns a path, or the number of a camera unless a file has that name."""
    number = text.isascii() and text.isdecimal() and not Path(text).exists()
    return int(text) if number else text


def mesh(text: str) -> dict[str, str]:
    """Returns {'mesh.data': '4', 'mesh.fsdp': '2'} for data=4,fsdp=2."""
    axes = dict(part.partition("=")[::2] for part in text.split(","))
    if not set(axes) <= {"data", "fsdp"} or not all(size.isdecimal() for size in axes.values()):
        raise argparse.ArgumentTypeError(f"{text!r} does not have the form data=4,fsdp=2")
    return {f"mesh.{axis}": size for axis, size in axes.items()}


def split_list(text: str) -> tuple[str, Path]:
    """Returns ('train', Path('names.txt')) for train=names.txt."""
    split, equals, path = text.partition("=")
    if not (split and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} does not have the form train=names.txt")
    return split, Path(path)


def shares(text: str) -> tuple[float, ...]:
    """Returns (0.8, 0.1, 0.1) for 0.8,0.1,0.1."""
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of numbers, such as 0.8,0.1,0.1"
        ) from None


def whole_numbers(text: str) -> tuple[int, ...]:
    """Returns (1, 2, 3) for 1,2,3."""
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of integers, such as 1,2,3"
        ) from None


def names(text: str) -> tuple[str, ...]:
    """Returns ('detection', 'regression') for detection,regression."""
    return tuple(text.split(","))


def fields_of(words: Sequence[str]) -> dict[str, str]:
    """Returns {'field': 'value', ...} for ['--field', 'value', '--part.field=value', ...]."""
    fields = {}
    rest = iter(words)
    for word in rest:
        name, equals, after = word.partition("=")
        value = after if equals else next(rest, None)
        if not name.startswith("--") or value is None:
            raise RednetError(f"{word}: a field of an experiment has the form --FIELD VALUE")
        # The name of a stage may have hyphens, those of fields have none.
        *stage, field = name[2:].split(".", 1) if "." in name else [name[2:]]
        fields[".".join([*stage, field.replace("-", "_")])] = value
    return fields
