"""Experiments from Python files, and overrides of their fields from the command line."""

import dataclasses
import runpy
import traceback
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from rednet_jax.errors import RednetError
from rednet_jax.fields import field_types, parse_field
from rednet_jax.landmarks.builtin import load_scheme
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.train.experiment import Experiment, Stage

Built = TypeVar("Built")


def load_experiment(path: Path | str, overrides: Mapping[str, str] | None = None) -> Experiment:
    """Runs a Python file and returns its `experiment`.

    Args:
        path: a file that assigns an `Experiment` to the name `experiment`.
        overrides: fields and their new values as texts; fields of parts have dots. A field of
            `Stage` changes all stages, or a single one if the stage's name is in front:
            {'seed': '1', 'batch': '32', 'clips.optimiser.learning_rate': '1e-3'}.

    Raises:
        RednetError: there is no such file, it fails, it assigns no experiment, or a field or value
            is invalid.
    """
    return changed(run_file(path, Experiment), overrides or {})


def run_file(path: Path | str, kind: type[Built]) -> Built:
    """Runs a Python file and returns the object that it assigns to a class's lower-case name.

    Args:
        path: of the file.
        kind: the class, such as `Experiment` for the name `experiment`.

    Raises:
        RednetError: there is no such file, it fails or exits, or it assigns no such object.
    """
    path, name = Path(path), kind.__name__.lower()
    if not path.is_file():
        raise RednetError(f"{path}: no such {name} file")
    try:
        built = runpy.run_path(str(path)).get(name)
    except (Exception, SystemExit) as cause:
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(cause.__traceback__)
            if frame.filename == str(path)
        ]
        place = f"{path}: line {lines[-1]}" if lines else str(path)
        raise RednetError(f"{place}: {_complaint(cause)}") from cause
    if not isinstance(built, kind):
        raise RednetError(f"{path}: assigns no {kind.__name__} to the name '{name}'")
    return built


def _complaint(cause: BaseException) -> str:
    first_line = (str(cause).splitlines() or [""])[0]
    if isinstance(cause, RednetError):
        return first_line
    if isinstance(cause, SystemExit):
        return f"the file exits: {first_line}"
    return f"{type(cause).__name__}: {first_line}"


def changed(experiment: Experiment, overrides: Mapping[str, str]) -> Experiment:
    """Returns the experiment with overrides; arguments and errors as in `load_experiment`."""
    own: dict[str, str] = {}
    of_stages: list[dict[str, str]] = [{} for _ in experiment.stages]
    names = [stage.name for stage in experiment.stages]
    fields = [field.name for field in dataclasses.fields(Stage) if field.name != "name"]
    for dotted, text in overrides.items():
        first, _, rest = dotted.partition(".")
        if first in names and rest:
            of_stages[names.index(first)][rest] = text
        elif first in fields:
            for changes in of_stages:
                # An override of a single stage has precedence.
                changes.setdefault(dotted, text)
        elif first == "stages":
            raise RednetError(
                f"no field 'stages'; change {', '.join(fields)} of all stages, or of a single one:"
                f" {', '.join(f'{name}.FIELD' for name in names)}"
            )
        else:
            own[dotted] = text
    # All fields of a part change at once: two overrides may be valid only together.
    stages = tuple(
        _replaced(stage, changes, "", ())
        for stage, changes in zip(experiment.stages, of_stages, strict=True)
    )
    result: Experiment = _replaced(experiment, own, "", fields, stages=stages)
    return result


def _replaced(
    part: Any,
    changes: dict[str, str],
    prefix: str,
    also_known: typing.Iterable[str],
    **values: Any,
) -> Any:
    hints = field_types(type(part))
    nested: dict[str, dict[str, str]] = {}
    for dotted, text in changes.items():
        name, _, rest = dotted.partition(".")
        if name not in hints or (rest and hints[name] is Scheme):
            known = ", ".join(sorted({*hints, *also_known} - {"stages"}))
            raise RednetError(f"no field '{prefix}{name}'; known: {known}")
        if hints[name] is Scheme:
            values[name] = load_scheme(text)
            continue
        is_part = dataclasses.is_dataclass(getattr(part, name))
        if is_part and not rest:
            raise RednetError(f"{prefix}{name}: set one of its fields, as {prefix}{name}.FIELD")
        if rest and not is_part:
            raise RednetError(f"{prefix}{name} has no field '{rest}'")
        if is_part:
            nested.setdefault(name, {})[rest] = text
        else:
            values[name] = parse_field(hints[name], text, f"{prefix}{name}")
    for name, inner in nested.items():
        values[name] = _replaced(getattr(part, name), inner, f"{prefix}{name}.", ())
    return dataclasses.replace(part, **values)
