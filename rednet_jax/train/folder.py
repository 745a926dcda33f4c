"""The run folder: whose it is, and what its lines say of the best weights so far."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rednet_jax.errors import RednetError
from rednet_jax.files import write_text
from rednet_jax.train.experiment import Experiment
from rednet_jax.train.watch import METRICS, VALIDATION, read_rows

_FREE = ("mesh",)
"""Fields in which a run may go on otherwise than it began."""


def claim(run_dir: Path, experiment: Experiment) -> None:
    """Makes the folder this experiment's.

    Raises:
        RednetError: it is another experiment's, or cannot be written.
    """
    config = run_dir / "config.json"
    wanted = experiment.to_json()
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        write_text(config, json.dumps(wanted, indent=2) + "\n")
        return
    except OSError as error:
        raise RednetError(f"{config}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise RednetError(f"{config}: not a run's config ({error})") from error
    if isinstance(found, dict):
        found |= {name: wanted[name] for name in _FREE}
    if difference := _first_difference(found, wanted, ""):
        raise RednetError(f"{config}: the folder holds another run; {difference}")


def _first_difference(found: Any, wanted: Any, name: str) -> str | None:
    if isinstance(found, list) and isinstance(wanted, list):
        found, wanted = (dict(enumerate(part)) for part in (found, wanted))
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted({*found, *wanted}):
            inner = _first_difference(found.get(key), wanted.get(key), f"{name}.{key}".lstrip("."))
            if inner:
                return inner
        return None
    return None if found == wanted else f"{name} was {found}, now is {wanted}"


def best_nme(run_dir: Path, after: int) -> float:
    """Returns the smallest validation NME, of the last pass, that metrics.jsonl has.

    Args:
        run_dir: of the run.
        after: lines up to this step do not count.
    """
    rows = read_rows(run_dir / METRICS)
    found = (row[VALIDATION][-1] for row in rows if VALIDATION in row and row["step"] > after)
    return min(found, default=float("inf"))
