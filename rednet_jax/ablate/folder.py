"""What the run folders hold of an ablation's runs: measurements, or why there are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rednet_jax.ablate.plan import Run
from rednet_jax.errors import RednetError
from rednet_jax.fields import current_names
from rednet_jax.files import write_text
from rednet_jax.model.config import RedNetConfig
from rednet_jax.reading import read_json

MEASURED, FAILED, LOG = "measured.json", "failed.json", "ablate.log"


def read_measured(runs_dir: Path, run: Run) -> dict[str, Any] | None:
    """Returns the measurements of a run, or None where it has none yet.

    Raises:
        RednetError: the file cannot be read, or is of another experiment.
    """
    path = runs_dir / run.folder / MEASURED
    try:
        measured = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RednetError(f"{path}: cannot be read ({error})") from error
    if not isinstance(measured, dict) or measured.get("run") != run.folder:
        raise RednetError(f"{path}: holds no measurements of this run")
    found = dict(measured.get("experiment") or {})
    found["model"] = current_names(found.get("model") or {}, RedNetConfig)
    # Its default, with which a field that says nothing enters the digest, may have changed since.
    wanted = {**run.experiment.to_json(), "mesh": None}
    if field := _other(found, wanted, ""):
        raise RednetError(f"{path}: measured on another experiment; its {field} differs")
    return measured


def read_failure(runs_dir: Path, run: Run) -> str | None:
    """Returns in a line why a run failed, or None where it did not."""
    try:
        return str(read_json(runs_dir / run.folder / FAILED)["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_failure(runs_dir: Path, run: Run, reason: str) -> None:
    """Notes why a run failed; the next time it is tried again."""
    text = json.dumps({"run": run.folder, "reason": reason}, indent=2)
    write_text(runs_dir / run.folder / FAILED, text + "\n")


def _other(found: Any, wanted: Any, name: str) -> str | None:
    """The first field of `found` that `wanted` has otherwise; what it lacks came later."""
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        found, wanted = (dict(enumerate(part)) for part in (found, wanted))
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key, value in found.items():
            if key == "mesh" and not name:
                continue
            if inner := _other(value, wanted.get(key), f"{name}.{key}".lstrip(".")):
                return inner
        return None
    return None if found == wanted else name
