"""One frozen description of an ablation: arms, seeds, and the claims that they are to decide."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rednet_jax.errors import RednetError
from rednet_jax.fields import FORMER, FORMER_VALUES, check_fields, plain_function
from rednet_jax.landmarks.builtin import plain_scheme
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.train.experiment import Experiment
from rednet_jax.train.load import changed, run_file

On = Literal["truth", "jitter", "jitter-hard", "clips", "clips-halved"]
Readout = Literal["regression", "maps"]
Figure = Literal["nme", "jitter"]

IMAGES: tuple[On, ...] = ("truth", "jitter", "jitter-hard")
CLIPS: tuple[On, ...] = ("clips", "clips-halved")
FEEDBACK_STEPS = {**dict.fromkeys(IMAGES, (1, 2, 3, 4)), **dict.fromkeys(CLIPS, (1, 2, 3))}
"""Every K that is measured."""

FEWEST_SEEDS = 3

OURS = "ours"
"""Who claims what no paper does."""


@dataclass(frozen=True)
class Arm:
    """One of the things compared.

    Attributes:
        name: in tables; no two arms have one.
        experiment: what is trained; its seed is each of the ablation's in turn.
        init_from: released weights or a file that training begins with.
        readout: where the points of images are read that this arm is judged by: f_REG, or the
            maps. Two arms that differ in nothing else share their runs.
    """

    name: str
    experiment: Experiment
    init_from: str | None = None
    readout: Readout = "regression"

    def __post_init__(self) -> None:
        """Refuses a readout that there is not."""
        check_fields(self, "arm.")


@dataclass(frozen=True)
class Cell:
    """One figure of an arm.

    Attributes:
        arm: its name.
        feedback_steps: K.
        on: validation images with boxes as in `evaluate.protocols`, or validation clips that are
            followed at every frame, or at every second one (`clips-halved`): as if heads moved
            twice as fast.
        figure: the error, or the jitter of clips.
    """

    arm: str
    feedback_steps: int
    on: On = "truth"
    figure: Figure = "nme"

    def __post_init__(self) -> None:
        """Refuses a choice that there is not."""
        check_fields(self, "cell.")

    def __str__(self) -> str:
        """In words."""
        return f"{self.arm}, K = {self.feedback_steps}, {self.on}, {self.figure}"


@dataclass(frozen=True)
class Claim:
    """That one cell is lower than another.

    Attributes:
        sentence: what is claimed.
        lower: the cell that would then have the lower figure.
        higher: the other.
        by: who claims it: a paper, or `ours`.
    """

    sentence: str
    lower: Cell
    higher: Cell
    by: str = OURS

    def __post_init__(self) -> None:
        """Refuses what is no cell."""
        check_fields(self, "claim.")


@dataclass(frozen=True)
class Ablation:
    """Arms that are trained alike over some seeds, and what is asked of them.

    Attributes:
        name: of the results' files.
        question: what the arms are to answer.
        arms: compared; all are measured on the same faces.
        baseline: name of the arm that the others are compared with.
        claims: each is decided by the measurements.
        seeds: of every arm; three or more.
        on: what the tables show; clips only where arms end with a stage of clips.
        feedback_steps: every K that the tables show.

    Raises:
        RednetError: too few seeds, or a name or a cell that there is not.
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
        """Refuses what could not be decided."""
        check_fields(self, "")
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise RednetError(f"arms need one name each, not {', '.join(names)}")
        if self.baseline not in names:
            raise RednetError(f"baseline '{self.baseline}' is no arm: {', '.join(names)}")
        if len(set(self.seeds)) < FEWEST_SEEDS or len(set(self.seeds)) < len(self.seeds):
            raise RednetError(f"seeds must be {FEWEST_SEEDS} or more, all different")
        for claim in self.claims:
            for cell in (claim.lower, claim.higher):
                self._check(cell)
            if claim.lower.figure != claim.higher.figure:
                raise RednetError(f"claim compares {claim.lower.figure} and {claim.higher.figure}")
        if not self.on or not set(self.feedback_steps) <= set(FEEDBACK_STEPS["truth"]):
            raise RednetError(
                f"on must be of {', '.join(FEEDBACK_STEPS)}, feedback_steps of 1, 2, 3, 4"
            )

    def _check(self, cell: Cell) -> None:
        arm = self.arm(cell.arm)
        if cell.feedback_steps not in FEEDBACK_STEPS.get(cell.on, ()):
            raise RednetError(f"claim: {cell} is not measured")
        if cell.on in IMAGES and cell.figure != "nme":
            raise RednetError(f"claim: {cell}: images have no jitter")
        if cell.on in CLIPS and arm.readout != "regression":
            raise RednetError(f"claim: {cell}: clips are followed by f_REG's points alone")

    def arm(self, name: str) -> Arm:
        """Returns the arm of that name; a RednetError where there is none."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise RednetError(f"no arm '{name}': {', '.join(arm.name for arm in self.arms)}")


def load_ablation(path: Path | str, changes: Mapping[str, str] | None = None) -> Ablation:
    """Runs the Python file and takes its `ablation`.

    Args:
        path: a file that assigns an `Ablation` to the name `ablation`.
        changes: to the experiment of every arm, as in `rednet_jax.train.load.load_experiment`.

    Raises:
        RednetError: no such file, the file fails, it builds no ablation, or a change does not fit.
    """
    ablation = run_file(path, Ablation)
    arms = tuple(
        dataclasses.replace(arm, experiment=changed(arm.experiment, changes or {}))
        for arm in ablation.arms
    )
    return dataclasses.replace(ablation, arms=arms)


@dataclass(frozen=True)
class Run:
    """One training of an arm; arms of several ablations that train alike have the same.

    Attributes:
        experiment: with its seed, named after its digest.
        init_from: as in `Arm`.
    """

    experiment: Experiment
    init_from: str | None

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return self.experiment.name


def run_of(arm: Arm, seed: int) -> Run:
    """Returns the run of an arm with a seed."""
    experiment = dataclasses.replace(arm.experiment, seed=seed)
    said = json.dumps([_said(experiment), arm.init_from], sort_keys=True)
    digest = hashlib.sha256(said.encode()).hexdigest()[:12]
    name = f"{experiment.model.architecture}_seed{seed}_{digest}"
    # What a run is called does not decide its result, and two ablations may call it differently.
    return Run(dataclasses.replace(experiment, name=name), arm.init_from)


def _said(part: Any) -> Any:
    """What a config says beyond its defaults: a field added or renamed later changes no digest."""
    if dataclasses.is_dataclass(part):
        said: dict[str, Any] = {"": type(part).__name__}
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            factory = field.default_factory
            default = field.default if factory is dataclasses.MISSING else factory()
            if value != default and (type(part), field.name) not in _FREE:
                former = {new: old for old, new in field.metadata.get(FORMER_VALUES, {}).items()}
                value = plain_scheme(value) if isinstance(value, Scheme) else value
                named = former.get(value, value) if isinstance(value, str) else value
                said[field.metadata.get(FORMER, field.name)] = _said(named)
        return said
    if callable(part):
        return plain_function(part)
    return [_said(item) for item in part] if isinstance(part, tuple) else part


_FREE = {(Experiment, "name"), (Experiment, "mesh")}
"""Fields that say how a run is called and where it is computed."""
