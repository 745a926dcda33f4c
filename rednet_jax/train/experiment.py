"""The description of a run as frozen dataclasses: the network and the stages of training."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import optax

from rednet_jax.data.augment import Augmentation, Bursts, Drift
from rednet_jax.data.pipeline import ClipConfig
from rednet_jax.data.synthetic.generate import SyntheticConfig
from rednet_jax.errors import RednetError
from rednet_jax.fields import check_fields
from rednet_jax.functions import plain_fields
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.losses import TERMS, ExtraLoss, LossConfig

_METRICS = ("loss", "total", "nme", "gradient_norm", "loss_of_face", "stability")


def _at_least(name: str, value: float, least: int) -> None:
    if value < least:
        raise RednetError(f"{name} must be at least {least}, not {value}")


@dataclass(frozen=True)
class DataConfig:
    """A mix of prepared data sets to train on.

    Attributes:
        train: NAME/SPLIT of each data set. A stage of images takes each labelled frame of a clip as
            an image; a stage of clips takes each image as a clip of identical frames.
        weights: of each of `train`. A data set has the share of its weight in the sum of weights in
            every batch; shares that are not whole numbers of faces vary from batch to batch.
        validation: NAME/SPLIT that checkpoints are chosen by; a stage with clips can name a split
            of clips, on which f_tRNN runs.
        styles: annotation styles to train on; landmarks labelled in another style are masked.
        cached_size: side of a cached face in pixels, at least that of the network's input image.
        cover: side of a cached face in units of the side of the network's crop, which limits
            augmentation.
    """

    train: tuple[str, ...] = ("300w/train",)
    weights: tuple[float, ...] = (1.0,)
    validation: str = "300w/validation"
    styles: tuple[str, ...] = ("300w",)
    cached_size: int = 256
    cover: float = 1.6

    def __post_init__(self) -> None:
        """Raises a RednetError for invalid fields."""
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
    """Faces that are generated on the device in each step, without prepared data.

    They are not augmented: the generator itself jitters crops and adds noise and occluders.

    Attributes:
        faces: distribution of the faces; `size` and `margin` are those of the network's input
            image.
        validation: number of generated faces that checkpoints are chosen by.
    """

    faces: SyntheticConfig = field(default_factory=SyntheticConfig)
    validation: int = 128

    def __post_init__(self) -> None:
        """Raises a RednetError for invalid fields."""
        check_fields(self, "data.")
        _at_least("data.validation", self.validation, 1)


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW, its learning-rate schedule, frozen parts, and the average of the weights.

    Attributes:
        learning_rate: peak, at the end of the warm-up; then a cosine decay to 0.
        warmup_steps: of a linear warm-up from 0.
        weight_decay: of arrays with at least two axes, so not of scales and offsets.
        clip_norm: maximum of the global norm of the gradient.
        epsilon: AdamW's epsilon. Gradients far below it, which are rounding errors, make small
            steps.
        average: decay per step of the exponential average of the weights; smaller in the first
            steps.
        frozen: parts of the network, such as `encoder` or `decoder/convs`, that are not trained;
            their batch statistics do not change, either.
        rates: parts of the network with a factor on their learning rate, as `encoder*0.1`; the
            first match applies.
        transformation: a function from the learning-rate schedule to an optax transformation, such
            as `optax.lion`, used in place of AdamW, without `weight_decay` and `epsilon`.
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
        """Raises a RednetError for invalid fields."""
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
        """Returns (part, factor on its learning rate) of `frozen`, with factor 0, and `rates`."""
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
    """A part of training with data, losses and a learning-rate schedule of its own.

    Weights, averaged weights and batch statistics continue from the previous stage; the optimiser
    is reinitialised.

    Attributes:
        name: of the stage, in messages and in overrides on the command line.
        steps: optimiser steps; the learning rate reaches 0 there.
        data: to train on.
        clips: length and kind of clips, which run through both scans; None for single images.
        augmentation: of the training images, if they are not generated.
        drift: random motion of the crop over the frames of a clip.
        bursts: of corrupted frames in clips.
        losses: terms and weights.
        extra_losses: functions (PassOutput, Targets) -> float32 [B] that are called at each pass.
            Their values are added to the total without a weight, and logged under their `__name__`.
            Landmarks of both arguments are float32 in pixels of the pass's crop.
        optimiser: of the parameters.
        statistics: `batch` normalises by the moments of the batch and updates the running averages.
            `running` normalises by the running averages and does not change them, for batches of
            a few clips: their faces are too similar for moments of their own.
        batch_statistics: with `statistics="batch"` and many devices, the moments to normalise by.
            `global`: of the whole batch. A run's result then does not depend on the mesh, but each
            normalisation waits for an all-reduce in the forward and in the backward pass.
            `device`: of each device's share of the batch (device d of n has rows d * batch / n to
            (d + 1) * batch / n); the running averages are the mean over devices. No pass waits for
            another device, so this scales to large meshes. The result then depends on the number of
            devices, and a small share has noisy moments. On one device both are the same, and
            `statistics="running"` computes no moments.
        one_pass_steps: the first steps, which run a single pass of the feedback loop: as long as
            response maps are poor, a second pass takes time without improving the network.
        batch: faces, or clips, per step.
        accumulate: number of parts of a batch that are computed one after the other; their
            gradients are averaged. It saves memory; batch moments are those of each part.
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
        """Raises a RednetError for invalid fields."""
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
            raise RednetError(
                f"batch ({self.batch}) must be a multiple of accumulate ({self.accumulate})"
            )
        if self.losses.identity and isinstance(self.data, GeneratedData):
            raise RednetError("losses.identity: generated faces have no identity")
        if self.losses.stability and self.clips is None:
            raise RednetError("losses.stability needs clips")
        if self.bursts.probability and (self.clips is None or isinstance(self.data, GeneratedData)):
            raise RednetError("bursts need clips of prepared data")
        names = [getattr(loss, "__name__", "") for loss in self.extra_losses]
        if not all(names) or len({*names, *TERMS, *_METRICS}) < len((*names, *TERMS, *_METRICS)):
            raise RednetError(
                f"extra_losses need a __name__ each, unlike that of other terms: {', '.join(names)}"
            )


@dataclass(frozen=True)
class MeshConfig:
    """The mesh of the devices of all processes; batches are split over both axes.

    Attributes:
        data: size of the axis over which parameters are replicated.
        fsdp: size of the axis over which large parameters and optimiser state are sharded.
    """

    data: int = 1
    fsdp: int = 1

    def __post_init__(self) -> None:
        """Raises a RednetError for an axis without devices."""
        check_fields(self, "mesh.")
        for name in ("data", "fsdp"):
            _at_least(f"mesh.{name}", getattr(self, name), 1)

    @property
    def devices(self) -> int:
        """Number of devices."""
        return self.data * self.fsdp


@dataclass(frozen=True)
class Experiment:
    """Everything that determines a run's result.

    Attributes:
        name: of the run, in messages and reports.
        model: the network; its `feedback_steps` is the number of passes in training.
        stages: trained one after the other.
        seed: of the initial weights, the order of the faces and all random draws; at least 0 and
            below 2**31.
        compute: dtype of activations; parameters, statistics and losses are always float32.
        mesh: of devices; a run can be resumed on another mesh, unless a stage has
            `batch_statistics="device"`.
        evaluate_every: steps between validations; each writes a checkpoint.
        log_every: steps between lines of metrics.jsonl; NaN is detected then.
        keep: how many of the latest checkpoints are kept, in addition to the best.

    Raises:
        RednetError: fields are out of range or contradict each other.
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
        """Raises a RednetError for invalid fields."""
        check_fields(self, "")
        for name in ("evaluate_every", "log_every", "keep"):
            _at_least(name, getattr(self, name), 1)
        # JAX's random keys use the 32 low bits of a seed, and compiled programs take it as int32.
        if not 0 <= self.seed < 2**31:
            raise RednetError(f"seed must be at least 0 and below 2**31, not {self.seed}")
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
                f"{stage.name}: losses.stability needs landmarks with a gradient, and those of "
                "ijcv_resnet are peaks of maps"
            )
        if isinstance(stage.data, DataConfig) and stage.data.cover < self.model.context:
            raise RednetError(
                f"{stage.name}: data.cover ({stage.data.cover:g}) must be at least model.context "
                f"({self.model.context:g}): a cached face must contain the network's input image"
            )
        if isinstance(stage.data, DataConfig) and stage.data.cached_size < self.model.input_size:
            raise RednetError(
                f"{stage.name}: data.cached_size ({stage.data.cached_size}) is smaller than the "
                f"network's input image, {self.model.input_size} pixels"
            )
        if isinstance(stage.data, GeneratedData):
            drawn = (stage.data.faces.size, stage.data.faces.margin)
            if drawn != (self.model.input_size, self.model.input_margin):
                raise RednetError(
                    f"{stage.name}: data.faces has (size, margin) {drawn}, but the network's input "
                    f"image has {(self.model.input_size, self.model.input_margin)}"
                )

    @property
    def steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> tuple[int, int]:
        """Returns the stage of a step, and the step's number in the stage, all from 0."""
        for number, stage in enumerate(self.stages):
            if step < stage.steps:
                return number, step
            step -= stage.steps
        raise ValueError(f"{self.name} has no step {step} beyond its end")

    def passes(self, step: int) -> int:
        """Returns the number of passes K in a step, counted from 0."""
        number, within = self.stage_at(step)
        return 1 if within < self.stages[number].one_pass_steps else self.model.feedback_steps

    def to_json(self) -> dict[str, Any]:
        """Returns all fields as JSON values: dicts, lists, numbers and strings."""
        plain = {}
        for name in (each.name for each in dataclasses.fields(self)):
            value = getattr(self, name)
            plain[name] = value.to_json() if name == "model" else plain_fields(value)
        return plain
