"""One frozen description of a run: the network, and the stages that it is trained in."""

import dataclasses
import json
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import optax

from rednet_jax.data.augment import Augmentation, Bursts, Drift
from rednet_jax.data.pipeline import ClipConfig
from rednet_jax.data.synthetic.generate import SyntheticConfig
from rednet_jax.errors import RednetError
from rednet_jax.fields import check_fields, plain_function
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.losses import TERMS, ExtraLoss, LossConfig

_METRICS = ("loss", "total", "nme", "gradient_norm", "loss_of_face", "stability")


def _at_least(name: str, value: float, least: int) -> None:
    if value < least:
        raise RednetError(f"{name} must be at least {least}, not {value}")


@dataclass(frozen=True)
class DataConfig:
    """Prepared data sets that are trained on, mixed.

    Attributes:
        train: NAME/SPLIT of each; where single faces are read, every labelled frame of a clip is
            one; where clips are, an image is one that shows it in every frame.
        weights: of each of `train`; a weight's part of their sum is its part of every batch, or
            of some batches where the parts do not come out even.
        validation: NAME/SPLIT that checkpoints are chosen by; a stage with clips can name a split
            of clips, where f_tRNN takes part.
        styles: whose labels are trained on; points labelled by others' conventions do not count.
        cached_size: pixels on each side of a cached face, at least those that the network sees.
        cover: side of a cached face in sides of the network's crop: the room that augmentation has.
    """

    train: tuple[str, ...] = ("300w/train",)
    weights: tuple[float, ...] = (1.0,)
    validation: str = "300w/validation"
    styles: tuple[str, ...] = ("300w",)
    cached_size: int = 256
    cover: float = 1.6

    def __post_init__(self) -> None:
        """Refuses a mix that says nothing."""
        check_fields(self, "data.")
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
        check_fields(self, "data.")
        _at_least("data.validation", self.validation, 1)


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW, its schedule, what of the network it moves, and the average of the weights.

    Attributes:
        learning_rate: at the end of the warm-up; falls to 0 along a cosine.
        warmup_steps: linear from 0.
        weight_decay: on arrays of two and more axes only, so not on scales and offsets.
        clip_norm: largest norm of the whole gradient.
        epsilon: what AdamW adds to the root of the squared gradients' average: below it, rounding
            is not blown up to a step of full length.
        average: decay of the averaged weights a step; the first steps average faster.
        frozen: parts of the network, such as `encoder` or `decoder/convs`, that stay as they are,
            batch statistics too.
        rates: parts of the network and the factor on their learning rate, as `encoder*0.1`; of
            several that match, the first counts.
        transformation: a function from the schedule of the learning rate to any optax
            transformation, such as `optax.lion`, in place of AdamW; `weight_decay` and `epsilon`
            are AdamW's alone.
    """

    learning_rate: float = 2e-3
    warmup_steps: int = 500
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    epsilon: float = 1e-8
    average: float = 0.999
    frozen: tuple[str, ...] = ()
    rates: tuple[str, ...] = ()
    transformation: Callable[[optax.Schedule], optax.GradientTransformation] | None = None

    def __post_init__(self) -> None:
        """Refuses numbers with which nothing would be learned."""
        check_fields(self, "optimiser.")
        for name in ("learning_rate", "clip_norm", "epsilon"):
            if getattr(self, name) <= 0:
                raise RednetError(f"optimiser.{name} must be above 0, not {getattr(self, name)}")
        for name in ("warmup_steps", "weight_decay", "average"):
            _at_least(f"optimiser.{name}", getattr(self, name), 0)
        if self.average >= 1:
            raise RednetError(f"optimiser.average must be below 1, not {self.average}")
        self.factors()

    def factors(self) -> tuple[tuple[str, float], ...]:
        """Returns the parts named and the factor on their learning rate, 0 for the frozen ones."""
        factors = [(part, 0.0) for part in self.frozen]
        for text in self.rates:
            part, _, factor = text.partition("*")
            try:
                factors.append((part, float(factor)))
            except ValueError:
                raise RednetError(
                    f"optimiser.rates: '{text}' is not PART*FACTOR, such as encoder*0.1"
                ) from None
            if not 0 < factors[-1][1] < float("inf"):
                raise RednetError(f"optimiser.rates: the factor of '{text}' must be above 0")
        return tuple(factors)


@dataclass(frozen=True)
class Stage:
    """A stretch of training with data, losses and a schedule of its own.

    Weights, averaged weights and batch statistics continue from the previous stage; the optimiser
    is reinitialised.

    Attributes:
        name: of the stage, for people and for changes from the command line.
        steps: optimiser steps; the schedule ends there.
        data: what is trained on.
        clips: clips through both scans, as this says; None trains on single images.
        augmentation: draws on the training images, if they are not generated.
        drift: how the crop of a clip wanders.
        bursts: of corrupted frames in clips.
        losses: terms and weights.
        extra_losses: functions (PassOutput, Targets) -> float32 [B], of each pass, added to the
            total as they are; the metrics have them under their `__name__`. Landmarks of both are
            float32 in pixels of the pass's crop.
        optimiser: of the parameters.
        statistics: normalise by the `batch`'s moments and let the running ones follow, or by the
            `running` ones, which then stay: the faces of a few clips are too much alike for moments
            of their own.
        batch_statistics: with `statistics="batch"` and many devices, whose moments those are.
            `global`: of the whole batch. A run's result then does not depend on the mesh, but each
            normalisation waits for an all-reduce in the forward and in the backward pass.
            `device`: of each device's own share of the batch (device d of n has rows d * batch / n
            to (d + 1) * batch / n); the running averages are the mean over devices. No pass waits
            for another device, so this scales to large meshes. The result then depends on the
            number of devices, and a small share has noisy moments. On one device both are the
            same, and `statistics="running"` takes no moments at all.
        one_pass_steps: the first so many steps run a single pass of the feedback loop: while its
            maps say little, a second pass costs its time and teaches nothing.
        batch: faces, or clips, a step.
        accumulate: parts of a batch that are computed one after the other, and whose gradients
            are averaged: less memory, and batch moments of the parts.
    """

    name: str = "images"
    steps: int = 30_000
    data: DataConfig | GeneratedData = field(default_factory=DataConfig)
    clips: ClipConfig | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    drift: Drift = field(default_factory=Drift)
    bursts: Bursts = field(default_factory=Bursts)
    losses: LossConfig = field(default_factory=LossConfig)
    extra_losses: tuple[ExtraLoss, ...] = ()
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    statistics: Literal["batch", "running"] = "batch"
    batch_statistics: Literal["global", "device"] = "global"
    one_pass_steps: int = 0
    batch: int = 64
    accumulate: int = 1

    def __post_init__(self) -> None:
        """Refuses numbers that contradict each other."""
        check_fields(self, "")
        for name in ("steps", "batch", "accumulate"):
            _at_least(name, getattr(self, name), 1)
        _at_least("one_pass_steps", self.one_pass_steps, 0)
        if self.one_pass_steps > self.steps:
            raise RednetError(
                f"one_pass_steps ({self.one_pass_steps}) must be at most steps ({self.steps})"
            )
        if self.optimiser.warmup_steps >= self.steps:
            raise RednetError(
                f"optimiser.warmup_steps ({self.optimiser.warmup_steps}) must be below steps "
                f"({self.steps})"
            )
        if self.batch % self.accumulate:
            raise RednetError(f"batch ({self.batch}) is no multiple of accumulate")
        if self.losses.identity and isinstance(self.data, GeneratedData):
            raise RednetError("losses.identity: generated faces are nobody's")
        if self.losses.stability and self.clips is None:
            raise RednetError("losses.stability needs clips")
        if self.bursts.probability and (self.clips is None or isinstance(self.data, GeneratedData)):
            raise RednetError("bursts need clips of prepared data")
        names = [getattr(loss, "__name__", "") for loss in self.extra_losses]
        if not all(names) or len({*names, *TERMS, *_METRICS}) < len((*names, *TERMS, *_METRICS)):
            raise RednetError(
                f"extra_losses need a __name__ each, that no other term has: {', '.join(names)}"
            )


@dataclass(frozen=True)
class MeshConfig:
    """The mesh of the devices of all processes.

    Attributes:
        data: parts of a batch that are computed in parallel.
        fsdp: the same; large parameters and optimiser state are sharded over these devices, too.
    """

    data: int = 1
    fsdp: int = 1

    def __post_init__(self) -> None:
        """Refuses an axis without devices."""
        check_fields(self, "mesh.")
        for name in ("data", "fsdp"):
            _at_least(f"mesh.{name}", getattr(self, name), 1)

    @property
    def devices(self) -> int:
        """How many there are."""
        return self.data * self.fsdp


@dataclass(frozen=True)
class Experiment:
    """Everything that decides a run's result.

    Attributes:
        name: of the run, for people.
        model: the network; its `feedback_steps` is the number of passes trained with.
        stages: trained one after the other.
        seed: of the initial weights, the order of the faces and every draw.
        compute: dtype of activations; parameters, statistics and losses are float32 in any case.
        mesh: of devices; a run may be resumed on another, unless a stage's `batch_statistics` are
            each device's.
        evaluate_every: steps between validations; a checkpoint is written at each.
        log_every: steps between lines of metrics.jsonl; NaN is noticed then.
        keep: checkpoints kept, beside the best.

    Raises:
        RednetError: numbers that are out of range or contradict each other.
    """

    name: str
    model: RedNetConfig
    stages: tuple[Stage, ...] = (Stage(),)
    seed: int = 0
    compute: Literal["float32", "bfloat16"] = "float32"
    mesh: MeshConfig = field(default_factory=MeshConfig)
    evaluate_every: int = 1_000
    log_every: int = 50
    keep: int = 2

    def __post_init__(self) -> None:
        """Refuses numbers that contradict each other."""
        check_fields(self, "")
        for name in ("evaluate_every", "log_every", "keep"):
            _at_least(name, getattr(self, name), 1)
        _at_least("seed", self.seed, 0)
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise RednetError(f"stages need one name each, not {', '.join(names) or 'none'}")
        for stage in self.stages:
            self._check(stage)

    def _check(self, stage: Stage) -> None:
        parts = self.mesh.devices * stage.accumulate
        if stage.batch % parts:
            raise RednetError(
                f"{stage.name}: a batch of {stage.batch} cannot be divided by mesh data="
                f"{self.mesh.data},fsdp={self.mesh.fsdp} and accumulate={stage.accumulate}"
            )
        if stage.losses.stability and self.model.architecture == "ijcv_resnet":
            raise RednetError(
                f"{stage.name}: losses.stability needs points with a gradient, and those of "
                "ijcv_resnet are read off peaks"
            )
        if isinstance(stage.data, DataConfig) and stage.data.cover < self.model.context:
            raise RednetError(
                f"{stage.name}: data.cover ({stage.data.cover:g}) shows less of a face's image "
                f"than the network is given, model.context ({self.model.context:g})"
            )
        if isinstance(stage.data, DataConfig) and stage.data.cached_size < self.model.input_size:
            raise RednetError(
                f"{stage.name}: data.cached_size ({stage.data.cached_size}) is smaller than what "
                f"the network sees, {self.model.input_size} pixels"
            )
        if isinstance(stage.data, GeneratedData):
            drawn = (stage.data.faces.size, stage.data.faces.margin)
            if drawn != (self.model.input_size, self.model.input_margin):
                raise RednetError(
                    f"{stage.name}: data.faces are drawn with (size, margin) {drawn}, but the "
                    f"network sees {(self.model.input_size, self.model.input_margin)}"
                )

    @property
    def steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> tuple[int, int]:
        """Returns the stage of a step counted from 0, and the step's number within it."""
        for number, stage in enumerate(self.stages):
            if step < stage.steps:
                return number, step
            step -= stage.steps
        raise ValueError(f"{self.name} has no step {step} beyond its end")

    def passes(self, step: int) -> int:
        """Returns K, the passes of the feedback loop, of a step counted from 0."""
        number, within = self.stage_at(step)
        return 1 if within < self.stages[number].one_pass_steps else self.model.feedback_steps

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings."""
        plain = dataclasses.asdict(self)
        plain["model"] = self.model.to_json()
        text = json.dumps(plain, default=plain_function)
        return typing.cast(dict[str, Any], json.loads(text))
