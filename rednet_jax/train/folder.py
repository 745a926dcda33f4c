"""The run folder: whose it is, what it began with, and the best weights so far."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rednet_jax.errors import RednetError
from rednet_jax.fields import differences, shown, with_defaults
from rednet_jax.files import write_text
from rednet_jax.reading import read_json
from rednet_jax.train.experiment import Experiment
from rednet_jax.train.state import check_same_network
from rednet_jax.train.watch import ENVIRONMENT, METRICS, VALIDATION, read_rows
from rednet_jax.weights.store import find, fingerprint, load_with, released

CONFIG, INITIAL, CHECKPOINTS = "config.json", "init_from.json", "checkpoints"
"""Names in a run's folder: the experiment, the weights that the run began with, checkpoints."""

_FREE = re.compile(r"name|log_every|keep|mesh\.\w+|stages\[\d+\]\.name")
"""Fields that may change when a run is resumed: names, the layout on devices, how often a line is
logged and how many checkpoints are kept. The run's result is the same.

All others may not. `evaluate_every` says which checkpoints there are to choose the best from: with
another, best.safetensors would be of neither experiment. A stage's `steps` are where its learning
rate reaches 0: a run that is made longer would have had larger steps from its beginning on."""


class Initial(NamedTuple):
    """Weights that a run begins with.

    Attributes:
        checkpoint: a released name, or an absolute path.
        fingerprint: of the weights, as `weights.store.fingerprint` has it.
        fresh: parts of the network that began with fresh weights.
    """

    checkpoint: str
    fingerprint: str
    fresh: Sequence[str] = ()


def claim(run_dir: Path, experiment: Experiment, initial: Initial | None) -> None:
    """Makes the folder this experiment's, and records what it begins with.

    Args:
        run_dir: the run's folder.
        experiment: of this call; fields that may change are recorded as they now are.
        initial: of `initial_weights`.

    Raises:
        RednetError: it is another experiment's, or cannot be written.
    """
    config = run_dir / CONFIG
    now, before = experiment.to_json(), _read(config)
    if before is not None:
        if not isinstance(before, dict):
            raise RednetError(f"{config}: not a run's config")
        changed = [
            one
            for one in differences(with_defaults(before, experiment), now)
            if not _is_free(one.name, experiment)
        ]
        if changed:
            told = "; ".join(f"{name} was {shown(a)}, now is {shown(b)}" for name, a, b in changed)
            longer = any(re.fullmatch(r"stages\[\d+\]\.steps", one.name) for one in changed)
            hint = f"; to train on, begin another run with --init-from {run_dir}" if longer else ""
            raise RednetError(f"{config}: the folder holds another run; {told}{hint}")
    elif any((run_dir / CHECKPOINTS).glob("[0-9]*")):
        raise RednetError(f"{config}: missing, and the folder holds checkpoints of an unknown run")
    # The weights first: a run that is killed between the two has not begun, and loses neither. What
    # a run of an earlier version began with is not known, unless it is given now.
    known = before is None or initial is not None
    if known and not (run_dir / INITIAL).exists():
        recorded = None if initial is None else initial._asdict()
        write_text(run_dir / INITIAL, json.dumps(recorded) + "\n")
    if before != now:
        write_text(config, json.dumps(now, indent=2) + "\n")


def initial_weights(
    run_dir: Path, init_from: str | None, experiment: Experiment, fresh: Sequence[str] = ()
) -> Initial | None:
    """Returns the weights that a run begins with, or began with; None for fresh ones.

    Args:
        run_dir: the run's folder; what it records counts, so that a run that was stopped before its
            first checkpoint begins with the same weights when it is started again.
        init_from: a released name, a safetensors file, or a run folder.
        experiment: of the run.
        fresh: parts of the network that keep fresh weights.

    Raises:
        RednetError: there is no such checkpoint, it is of another network, or the run began with
            other weights.
    """
    given = None if init_from is None else _lasting_name(init_from)
    file = run_dir / INITIAL
    if not file.exists():
        # A new run, or one of an earlier version, which did not record them.
        if given is None:
            return None
        config, variables = load_with(experiment.model, given)
        check_same_network(given, config, variables, experiment.model, fresh)
        return Initial(given, fingerprint(variables), tuple(fresh))
    try:
        found = _read(file)
        recorded = None if found is None else Initial(**found)
        if recorded is not None:
            recorded = recorded._replace(fresh=tuple(recorded.fresh))
    except TypeError:
        raise RednetError(f"{file}: not a record of weights") from None
    if given is None:
        return recorded
    if recorded is not None and [*recorded.fresh] != [*fresh]:
        began = ", ".join(recorded.fresh) or "no part"
        raise RednetError(
            f"--fresh {','.join(fresh)}: the run in {run_dir} began with {began} fresh"
        )
    if recorded is not None and given == recorded.checkpoint:
        return recorded
    if (
        recorded is None
        or fingerprint(load_with(experiment.model, given)[1]) != recorded.fingerprint
    ):
        began = "fresh weights" if recorded is None else f"those of {recorded.checkpoint}"
        raise RednetError(f"--init-from {init_from}: the run in {run_dir} began with {began}")
    return recorded


def _is_free(name: str, experiment: Experiment) -> bool:
    if name.startswith("mesh.") and any(
        stage.batch_statistics == "device" for stage in experiment.stages
    ):
        # The moments are of each device's share of the batch, so the mesh decides the result.
        return False
    return _FREE.fullmatch(name) is not None


def changed_data(run_dir: Path, data: dict[str, dict[str, str]]) -> list[str]:
    """Returns the splits that differ from those of the run's last start, as `STAGE: train SPLIT`.

    They do not stop a run: a user who corrects a label resumes with data that differ.

    Args:
        run_dir: the run's folder.
        data: of `Inputs.fingerprints`.
    """
    starts = read_rows(run_dir / ENVIRONMENT)
    before = starts[-1].get("data", {}) if starts else {}
    return [
        f"{stage}: {split}"
        for stage, splits in data.items()
        for split, fingerprint in splits.items()
        if before.get(stage, {}).get(split, fingerprint) != fingerprint
    ]


def _lasting_name(checkpoint: str) -> str:
    """A checkpoint's name that is right in another working directory, too."""
    path = find(checkpoint)
    return checkpoint if checkpoint in released() else str(path.absolute())


def _read(file: Path) -> Any:
    """The content of a JSON file; None where there is no file."""
    try:
        return read_json(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RednetError(f"{file}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise RednetError(f"{file}: not a run's {file.stem} ({error})") from error


def best_nme(run_dir: Path, after: int) -> float:
    """Returns the smallest validation NME, of the last pass, that metrics.jsonl has.

    Args:
        run_dir: of the run.
        after: lines up to this step do not count.
    """
    rows = read_rows(run_dir / METRICS)
    found = (row[VALIDATION][-1] for row in rows if VALIDATION in row and row["step"] > after)
    return min(found, default=float("inf"))
