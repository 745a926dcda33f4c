"""The run folder: its experiment, its initial weights, and the best validation NME so far."""

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
"""Names in a run's folder: the experiment, the run's initial weights, and checkpoints."""

_FREE = re.compile(r"name|log_every|keep|mesh\.\w+|stages\[\d+\]\.name")
"""Fields that may change when a run is resumed: names, the mesh, how often metrics are logged and
how many checkpoints are kept. They do not change the run's result.

All other fields do. `evaluate_every` determines the checkpoints from which the best is chosen: if
it changed, best.safetensors would be that of neither experiment. The learning rate reaches 0 at the
end of a stage's `steps`: a longer stage has other learning rates from its first step on."""


class Initial(NamedTuple):
    """The initial weights of a run, if they are those of a checkpoint.

    Attributes:
        checkpoint: a released name, or an absolute path.
        fingerprint: of the weights, by `weights.store.fingerprint`.
        fresh: parts of the network that were initialised instead.
    """

    checkpoint: str
    fingerprint: str
    fresh: Sequence[str] = ()


def claim(run_dir: Path, experiment: Experiment, initial: Initial | None) -> None:
    """Records the experiment and its initial weights in a new run folder, or compares them.

    A folder in which no step was logged and no checkpoint saved is new: the start that made it has
    failed, and may be corrected.

    Args:
        run_dir: the run's folder.
        experiment: of this call; fields that may change are recorded with their new values.
        initial: of `initial_weights`.

    Raises:
        RednetError: the folder belongs to another experiment, or cannot be written.
    """
    config = run_dir / CONFIG
    now, before = experiment.to_json(), _read(config)
    if before is not None:
        if not isinstance(before, dict):
            raise RednetError(f"{config}: not a run's config")
        # A config of another program must not be replaced.
        new = not _has_begun(run_dir) and {"model", "stages"} <= before.keys()
        changed = [
            difference
            for difference in differences(with_defaults(before, experiment), now)
            if not _is_free(difference.name, experiment)
        ]
        if changed and not new:
            fields = "; ".join(
                f"{name} was {shown(a)}, now is {shown(b)}" for name, a, b in changed
            )
            longer = any(re.fullmatch(r"stages\[\d+\]\.steps", each.name) for each in changed)
            hint = f"; to train on, begin another run with --init-from {run_dir}" if longer else ""
            raise RednetError(f"{config}: the folder holds another run; {fields}{hint}")
    elif any((run_dir / CHECKPOINTS).glob("[0-9]*")):
        raise RednetError(f"{config}: missing, and the folder holds checkpoints of an unknown run")
    # The weights are recorded first: a run that is killed before its config is written can still be
    # started. Earlier versions did not record the weights, so they are known only if given now.
    known = before is None or initial is not None
    if known and not ((run_dir / INITIAL).exists() and (initial is None or _has_begun(run_dir))):
        recorded = None if initial is None else initial._asdict()
        write_text(run_dir / INITIAL, json.dumps(recorded) + "\n")
    if before != now:
        write_text(config, json.dumps(now, indent=2) + "\n")


def initial_weights(
    run_dir: Path, init_from: str | None, experiment: Experiment, fresh: Sequence[str] = ()
) -> Initial | None:
    """Returns the initial weights of a new or resumed run; None for fresh weights.

    Args:
        run_dir: the run's folder. Its record is used if there is one, so that a run that was
            stopped before its first checkpoint starts with the same weights again.
        init_from: a released name, a safetensors file, or a run folder.
        experiment: of the run.
        fresh: parts of the network that are initialised instead.

    Raises:
        RednetError: there is no such checkpoint, it is of another network, or the run began with
            other weights.
    """
    checkpoint = None if init_from is None else _absolute_name(init_from)
    file = run_dir / INITIAL
    if not file.exists() or (checkpoint is not None and not _has_begun(run_dir)):
        # A new run, or one of an earlier version, which did not record them.
        if checkpoint is None:
            return None
        config, variables = load_with(experiment.model, checkpoint)
        check_same_network(checkpoint, config, variables, experiment.model, fresh)
        return Initial(checkpoint, fingerprint(variables), tuple(fresh))
    try:
        fields = _read(file)
        recorded = None if fields is None else Initial(**fields)
        if recorded is not None:
            recorded = recorded._replace(fresh=tuple(recorded.fresh))
    except TypeError:
        raise RednetError(f"{file}: not a record of initial weights") from None
    if checkpoint is None:
        return recorded
    if recorded is not None and [*recorded.fresh] != [*fresh]:
        now = f"--fresh {','.join(fresh)}" if fresh else f"--init-from {init_from} without --fresh"
        parts = ",".join(recorded.fresh)
        began = f"with --fresh {parts}" if parts else "without --fresh"
        raise RednetError(f"{now}: the run in {run_dir} was started {began}")
    if recorded is not None and checkpoint == recorded.checkpoint:
        return recorded
    if (
        recorded is None
        or fingerprint(load_with(experiment.model, checkpoint)[1]) != recorded.fingerprint
    ):
        began = "random weights" if recorded is None else f"those of {recorded.checkpoint}"
        raise RednetError(f"--init-from {init_from}: the run in {run_dir} started from {began}")
    return recorded


def _has_begun(run_dir: Path) -> bool:
    """Whether a step of the run was logged, or a checkpoint was saved."""
    metrics = run_dir / METRICS
    logged = metrics.exists() and metrics.stat().st_size > 0
    return logged or any((run_dir / CHECKPOINTS).glob("[0-9]*"))


def _is_free(name: str, experiment: Experiment) -> bool:
    if name.startswith("mesh.") and any(
        stage.batch_statistics == "device" for stage in experiment.stages
    ):
        # The moments are those of each device's share of the batch: they depend on the mesh.
        return False
    return _FREE.fullmatch(name) is not None


def changed_data(run_dir: Path, data: dict[str, dict[str, str]]) -> list[str]:
    """Returns the splits that have changed since the run's last start, as `STAGE: train SPLIT`.

    Changed data are not an error: users may resume a run after correcting a label.

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


def _absolute_name(checkpoint: str) -> str:
    """Returns a released name unchanged, and any other path as an absolute path."""
    path = find(checkpoint)
    return checkpoint if checkpoint in released() else str(path.absolute())


def _read(file: Path) -> Any:
    """Returns the content of a JSON file; None if there is no file."""
    try:
        return read_json(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RednetError(f"{file}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise RednetError(f"{file}: not a run's {file.stem} ({error})") from error


def best_nme(run_dir: Path, after: int) -> float:
    """Returns the smallest validation NME of the last pass in metrics.jsonl, infinity if none.

    Args:
        run_dir: of the run.
        after: only later steps count.
    """
    rows = read_rows(run_dir / METRICS)
    nmes = (row[VALIDATION][-1] for row in rows if VALIDATION in row and row["step"] > after)
    return min(nmes, default=float("inf"))
