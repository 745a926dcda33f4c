"""Prints results, failures, and progress on a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any


@contextlib.contextmanager
def progress(unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """Yields a function of (done, total) that updates a progress bar, shown only on a terminal."""
    from tqdm import tqdm

    with tqdm(unit=unit, disable=None, leave=False) as bar:

        def report(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield report


def print_result(
    result: dict[str, Any],
    path: str | None,
    as_text: Callable[[dict[str, Any]], str] | None = None,
) -> None:
    """Prints the numbers of a result and writes it as JSON to a path; '-' prints only the JSON.

    If one of both fails, such as printing to a closed pipe, the other is done.
    """
    from rednet_jax.files import json_text, write_json

    if path == "-":
        print(json_text(result), end="")
        return
    try:
        if path is not None:
            write_json(path, result)
    finally:
        print((as_text or _rows_text)(result))


def _rows_text(result: dict[str, Any]) -> str:
    lines = []
    for name, value in result.items():
        for row in value if isinstance(value, list) else [{name: value}]:
            if isinstance(row, dict):
                lines.append("  ".join(f"{key} {_short(item)}" for key, item in row.items()))
    return "\n".join(lines)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def counts(samples: dict[str, int]) -> str:
    return ", ".join(f"{split} {count}" for split, count in samples.items())


def drop_unwritten() -> None:
    """Discards what standard output could not take: Python would print an error for it at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def failed(failures: Sequence[str]) -> int:
    for failure in failures:
        print(f"rednet: {' '.join(failure.splitlines())}", file=sys.stderr)
    return 1 if failures else 0
