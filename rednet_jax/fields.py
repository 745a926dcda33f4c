"""Checks, parses and compares the fields of config dataclasses by their type hints.

The hints are bool, int, float, str, Path, Literal of strings, a dataclass, `Callable[...]` or a
protocol with `__call__`, tuples of these, and unions of them with `|`. An int is accepted for a
float. Values are not converted. A list in place of a tuple is an error, since configs are static
arguments of compiled functions and must be hashable. NumPy scalars are errors, since JSON has no
such type.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import json
import math
import operator
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rednet_jax.errors import RednetError
from rednet_jax.functions import plain_function

_KINDS = {
    bool: "true or false (bool)",
    int: "a whole number (int)",
    float: "a finite number (float)",
    str: "a string (str)",
    type(None): "None",
}

_LONGEST = 80
"""Maximum number of characters of a value in a message."""


def field_types(config: Any) -> dict[str, Any]:
    """Returns the type hint of each field of a dataclass, by name."""
    return _field_types(config)


@functools.cache
def _field_types(config: Any) -> dict[str, Any]:
    # Cached, since the evaluation of a config's hints takes half a millisecond.
    hints = typing.get_type_hints(config)
    return {field.name: hints[field.name] for field in dataclasses.fields(config)}


def check_fields(config: Any, prefix: str) -> None:
    """Checks the types of a config's fields; `__post_init__` calls it before its other checks.

    Args:
        config: a dataclass.
        prefix: prefix of the fields' names in messages, such as `losses.`, as on the command line.

    Raises:
        RednetError: a value is not of its field's type, or not one of its choices, or a function
            that `plain_function` does not accept.
    """
    for name, hint in field_types(type(config)).items():
        value = getattr(config, name)
        _check(hint, value, f"{prefix}{name}")
        for item in value if isinstance(value, tuple) else (value,):
            if callable(item):
                plain_function(item, f"{prefix}{name}")


def parse_field(hint: Any, text: str, name: str) -> Any:
    """Parses the text of a field's value.

    Args:
        hint: type hint of the field.
        text: the text; items of a tuple are separated by commas.
        name: of the field, for messages.

    Raises:
        RednetError: the text is not a value of the type, or the type cannot be parsed from text.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return tuple(parse_field(inner[0], item, name) for item in text.split(",") if item.strip())
    if origin is not Literal and hint not in (bool, int, float, str):
        raise RednetError(f"{name} can be changed only in the experiment's file")
    value: Any = text
    if hint is bool:
        value = {"true": True, "false": False}.get(text.lower(), text)
    elif hint in (int, float):
        try:
            value = hint(text)
        except ValueError:
            value = text
    if not _fits(hint, value):
        raise RednetError(f"{name}: '{text}' is not {_described(hint)}")
    return value


def shown(value: Any) -> str:
    """Returns the text of a value for a message: a single line of limited length."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def integer(value: Any, name: str, least: int = 1, most: int | None = None) -> int:
    """Returns an integer of any type, such as one of NumPy's, as an int.

    Raises:
        RednetError: it is not an integer, or is below `least` or above `most`. A bool is not an
            integer.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise RednetError(f"{name} must be an integer, not {shown(value)}")
    if number < least:
        raise RednetError(f"{name} must be {least} or more, not {number}")
    if most is not None and number > most:
        raise RednetError(f"{name} must be at most {most}, not {number}")
    return number


class Difference(NamedTuple):
    """A field in which two configs differ.

    Attributes:
        name: such as `stages[0].losses.sigma`.
        first: value in the first config; None if it has no such field.
        second: value in the second config, likewise.
    """

    name: str
    first: Any
    second: Any


def differences(first: Any, second: Any, name: str = "") -> list[Difference]:
    """Returns all fields in which two configs, as JSON values, differ."""
    if isinstance(first, list) and isinstance(second, list):
        first, second = ({f"[{i}]": item for i, item in enumerate(v)} for v in (first, second))
    if isinstance(first, dict) and isinstance(second, dict):
        return [
            difference
            for key in dict.fromkeys([*first, *second])
            for difference in differences(first.get(key), second.get(key), _joined(name, key))
        ]
    return [] if first == second else [Difference(name, first, second)]


def _joined(name: str, key: str) -> str:
    return f"{name}{key}" if key.startswith("[") else f"{name}.{key}".lstrip(".")


FORMER = "former name"
"""Key of a dataclass field's metadata for the field's name in earlier versions."""


FORMER_VALUES = "former values"
"""Key of a dataclass field's metadata for a mapping of values in earlier versions to new values."""


def current_names(plain: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """Converts a config's JSON object of any version to the current names and values.

    Args:
        plain: the JSON object.
        config: a config of this class, or the class.
    """
    fields = dataclasses.fields(config)
    new_names = {field.metadata.get(FORMER): field.name for field in fields}
    converted = {new_names.get(name, name): value for name, value in plain.items()}
    for field in fields:
        values = field.metadata.get(FORMER_VALUES, {})
        if field.name in converted and type(converted[field.name]) in (int, str):
            converted[field.name] = values.get(converted[field.name], converted[field.name])
    return converted


def with_defaults(plain: Any, config: Any) -> Any:
    """Converts a config's JSON value of an earlier version, and adds the defaults of new fields.

    Args:
        plain: the JSON value.
        config: a config with the same structure; its classes have the defaults.
    """
    if isinstance(plain, list) and isinstance(config, tuple):
        return [with_defaults(*pair) for pair in zip(plain, config, strict=False)] + plain[
            len(config) :
        ]
    if not isinstance(plain, dict) or not dataclasses.is_dataclass(config):
        return plain
    filled = current_names(plain, config)
    for field in dataclasses.fields(config):
        if field.name in filled:
            filled[field.name] = with_defaults(filled[field.name], getattr(config, field.name))
        elif field.default is not dataclasses.MISSING:
            filled[field.name] = _plain(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            filled[field.name] = _plain(field.default_factory())
    return filled


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=dataclasses.asdict))


def _check(hint: Any, value: Any, name: str) -> None:
    if _fits(hint, value):
        return
    if typing.get_origin(hint) is tuple and type(value) is tuple:
        for number, item in enumerate(value):
            _check(typing.get_args(hint)[0], item, f"{name}[{number}]")
    fitting = [shown(option) for option in _alternatives(value) if _fits(hint, option)]
    remedy = f"; write {fitting[0]}" if fitting else ""
    raise RednetError(f"{name}: {shown(value)} is not {_described(hint)}{remedy}")


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value is of the type of a hint."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(option, value) for option in inner)
    if origin is tuple and inner[-1] is Ellipsis:
        return type(value) is tuple and all(_fits(inner[0], item) for item in value)
    if origin is tuple:
        same_length = type(value) is tuple and len(value) == len(inner)
        return same_length and all(map(_fits, inner, value))
    if origin is Literal:
        return type(value) is str and value in inner
    if origin is collections.abc.Callable or getattr(hint, "_is_protocol", False):
        return callable(value)
    if hint is Path:
        return isinstance(value, Path)
    if hint is float:
        return type(value) in (int, float) and _is_finite(value)
    if hint in _KINDS:
        # Not isinstance, for which True is an int, and NumPy's float64 a float.
        return type(value) is hint
    if dataclasses.is_dataclass(hint):
        return isinstance(value, typing.cast(type[Any], hint))
    raise TypeError(f"fields of type {hint} are not supported")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        # An int beyond the range of floats.
        return False


def _described(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_described(option) for option in inner)
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"a tuple of {', '.join(map(_described, inner))}"
    if origin is tuple:
        return f"a tuple, each item {_described(inner[0])}"
    if origin is collections.abc.Callable or getattr(hint, "_is_protocol", False):
        return "a function"
    if origin is Literal:
        return f"one of {', '.join(inner)}"
    return _KINDS.get(hint) or f"a {hint.__name__}"


def _alternatives(value: Any) -> list[Any]:
    """Values of other types that the user may have meant."""
    alternatives: list[Any] = [tuple(value) if isinstance(value, list) else (value,)]
    if isinstance(value, float) and value.is_integer():
        alternatives.append(int(value))
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        alternatives.append(value.item())
    return alternatives
