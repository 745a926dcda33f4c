"""Reads text, JSON and CSV from files that may be damaged or malicious.

Every reader checks sizes before it allocates memory.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

LARGEST_TEXT = 64 * 2**20
"""Maximum number of bytes of a text file: JSON needs up to thirty times as much memory."""

DEEPEST_JSON = 100
"""Maximum nesting of lists and objects."""

LARGEST_TABLE = 256 * 2**20
"""Maximum number of bytes of a CSV file: its numbers need up to four times as much memory."""

MOST_ROWS = 500_000
"""Maximum number of rows of a CSV file: each needs some hundred bytes besides its numbers."""

_INTEGER_DIGITS = 20
_LONGEST_LINE = 2**20


def read_text(path: str | os.PathLike[str], largest: int = LARGEST_TEXT) -> str:
    """Returns the text of a file in UTF-8, with or without a byte order mark.

    Args:
        path: of the file.
        largest: maximum number of bytes.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is larger, or not UTF-8.
    """
    check_size(path, largest)
    return Path(path).read_text(encoding="utf-8-sig")


def check_size(path: str | os.PathLike[str], largest: int = LARGEST_TEXT) -> None:
    """Checks the size of a file before it is read.

    Raises:
        OSError: there is no such file.
        ValueError: the file is larger than `largest` bytes.
    """
    if os.path.getsize(path) > largest:
        raise ValueError(f"larger than {largest} bytes")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Returns the value of a JSON file; arguments and errors as in `read_text` and `parse_json`."""
    return parse_json(read_text(path))


def parse_json(text: str) -> Any:
    """Returns the value of a JSON text. Integers beyond 64 bits become floats, which may be inf.

    Raises:
        ValueError: the text is not JSON, or nested deeper than `DEEPEST_JSON`.
    """
    try:
        parsed = json.loads(text, parse_int=_integer)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST_JSON}") from None
    level = [parsed]
    for _ in range(DEEPEST_JSON):
        level = [item for container in level for item in _items(container)]
        if not level:
            return parsed
    raise ValueError(f"nested deeper than {DEEPEST_JSON}")


def csv_rows(path: str | os.PathLike[str]) -> Iterator[tuple[int, list[str]]]:
    """Yields the line number and the cells of each nonempty row of a CSV file.

    Bytes that are not UTF-8, which names of images may have, are read unchanged.

    Args:
        path: of the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is too large, has too many rows, or is not CSV.
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
    """The lists and objects in a list or an object."""
    items = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list):
        return []
    return [item for item in items if isinstance(item, dict | list)]
