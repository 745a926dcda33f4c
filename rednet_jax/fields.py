"""Fields of config dataclasses: checked by their type hints, parsed from text, compared.

The hints are bool, int, float, str, Path, Literal of strings, a dataclass, `Callable[...]` or a
protocol with `__call__`, tuples of these, and unions of them with `|`. An int is accepted
for a float. Nothing is converted: a config holds what it was given. So a list is refused where a
tuple is needed (configs are static arguments of compiled functions and need a hash), and so are
numpy's scalars (JSON has none).
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import hashlib
import inspect
import json
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rednet_jax.errors import RednetError

_KINDS = {
    bool: "true or false (bool)",
    int: "a whole number (int)",
    float: "a finite number (float)",
    str: "a string (str)",
    type(None): "None",
}

_LONGEST = 80
"""Characters of a value that a message shows."""


def field_types(config: Any) -> dict[str, Any]:
    """Returns the type hint of each field of a dataclass, by name."""
    return _field_types(config)


@functools.cache
def _field_types(config: Any) -> dict[str, Any]:
    # Evaluating the hints of one config takes half a millisecond.
    hints = typing.get_type_hints(config)
    return {field.name: hints[field.name] for field in dataclasses.fields(config)}


def check_fields(config: Any, prefix: str) -> None:
    """Checks the values of a config's fields; `__post_init__` calls it before its own rules.

    Args:
        config: a dataclass.
        prefix: of the fields' names in messages, such as `losses.`: how an experiment's part is
            named on the command line.

    Raises:
        RednetError: a value that is not of its field's type, or none of its choices.
    """
    for name, hint in field_types(type(config)).items():
        _check(hint, getattr(config, name), f"{prefix}{name}")


def parse_field(hint: Any, text: str, name: str) -> Any:
    """Returns the value that a text stands for in a field.

    Args:
        hint: of the field.
        text: as typed; the items of a tuple are separated by commas.
        name: of the field, for messages.

    Raises:
        RednetError: no such value, or a field of a type that is not written as text.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return tuple(parse_field(inner[0], item, name) for item in text.split(",") if item.strip())
    if origin is not Literal and hint not in (bool, int, float, str):
        raise RednetError(f"{name} can be changed in the experiment's file alone")
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


def plain_function(value: Any) -> str:
    """Returns what JSON holds of a function or class: its name, and what tells it from others.

    One of an experiment's own file has a digest of its source, so that a run is not resumed with
    another function of the same name.
    """
    if isinstance(value, functools.partial):
        given = [*map(repr, value.args), *(f"{k}={v!r}" for k, v in value.keywords.items())]
        return f"{plain_function(value.func)}({', '.join(given)})"
    if not hasattr(value, "__qualname__"):
        return plain_function(type(value))
    if value.__module__ not in ("__main__", "<run_path>"):
        return f"{value.__module__}.{value.__qualname__}"
    try:
        source = inspect.getsource(value)
    except (OSError, TypeError):
        return str(value.__qualname__)
    return f"{value.__qualname__} {hashlib.sha256(source.encode()).hexdigest()[:12]}"


def shown(value: Any) -> str:
    """Returns a value as a message shows it: on one line, and cut where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


class Difference(NamedTuple):
    """A field in which two configs differ.

    Attributes:
        name: such as `stages[0].losses.sigma`.
        one: its value in the first; None where it has no such field.
        other: its value in the second.
    """

    name: str
    one: Any
    other: Any


def differences(one: Any, other: Any, name: str = "") -> list[Difference]:
    """Returns all fields in which two configs, as plain JSON, differ."""
    if isinstance(one, list) and isinstance(other, list):
        one, other = ({f"[{i}]": item for i, item in enumerate(part)} for part in (one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            difference
            for key in dict.fromkeys([*one, *other])
            for difference in differences(one.get(key), other.get(key), _joined(name, key))
        ]
    return [] if one == other else [Difference(name, one, other)]


def _joined(name: str, key: str) -> str:
    return f"{name}{key}" if key.startswith("[") else f"{name}.{key}".lstrip(".")


FORMER = "former name"
"""Key of a dataclass field's metadata: the name under which earlier versions wrote it."""


FORMER_VALUES = "former values"
"""Key of a dataclass field's metadata: present values by those that earlier versions wrote."""


def current_names(plain: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """Returns a config's JSON with renamed fields under their present names, and present values.

    Args:
        plain: the JSON, as any version wrote it.
        config: a config of the same form, or its class.
    """
    fields = dataclasses.fields(config)
    present = {field.metadata.get(FORMER): field.name for field in fields}
    named = {present.get(name, name): value for name, value in plain.items()}
    for field in fields:
        values = field.metadata.get(FORMER_VALUES, {})
        if field.name in named and type(named[field.name]) in (int, str):
            named[field.name] = values.get(named[field.name], named[field.name])
    return named


def with_defaults(plain: Any, config: Any) -> Any:
    """Returns a config's JSON, as an earlier version wrote it, with fields added or renamed since.

    Args:
        plain: the JSON.
        config: a config of the same form; a field that `plain` lacks is given its class's default.
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
    meant = [shown(one) for one in _alternatives(value) if _fits(hint, one)]
    remedy = f"; write {meant[0]}" if meant else ""
    raise RednetError(f"{name}: {shown(value)} is not {_described(hint)}{remedy}")


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value is one of a type hint's."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(one, value) for one in inner)
    if origin is tuple and inner[-1] is Ellipsis:
        return type(value) is tuple and all(_fits(inner[0], item) for item in value)
    if origin is tuple:
        alike = type(value) is tuple and len(value) == len(inner)
        return alike and all(map(_fits, inner, value))
    if origin is Literal:
        return type(value) is str and value in inner
    if origin is collections.abc.Callable or getattr(hint, "_is_protocol", False):
        return callable(value)
    if hint is Path:
        return isinstance(value, Path)
    if hint is float:
        return type(value) in (int, float) and _is_finite(value)
    if hint in _KINDS:
        # Not isinstance: True is an int, and numpy's float64 is a float.
        return type(value) is hint
    if dataclasses.is_dataclass(hint):
        return isinstance(value, typing.cast(type[Any], hint))
    raise TypeError(f"fields of type {hint} are not understood")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        # An int that no float holds.
        return False


def _described(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_described(one) for one in inner)
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
    """What may be meant by a value of a wrong type."""
    alternatives: list[Any] = [tuple(value) if isinstance(value, list) else (value,)]
    if isinstance(value, float) and value.is_integer():
        alternatives.append(int(value))
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        alternatives.append(value.item())
    return alternatives
