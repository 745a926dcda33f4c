"""Files in the run folders of an ablation: measurements, or the reason of a failure."""

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
    """Returns the measurements of a run, or None if it has none yet.

    Raises:
        RednetError: the file cannot be read, or it belongs to another experiment.
    """
    path = runs_dir / run.folder / MEASURED
    try:
        measured = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RednetError(f"{path}: cannot be read ({error})") from error
    if not isinstance(measured, dict) or measured.get("run") != run.folder:
        raise RednetError(f"{path}: contains no measurements of this run")
    stored = dict(measured.get("experiment") or {})
    stored["model"] = current_names(stored.get("model") or {}, RedNetConfig)
    # Detects a changed default, since the digest omits fields that have their default.
    current = {**run.experiment.to_json(), "mesh": None}
    if field := _differing_field(stored, current, ""):
        raise RednetError(f"{path}: measured on another experiment; its {field} differs")
    return measured


def read_failure(runs_dir: Path, run: Run) -> str | None:
    """Returns the reason of a run's failure, one line, or None if it did not fail."""
    try:
        return str(read_json(runs_dir / run.folder / FAILED)["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_failure(runs_dir: Path, run: Run, reason: str) -> None:
    """Records the reason of a run's failure; the next call of `ablate` tries the run again."""
    text = json.dumps({"run": run.folder, "reason": reason}, indent=2)
    write_text(runs_dir / run.folder / FAILED, text + "\n")


def _differing_field(stored: Any, current: Any, name: str) -> str | None:
    """Returns the first field of `stored` that differs in `current`.

    Fields that `stored` lacks were added to the experiment later and are ignored.
    """
    if isinstance(stored, list) and isinstance(current, list) and len(stored) == len(current):
        stored, current = (dict(enumerate(part)) for part in (stored, current))
    if isinstance(stored, dict) and isinstance(current, dict):
        for key, value in stored.items():
            if key == "mesh" and not name:
                continue
            if inner := _differing_field(value, current.get(key), f"{name}.{key}".lstrip(".")):
                return inner
        return None
    return None if stored == current else name
