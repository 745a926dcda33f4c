"""Names of the functions and classes in a config, by which a run and its parts are identified."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import operator
import sys
import types
from typing import Any

from rednet_jax.errors import RednetError

_OWN_FILES = ("__main__", "<run_path>")
"""Modules of functions and classes of an experiment's own file."""

_ADDED = ("__repr__", "_abc_impl", "_pytree__")
"""Beginnings of the names of attributes that do not change what a class computes; Python and Flax
add them."""


def plain_function(value: Any, name: str = "") -> str:
    """Returns the name of a function or class for JSON.

    The name is followed by a digest, unless an installed module has the function or class under
    this name: of its source, defaults and the variables of the functions around it, or of a class's
    methods, attributes and bases. So a run is not resumed with another function of the same name,
    and functions that one factory makes are different. A partial function is followed by its
    arguments, and a frozen dataclass with `__call__` by its fields.

    Args:
        value: a function, a class, a bound method, a `functools.partial`, or a frozen dataclass.
        name: of the field, for messages.

    Raises:
        RednetError: it is another object, or is made with another: neither one of these nor a
            number, a string, a module, None, or lists, tuples and dicts of these.
    """
    return _text(value, name, ())


def plain_fields(value: Any) -> Any:
    """Returns a config as JSON values: dicts of dataclasses, lists of tuples, names of functions.

    Raises:
        RednetError: as `plain_function` raises it.
    """
    if callable(value):
        return plain_function(value)
    if dataclasses.is_dataclass(value):
        return {
            field.name: plain_fields(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    return [plain_fields(item) for item in value] if isinstance(value, tuple) else value


def _text(value: Any, name: str, outer: tuple[Any, ...]) -> str:
    """Returns the name; `outer` are the functions and classes whose digests need this one."""
    if isinstance(value, functools.partial):
        arguments = [repr(_plain(each, name, outer)) for each in value.args]
        arguments += [f"{k}={_plain(v, name, outer)!r}" for k, v in value.keywords.items()]
        return f"{_text(value.func, name, outer)}({', '.join(arguments)})"
    if _is_installed(value) or any(value is each for each in outer):
        return f"{value.__module__}.{_qualified(value)}"
    if isinstance(value, types.MethodType):
        return f"{_text(value.__func__, name, outer)} of {_plain(value.__self__, name, outer)}"
    wrapper = type(value).__module__.startswith(("jax", "flax", "functools"))
    if wrapper and hasattr(value, "__wrapped__"):
        # Such as jax.jit, which does not change a function's results.
        return _text(value.__wrapped__, name, outer)
    outer = (*outer, value)
    if isinstance(value, type):
        return _named(value, json.dumps(_members(value, name, outer)))
    if isinstance(value, types.FunctionType):
        made_with = _made_with(value, name, outer)
        return _named(value, _source(value) + (json.dumps(made_with) if made_with else ""))
    if _is_frozen(value):
        return f"{_text(type(value), name, outer)} {json.dumps(_fields(value, name, outer))}"
    raise _refused(value, name)


def _named(value: Any, content: str) -> str:
    module = "" if value.__module__ in _OWN_FILES else f"{value.__module__}."
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    return f"{module}{value.__qualname__} {digest}"


def _is_installed(value: Any) -> bool:
    """Whether a module other than the experiment's file has a value under its name."""
    module = getattr(value, "__module__", None)
    # Functions of jax.numpy that are objects have a `__name__` only.
    if module in _OWN_FILES or module not in sys.modules or not (named := _qualified(value)):
        return False
    try:
        return bool(operator.attrgetter(named)(sys.modules[module]) is value)
    except AttributeError:
        return False


def _qualified(value: Any) -> str:
    return str(getattr(value, "__qualname__", None) or getattr(value, "__name__", ""))


def _made_with(function: types.FunctionType, name: str, outer: tuple[Any, ...]) -> dict[str, Any]:
    """Returns a function's defaults, and the variables of the functions around it, if any."""
    variables = {}
    for variable, cell in zip(
        function.__code__.co_freevars, function.__closure__ or (), strict=True
    ):
        try:
            content = cell.cell_contents
        except ValueError:
            content = "not assigned"
        variables[variable] = _plain(content, name, outer)
    parts = {
        "variables": variables,
        "defaults": [_plain(each, name, outer) for each in function.__defaults__ or ()],
        "keywords": _plain(function.__kwdefaults__ or {}, name, outer),
    }
    return {key: part for key, part in parts.items() if part}


def _source(function: types.FunctionType) -> str:
    try:
        # Of the code, since `getsource` of a decorated function is that of the inner function.
        return inspect.getsource(function.__code__)
    except (OSError, TypeError):
        # Typed into an interpreter, or generated, such as the methods of a dataclass.
        return ""


def _members(kind: type, name: str, outer: tuple[Any, ...]) -> list[Any]:
    """Returns what a class does: its bases, methods and attributes."""
    members: dict[str, Any] = {}
    for member, value in vars(kind).items():
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        if isinstance(value, property):
            value = [value.fget, value.fset, value.fdel]
        if isinstance(value, types.MemberDescriptorType):
            # Of a name in `__slots__`.
            value = None
        # Methods without a source are those that `dataclass` generates from the attributes.
        method = isinstance(value, types.FunctionType) and _source(value)
        special = member.startswith("__") and not method
        if not special and not member.startswith(_ADDED):
            members[member] = _plain(value, name, outer)
    return [[_text(base, name, outer) for base in kind.__bases__], members]


def _fields(value: Any, name: str, outer: tuple[Any, ...]) -> dict[str, Any]:
    fields = dataclasses.fields(value)
    return {field.name: _plain(getattr(value, field.name), name, outer) for field in fields}


def _is_frozen(value: Any) -> bool:
    parameters = getattr(type(value), "__dataclass_params__", None)
    return parameters is not None and parameters.frozen is True


def _plain(value: Any, name: str, outer: tuple[Any, ...]) -> Any:
    """Returns a value that a function is made with as one that JSON can hold."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (tuple, list):
        return type(value)(_plain(item, name, outer) for item in value)
    if type(value) is dict and all(type(key) is str for key in value):
        return {key: _plain(item, name, outer) for key, item in value.items()}
    if isinstance(value, types.ModuleType):
        return f"module {value.__name__}"
    if callable(value):
        return _text(value, name, outer)
    if _is_frozen(value):
        return [_text(type(value), name, outer), _fields(value, name, outer)]
    raise _refused(value, name)


def _refused(value: Any, name: str) -> RednetError:
    return RednetError(
        f"{name or 'config'}: a run cannot record an object of the class {type(value).__name__}; "
        "use functions, classes, functools.partial, frozen dataclasses, numbers and strings"
    )
