"""Where a result comes from: what stands in every JSON file of experiments/results/."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import jax

PACKAGES = (
    "rednet-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "pillow",
    "dlib-bin",
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
