"""The frozen description of an ablation: arms, seeds, and the claims to decide."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rednet_jax.errors import RednetError
from rednet_jax.fields import FORMER, FORMER_VALUES, check_fields
from rednet_jax.functions import plain_function
from rednet_jax.landmarks.builtin import plain_scheme
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.train.experiment import Experiment
from rednet_jax.train.load import changed, run_file

On = Literal["truth", "jitter", "jitter-hard", "clips", "clips-halved", "bursts", "after-bursts"]
Readout = Literal["regression", "maps"]
Figure = Literal["nme", "jitter"]
Video = Literal["carried", "alone", "smoothed"]

IMAGES: tuple[On, ...] = ("truth", "jitter", "jitter-hard")
CLIPS: tuple[On, ...] = ("clips", "clips-halved")
VIDEOS: tuple[Video, ...] = ("carried", "alone", "smoothed")
BURSTS: tuple[On, ...] = ("bursts", "after-bursts")
VIDEO = CLIPS + BURSTS
FEEDBACK_STEPS = {
    **dict.fromkeys(IMAGES, (1, 2, 3, 4)),
    **dict.fromkeys(CLIPS, (1, 2, 3)),
    **dict.fromkeys(BURSTS, (1,)),
}
"""All K that are measured."""

FEWEST_SEEDS = 3

OURS = "ours"
"""Source of the claims that are not from a paper."""


@dataclass(frozen=True)
class Arm:
    """One of the compared experiments.

    Attributes:
        name: in tables; unique.
        experiment: to train, with each of the ablation's seeds.
        init_from: released weights or a file that training starts from.
        readout: source of the measured points of images: f_REG, or the maps. Arms that differ only
            in the readout share their runs.
        video: how clips are tracked: with the state carried over frames, each frame alone, or each
            frame alone, followed by a one-euro filter. Arms that differ only in this share their
            runs, too.
        fresh: parts of the network that are initialised at random in place of `init_from`.
    """

    name: str
    experiment: Experiment
    init_from: str | None = None
    readout: Readout = "regression"
    video: Video = "carried"
    fresh: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises RednetError for an unknown readout."""
        check_fields(self, "arm.")


@dataclass(frozen=True)
class Cell:
    """One figure of an arm.

    Attributes:
        arm: name of the arm.
        feedback_steps: K.
        on: validation images with boxes as in `evaluate.protocols`, or validation clips, tracked in
            every frame, or in every second one (`clips-halved`), in which heads move twice as fast.
            `bursts` are the corrupted frames of clips with bursts of them, `after-bursts` the ten
            frames after each, means over the kinds of `evaluate.corrupt`.
        figure: the error, or the jitter of clips.
    """

    arm: str
    feedback_steps: int
    on: On = "truth"
    figure: Figure = "nme"

    def __post_init__(self) -> None:
        """Raises RednetError for an unknown choice."""
        check_fields(self, "cell.")

    def __str__(self) -> str:
        """Returns the cell as text."""
        return f"{self.arm}, K = {self.feedback_steps}, {self.on}, {self.figure}"


@dataclass(frozen=True)
class Claim:
    """A claim that the figure of one cell is lower than that of another.

    Attributes:
        sentence: the claim.
        lower: the cell with the lower figure, if the claim holds.
        higher: the cell with the higher figure.
        by: source of the claim: a paper, or `ours`.
    """

    sentence: str
    lower: Cell
    higher: Cell
    by: str = OURS

    def __post_init__(self) -> None:
        """Raises RednetError for fields of the wrong type."""
        check_fields(self, "claim.")


@dataclass(frozen=True)
class Ablation:
    """Arms that are trained over the same seeds, and the claims to decide.

    Attributes:
        name: of the result files.
        question: that the ablation answers.
        arms: to compare; all are measured on the same faces.
        baseline: name of the arm that the others are compared with.
        claims: to decide from the measurements.
        seeds: of every arm; three or more.
        on: data in the tables; clips only if the last stage of the arms has clips.
        feedback_steps: all K in the tables.

    Raises:
        RednetError: too few seeds, or an unknown name or cell.
    """

    name: str
    question: str
    arms: tuple[Arm, ...]
    baseline: str
    claims: tuple[Claim, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    on: tuple[On, ...] = IMAGES
    feedback_steps: tuple[int, ...] = (1, 2, 3)

    def __post_init__(self) -> None:
        """Raises RednetError for an ablation that could not be decided."""
        check_fields(self, "")
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise RednetError(f"names of arms must be unique: {', '.join(names)}")
        if self.baseline not in names:
            raise RednetError(f"baseline '{self.baseline}' is not an arm: {', '.join(names)}")
        if len(set(self.seeds)) < FEWEST_SEEDS or len(set(self.seeds)) < len(self.seeds):
            raise RednetError(f"seeds must be {FEWEST_SEEDS} or more, all different")
        self._check_runs()
        for claim in self.claims:
            for cell in (claim.lower, claim.higher):
                self._check(cell)
            if claim.lower.figure != claim.higher.figure:
                raise RednetError(f"claim compares {claim.lower.figure} and {claim.higher.figure}")
        if not self.on or not set(self.feedback_steps) <= set(FEEDBACK_STEPS["truth"]):
            raise RednetError(
                f"on must be of {', '.join(FEEDBACK_STEPS)}, feedback_steps of 1, 2, 3, 4"
            )

    def _check_runs(self) -> None:
        """Raises RednetError for arms that differ, but would share a run."""
        firsts: dict[str, Arm] = {}
        for arm in self.arms:
            first = firsts.setdefault(run_of(arm, self.seeds[0]).folder, arm)
            if _codes(first.experiment) != _codes(arm.experiment):
                raise RednetError(
                    f"arms '{first.name}' and '{arm.name}' have different functions, but equal "
                    "source lines and names: write each function on lines of its own"
                )

    def _check(self, cell: Cell) -> None:
        arm = self.arm(cell.arm)
        if cell.feedback_steps not in FEEDBACK_STEPS.get(cell.on, ()):
            raise RednetError(f"claim: {cell} is not measured")
        if cell.on not in CLIPS and cell.figure != "nme":
            raise RednetError(f"claim: {cell}: only whole clips have jitter")
        if cell.on in VIDEO and arm.readout != "regression":
            raise RednetError(f"claim: {cell}: clips are measured with f_REG's points only")

    def arm(self, name: str) -> Arm:
        """Returns the arm of that name; raises RednetError if there is none."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise RednetError(f"no arm '{name}': {', '.join(arm.name for arm in self.arms)}")


def load_ablation(path: Path | str, changes: Mapping[str, str] | None = None) -> Ablation:
    """Runs a Python file and returns its `ablation`.

    Args:
        path: a file that assigns an `Ablation` to the name `ablation`.
        changes: to the experiment of every arm, as in `rednet_jax.train.load.load_experiment`.

    Raises:
        RednetError: no such file, the file fails or assigns no ablation, or an invalid change.
    """
    ablation = run_file(path, Ablation)
    arms = tuple(
        dataclasses.replace(arm, experiment=changed(arm.experiment, changes or {}))
        for arm in ablation.arms
    )
    return dataclasses.replace(ablation, arms=arms)


@dataclass(frozen=True)
class Run:
    """One training of an arm; equal trainings of several ablations are the same run.

    Attributes:
        experiment: with its seed, named after its digest.
        init_from: as in `Arm`.
        fresh: as in `Arm`.
    """

    experiment: Experiment
    init_from: str | None
    fresh: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return self.experiment.name


def run_of(arm: Arm, seed: int) -> Run:
    """Returns the run of an arm with a seed."""
    experiment = dataclasses.replace(arm.experiment, seed=seed)
    fresh = [list(arm.fresh)] if arm.fresh else []
    text = json.dumps([_settings(experiment), arm.init_from, *fresh], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    name = f"{experiment.model.architecture}_seed{seed}_{digest}"
    # The name does not affect the result, and two ablations may use different names.
    return Run(dataclasses.replace(experiment, name=name), arm.init_from, arm.fresh)


def _settings(part: Any) -> Any:
    """Returns the fields of a config that differ from their defaults, under their first names.

    The digest of a run therefore does not change when a field is added or renamed.
    """
    if callable(part):
        return plain_function(part)
    if dataclasses.is_dataclass(part):
        settings: dict[str, Any] = {"": type(part).__name__}
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            factory = field.default_factory
            default = field.default if factory is dataclasses.MISSING else factory()
            if value != default and (type(part), field.name) not in _FREE:
                former = {new: old for old, new in field.metadata.get(FORMER_VALUES, {}).items()}
                value = plain_scheme(value) if isinstance(value, Scheme) else value
                named = former.get(value, value) if isinstance(value, str) else value
                settings[field.metadata.get(FORMER, field.name)] = _settings(named)
        return settings
    return [_settings(item) for item in part] if isinstance(part, tuple) else part


def _codes(part: Any) -> list[types.CodeType]:
    """Returns the code of all functions of a config; that of two lambdas of a line is different."""
    if isinstance(part, types.FunctionType):
        return [part.__code__]
    if isinstance(part, functools.partial):
        part = (part.func, *part.args, *part.keywords.values())
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        part = tuple(getattr(part, field.name) for field in dataclasses.fields(part))
    return [code for item in part for code in _codes(item)] if isinstance(part, tuple) else []


_FREE = {(Experiment, "name"), (Experiment, "mesh")}
"""Fields that do not affect the result: name and devices of a run."""
