"""One frozen description of a run, the Python file that builds it, and changes from a command."""

import dataclasses
import json
import runpy
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from rednet_jax.data.augment import Augmentation
from rednet_jax.errors import RednetError
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.losses import LossConfig


@dataclass(frozen=True)
class DataConfig:
    """What is trained on.

    Attributes:
        name: data set, as `rednet_jax.data.sources` knows it.
        train: split that is trained on.
        validation: split that checkpoints are chosen by.
        cached_size: pixels on each side of a cached face.
        cover: side of a cached face in sides of the network's crop: the room that augmentation has.
    """

    name: str = "300w"
    train: str = "train"
    validation: str = "validation"
    cached_size: int = 256
    cover: float = 1.6


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW, its schedule and the average of the weights.

    Attributes:
        learning_rate: at the end of the warm-up; falls to 0 along a cosine.
        warmup_steps: linear from 0.
        weight_decay: on arrays of two and more axes only, so not on scales and offsets.
        clip_norm: largest norm of the whole gradient.
        average: decay of the averaged weights a step; the first steps average faster.
    """

    learning_rate: float = 2e-3
    warmup_steps: int = 500
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    average: float = 0.999


@dataclass(frozen=True)
class Experiment:
    """Everything that decides a run's result.

    Attributes:
        name: of the run, for people.
        model: the network; its `feedback_steps` is the number of passes trained with.
        data: what is trained on.
        augmentation: draws on the training pictures.
        losses: terms and weights.
        optimiser: of the parameters.
        steps: optimiser steps in total; the schedule ends there.
        one_pass_steps: the first so many steps run a single pass of the feedback loop: while its
            maps say little, a second pass costs its time and teaches nothing.
        batch: faces a step.
        seed: of the initial weights, the order of the faces and every draw.
        evaluate_every: steps between validations; a checkpoint is written at each.
        log_every: steps between lines of metrics.jsonl; NaN is noticed then.
        keep: checkpoints kept, beside the best.

    Raises:
        RednetError: numbers that are out of range or contradict each other.
    """

    name: str
    model: RedNetConfig
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)
    losses: LossConfig = field(default_factory=LossConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    steps: int = 30_000
    one_pass_steps: int = 0
    batch: int = 64
    seed: int = 0
    evaluate_every: int = 1_000
    log_every: int = 50
    keep: int = 2

    def __post_init__(self) -> None:
        """Refuses numbers that contradict each other."""
        for name in ("steps", "batch", "evaluate_every", "log_every", "keep"):
            if getattr(self, name) < 1:
                raise RednetError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.one_pass_steps < self.steps:
            raise RednetError(
                f"one_pass_steps ({self.one_pass_steps}) must be below steps ({self.steps})"
            )
        if self.optimiser.warmup_steps >= self.steps:
            raise RednetError(
                f"optimiser.warmup_steps ({self.optimiser.warmup_steps}) must be below "
                f"steps ({self.steps})"
            )
        if self.data.cover < 1:
            raise RednetError(f"data.cover must be at least 1, not {self.data.cover}")

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings."""
        plain = dataclasses.asdict(self)
        plain["model"] = self.model.to_json()
        return typing.cast(dict[str, Any], json.loads(json.dumps(plain)))


def load_experiment(path: Path | str, overrides: Mapping[str, str] | None = None) -> Experiment:
    """Runs the Python file and takes its `experiment`.

    Args:
        path: a file that assigns an `Experiment` to the name `experiment`.
        overrides: field to new value as typed, fields of parts with dots:
            {'steps': '100', 'optimiser.learning_rate': '1e-3'}.

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
    # All at once, part by part: two changes that only fit together are checked together.
    return _replaced(experiment, dict(overrides or {}), "")


Part = TypeVar("Part")


def _replaced(part: Part, changes: dict[str, str], prefix: str) -> Part:
    hints = typing.get_type_hints(type(part))
    known = {one.name for one in dataclasses.fields(part) if one.init}  # type: ignore[arg-type]
    nested: dict[str, dict[str, str]] = {}
    values: dict[str, Any] = {}
    for dotted, text in changes.items():
        name, _, rest = dotted.partition(".")
        if name not in known:
            raise RednetError(f"no field '{prefix}{name}'; known: {', '.join(sorted(known))}")
        is_part = dataclasses.is_dataclass(getattr(part, name))
        if is_part != bool(rest):
            raise RednetError(f"field '{prefix}{dotted}': give one of its fields, as {name}.FIELD"
                              if is_part else f"field '{prefix}{name}' has no part '{rest}'")
        if is_part:
            nested.setdefault(name, {})[rest] = text
        else:
            values[name] = _parse(hints[name], text, f"{prefix}{name}")
    for name, inner in nested.items():
        values[name] = _replaced(getattr(part, name), inner, f"{prefix}{name}.")
    return dataclasses.replace(part, **values) if values else part  # type: ignore[type-var]


def _parse(hint: Any, text: str, name: str) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    wrong = RednetError(f"{name}: '{text}' is not {_describe(hint)}")
    if origin is Literal:
        if text not in inner:
            raise wrong
        return text
    if origin in (typing.Union, types.UnionType):
        if text.lower() == "none" and type(None) in inner:
            return None
        (hint,) = (one for one in inner if one is not type(None))
        return _parse(hint, text, name)
    if origin is tuple:
        item = inner[0]
        return tuple(_parse(item, one.strip(), name) for one in text.split(",") if one.strip())
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise wrong
        return text.lower() == "true"
    if hint in (int, float, str):
        try:
            return hint(text.replace("_", "") if hint is int else text)
        except ValueError as cause:
            raise wrong from cause
    raise RednetError(f"{name}: cannot be given as text; change it in the experiment's file")


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    names = {bool: "true or false", int: "a whole number", float: "a number"}
    return names.get(hint, str(hint))
