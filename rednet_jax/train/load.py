"""The Python file that builds an experiment, and changes to it from a command."""

import dataclasses
import math
import runpy
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rednet_jax.errors import RednetError
from rednet_jax.train.experiment import Experiment, Stage


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
    path = Path(path)
    if not path.is_file():
        raise RednetError(f"{path}: no such experiment file")
    try:
        experiment = runpy.run_path(str(path)).get("experiment")
    except RednetError as cause:
        raise RednetError(f"{path}: {cause}") from cause
    except Exception as cause:
        first_line = (str(cause).splitlines() or [""])[0]
        raise RednetError(f"{path}: {type(cause).__name__}: {first_line}") from cause
    if not isinstance(experiment, Experiment):
        raise RednetError(f"{path}: assigns no Experiment to the name 'experiment'")
    return changed(experiment, overrides or {})


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
    hints = typing.get_type_hints(type(part))
    nested: dict[str, dict[str, str]] = {}
    values: dict[str, Any] = given
    for dotted, text in changes.items():
        name, _, rest = dotted.partition(".")
        if name not in hints:
            known = ", ".join(sorted({*hints, *also_known} - {"stages"}))
            raise RednetError(f"no field '{prefix}{name}'; known: {known}")
        is_part = dataclasses.is_dataclass(getattr(part, name))
        if is_part and not rest:
            raise RednetError(f"{prefix}{name}: give one of its fields, as {prefix}{name}.FIELD")
        if rest and not is_part:
            raise RednetError(f"{prefix}{name} has no field '{rest}'")
        if is_part:
            nested.setdefault(name, {})[rest] = text
        else:
            values[name] = _parse(hints[name], text, f"{prefix}{name}")
    for name, inner in nested.items():
        values[name] = _replaced(getattr(part, name), inner, f"{prefix}{name}.", ())
    return dataclasses.replace(part, **values)


def _parse(hint: Any, text: str, name: str) -> Any:
    """The value that `text` stands for in a field of type `hint`."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return tuple(_parse(inner[0], item, name) for item in text.split(",") if item.strip())
    if origin is Literal:
        if text in inner:
            return text
        raise RednetError(f"{name}: '{text}' is not one of {', '.join(inner)}")
    if hint is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise RednetError(f"{name}: '{text}' is not true or false")
    if hint not in (int, float, str):
        raise RednetError(f"{name} can be changed in the experiment's file alone")
    try:
        value = hint(text)
    except ValueError as cause:
        kind = "a whole number" if hint is int else "a number"
        raise RednetError(f"{name}: '{text}' is not {kind}") from cause
    if hint is float and not math.isfinite(value):
        raise RednetError(f"{name}: '{text}' is not a finite number")
    return value
