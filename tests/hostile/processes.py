"""Runs `hostile.worker` in an empty folder with an empty home, and reads its output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def failures(arguments: list[str], folder: Path) -> list[str]:
    """Returns the failures of a worker's cases, one line each.

    Args:
        arguments: of `hostile.worker`.
        folder: an empty folder.
    """
    home, work = folder / "home", folder / "work"
    home.mkdir()
    work.mkdir()
    tests = str(Path(__file__).parents[1])
    environment = os.environ | {
        "HOME": str(home),
        "PYTHONPATH": os.pathsep.join([tests, os.environ["PYTHONPATH"]]),
        # One device, since the threads of each device need address space.
        "XLA_FLAGS": "",
    }
    done = subprocess.run(
        [sys.executable, "-m", "hostile.worker", *arguments],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    failed = [line for line in lines if line.startswith("failed ")]
    if not lines or not lines[-1].startswith("done"):
        case = lines[-1] if lines else "before the first case"
        failed.append(f"the process ended at '{case}': {done.stderr[-3000:]}")
    return failed
