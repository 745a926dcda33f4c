"""The Python file that builds an experiment, and changes to it from a command."""

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
    """Runs the Python file and takes its `experiment`.

    Args:
        path: a file that assigns an `Experiment` to the name `experiment`.
        overrides: field to new value as typed, fields of parts with dots. A field of stages alone
            changes every stage, or with the stage's name in front that one:
            {'seed': '1', 'batch': '32', 'clips.optimiser.learning_rate': '1e-3'}.

    Raises:
        RednetError: no such file, the file fails, it builds no experiment, or a field or value
            that does not fit.
    """
    return changed(run_file(path, Experiment), overrides or {})


def run_file(path: Path | str, kind: type[Built]) -> Built:
    """Runs a Python file and returns what it assigns to the lower-case name of a class.

    Args:
        path: of the file.
        kind: the class, such as `Experiment` for the name `experiment`.

    Raises:
        RednetError: no such file, the file fails or exits, or it builds nothing of that class.
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
    """Returns the experiment with fields changed; arguments and errors as in `load_experiment`."""
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
                # What is said of one stage counts before what is said of all.
                changes.setdefault(dotted, text)
        elif first == "stages":
            raise RednetError(
                f"no field 'stages'; change {', '.join(fields)} of all, or of one:"
                f" {', '.join(f'{name}.FIELD' for name in names)}"
            )
        else:
            own[dotted] = text
    # All at once, part by part: two changes that only fit together are checked together.
    stages = tuple(
        _replaced(stage, changes, "", ())
        for stage, changes in zip(experiment.stages, of_stages, strict=True)
    )
    result: Experiment = _replaced(experiment, own, "", fields, stages=stages)
    return result


def _replaced(
    part: Any, changes: dict[str, str], prefix: str, also_known: typing.Iterable[str], **given: Any
) -> Any:
    hints = field_types(type(part))
    nested: dict[str, dict[str, str]] = {}
    values: dict[str, Any] = given
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
            raise RednetError(f"{prefix}{name}: give one of its fields, as {prefix}{name}.FIELD")
        if rest and not is_part:
            raise RednetError(f"{prefix}{name} has no field '{rest}'")
        if is_part:
            nested.setdefault(name, {})[rest] = text
        else:
            values[name] = parse_field(hints[name], text, f"{prefix}{name}")
    for name, inner in nested.items():
        values[name] = _replaced(getattr(part, name), inner, f"{prefix}{name}.", ())
    return dataclasses.replace(part, **values)
