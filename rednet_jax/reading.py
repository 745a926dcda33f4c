"""Texts, JSON and CSV from files that may be damaged, or made to do harm.

Every reader looks at sizes before it takes memory.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

LARGEST_TEXT = 64 * 2**20
"""Bytes of a text file at most: JSON of that size takes up to thirty times as much memory."""

DEEPEST_JSON = 100
"""Lists and objects within each other at most."""

LARGEST_TABLE = 256 * 2**20
"""Bytes of a CSV file at most: its numbers take up to four times as much memory."""

MOST_ROWS = 500_000
"""Rows of a CSV file at most: each takes some hundred bytes beside its numbers."""

_INTEGER_DIGITS = 20
_LONGEST_LINE = 2**20


def read_text(path: str | os.PathLike[str], largest: int = LARGEST_TEXT) -> str:
    """Returns a text in UTF-8, with or without a byte order mark.

    Args:
        path: of the file.
        largest: bytes of the file at most.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is larger, or not UTF-8.
    """
    check_size(path, largest)
    return Path(path).read_text(encoding="utf-8-sig")


def check_size(path: str | os.PathLike[str], largest: int = LARGEST_TEXT) -> None:
    """Looks up the size of a file before it is read.

    Raises:
        OSError: there is no such file.
        ValueError: it is larger than `largest` bytes.
    """
    if os.path.getsize(path) > largest:
        raise ValueError(f"larger than {largest} bytes")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Returns what a JSON file holds; arguments and errors as in `read_text` and `parse_json`."""
    return parse_json(read_text(path))


def parse_json(text: str) -> Any:
    """Returns what a JSON text holds; integers beyond 64 bits become floats, the largest infinite.

    Raises:
        ValueError: no JSON, or nested deeper than `DEEPEST_JSON`.
    """
    try:
        found = json.loads(text, parse_int=_integer)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST_JSON}") from None
    level = [found]
    for _ in range(DEEPEST_JSON):
        level = [item for one in level for item in _items(one)]
        if not level:
            return found
    raise ValueError(f"nested deeper than {DEEPEST_JSON}")


def csv_rows(path: str | os.PathLike[str]) -> Iterator[tuple[int, list[str]]]:
    """Yields the line number and the cells of each row of a CSV file that is not empty.

    Bytes that are not UTF-8, as names of images may hold them, are read as they are.

    Args:
        path: of the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is too large, has too many rows, or is no CSV.
    """
    check_size(path, LARGEST_TABLE)
    with Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(_lines(file), strict=True)
        count = 0
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
                    count += 1
                if count > MOST_ROWS:
                    raise ValueError(f"more than {MOST_ROWS} rows")
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}") from None


def _lines(file: TextIO) -> Iterator[str]:
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise ValueError(f"a line of more than {_LONGEST_LINE} characters")
        yield line


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _INTEGER_DIGITS else float(digits)


def _items(value: Any) -> list[Any]:
    """The lists and objects that a list or an object holds."""
    inside = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list):
        return []
    return [item for item in inside if isinstance(item, dict | list)]
