"""One frozen description of a run, the Python file that builds it, and changes from a command."""

import dataclasses
import json
import math
import runpy
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rednet_jax.data.augment import Augmentation
from rednet_jax.data.synthetic.generate import SyntheticConfig
from rednet_jax.errors import RednetError
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.losses import LossConfig


@dataclass(frozen=True)
class DataConfig:
    """Prepared data sets that are trained on, mixed.

    Attributes:
        train: NAME/SPLIT of each; of one that holds clips, every labelled frame is a face.
        weights: of each of `train`; a weight's part of their sum is its part of every batch, or
            of some batches where the parts do not come out even.
        validation: NAME/SPLIT that checkpoints are chosen by.
        styles: whose labels are trained on; points labelled by others' conventions do not count.
        cached_size: pixels on each side of a cached face, twice what the network sees.
        cover: side of a cached face in sides of the network's crop: the room that augmentation has.
    """

    train: tuple[str, ...] = ("300w/train",)
    weights: tuple[float, ...] = (1.0,)
    validation: str = "300w/validation"
    styles: tuple[str, ...] = ("300w",)
    cached_size: int = 256
    cover: float = 1.6

    def __post_init__(self) -> None:
        """Refuses a mix that says nothing, and a cached face smaller than what the network sees."""
        for split in (*self.train, self.validation):
            if split.count("/") != 1:
                raise RednetError(f"data: '{split}' is not NAME/SPLIT, such as 300w/train")
        if not self.train or len(self.weights) != len(self.train) or min(self.weights) <= 0:
            raise RednetError(
                f"data.weights needs a weight above 0 for each of data.train ({len(self.train)})"
            )
        _at_least("data.cached_size", self.cached_size, 1)
        _at_least("data.cover", self.cover, 1)


@dataclass(frozen=True)
class GeneratedData:
    """Faces that the step draws on the device: nothing is prepared or read.

    The generator displaces its crops and paints noise and occluders itself, so these faces are not
    augmented again.

    Attributes:
        faces: how far the draws go; `size` and `margin` are those of the network's crop.
        validation: generated faces that checkpoints are chosen by.
    """

    faces: SyntheticConfig = field(default_factory=SyntheticConfig)
    validation: int = 128

    def __post_init__(self) -> None:
        """Refuses a validation without faces."""
        _at_least("data.validation", self.validation, 1)


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

    def __post_init__(self) -> None:
        """Refuses numbers with which nothing would be learned."""
        for name in ("learning_rate", "clip_norm"):
            if getattr(self, name) <= 0:
                raise RednetError(f"optimiser.{name} must be above 0, not {getattr(self, name)}")
        for name in ("warmup_steps", "weight_decay", "average"):
            _at_least(f"optimiser.{name}", getattr(self, name), 0)
        if self.average >= 1:
            raise RednetError(f"optimiser.average must be below 1, not {self.average}")


@dataclass(frozen=True)
class Experiment:
    """Everything that decides a run's result.

    Attributes:
        name: of the run, for people.
        model: the network; its `feedback_steps` is the number of passes trained with.
        data: what is trained on.
        augmentation: draws on the training pictures, if they are not generated.
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
    data: DataConfig | GeneratedData = field(default_factory=DataConfig)
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
            _at_least(name, getattr(self, name), 1)
        for name in ("one_pass_steps", "seed"):
            _at_least(name, getattr(self, name), 0)
        within = {
            "one_pass_steps": self.one_pass_steps,
            "optimiser.warmup_steps": self.optimiser.warmup_steps,
        }
        for name, value in within.items():
            if value >= self.steps:
                raise RednetError(f"{name} ({value}) must be below steps ({self.steps})")
        if isinstance(self.data, GeneratedData):
            drawn = (self.data.faces.size, self.data.faces.margin)
            if drawn != (self.model.image_size, self.model.crop_margin):
                raise RednetError(
                    f"data.faces are drawn with (size, margin) {drawn}, but the network sees "
                    f"{(self.model.image_size, self.model.crop_margin)}"
                )
        if self.model.architecture == "ijcv_resnet":
            raise RednetError(
                "model.architecture is ijcv_resnet, whose maps have no background class; "
                "the losses here need one"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings."""
        plain = dataclasses.asdict(self)
        plain["model"] = self.model.to_json()
        return typing.cast(dict[str, Any], json.loads(json.dumps(plain)))


def _at_least(name: str, value: float, least: int) -> None:
    if value < least:
        raise RednetError(f"{name} must be at least {least}, not {value}")


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
    changed: Experiment = _replaced(experiment, dict(overrides or {}), "")
    return changed


def _replaced(part: Any, changes: dict[str, str], prefix: str) -> Any:
    hints = typing.get_type_hints(type(part))
    nested: dict[str, dict[str, str]] = {}
    values: dict[str, Any] = {}
    for dotted, text in changes.items():
        name, _, rest = dotted.partition(".")
        if name not in hints:
            raise RednetError(f"no field '{prefix}{name}'; known: {', '.join(sorted(hints))}")
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
        values[name] = _replaced(getattr(part, name), inner, f"{prefix}{name}.")
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
    try:
        value = hint(text)
    except ValueError as cause:
        kind = "a whole number" if hint is int else "a number"
        raise RednetError(f"{name}: '{text}' is not {kind}") from cause
    if hint is float and not math.isfinite(value):
        raise RednetError(f"{name}: '{text}' is not a finite number")
    return value
