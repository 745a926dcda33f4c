"""The files of a checkpoint: their digests, and what is damaged."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from rednet_jax.reading import read_json

DIGESTS = "sha256.json"
"""Name, in a checkpoint's folder, of the file with its digests and the position of the reader."""

_METADATA, _METRICS = "_CHECKPOINT_METADATA", "metrics/metrics"
_CAUSE_CHARACTERS = 300


def read_position(folder: Path) -> dict[str, Any]:
    """Returns the position of the reader of batches that a checkpoint holds.

    Args:
        folder: of the checkpoint.

    Raises:
        OSError, ValueError: its file cannot be read, or is not JSON.
        KeyError, TypeError: its file has no position.
    """
    position: dict[str, Any] = read_json(folder / _METADATA)["custom_metadata"]["reader"]
    return position


def write_digests(folder: Path, reader: dict[str, Any]) -> None:
    """Writes the digests of a checkpoint's files.

    Args:
        folder: of the checkpoint, which is complete.
        reader: position of the reader of batches.
    """
    digests = {
        path.relative_to(folder).as_posix(): _digest(path)
        for path in sorted(folder.rglob("*"))
        # Another thread of Orbax still writes this file, with the time and the reader's position.
        if path.is_file() and path.name != _METADATA
    }
    (folder / DIGESTS).write_text(json.dumps({"reader": reader, "files": digests}) + "\n")


def unreadable(folder: Path) -> str | None:
    """Returns what is wrong with a checkpoint's metadata and metrics; None if nothing is.

    Args:
        folder: of the checkpoint.
    """
    for name, *keys in ((_METADATA, "custom_metadata", "reader"), (_METRICS, "nme")):
        try:
            entry = read_json(folder / name)
            for key in keys:
                entry = entry[key]
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name}: {error_cause(error)}"
        except ValueError:
            return f"{name} is not JSON"
        except (KeyError, TypeError):
            return f"{name} has no {'.'.join(keys)}"
    return None


def damage(folder: Path) -> str | None:
    """Returns what is wrong with a checkpoint's files; None if nothing is.

    Args:
        folder: of the checkpoint; if it has no digests, only metadata and metrics are checked.
    """
    if cause := unreadable(folder):
        return cause
    try:
        content = read_json(folder / DIGESTS)
        reader, digests = content["reader"], dict(content["files"])
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{DIGESTS}: {error_cause(error)}"
    except (ValueError, KeyError, TypeError):
        return f"{DIGESTS} has no digests"
    if read_position(folder) != reader:
        return f"{_METADATA} and {DIGESTS} have different positions of the reader"
    for name, digest in digests.items():
        try:
            # Outside of the folder, a name could be that of an endless device.
            inside = (folder / name).resolve().is_relative_to(folder.resolve())
            if not (inside and (folder / name).is_file()):
                return f"{name} is missing"
            actual = _digest(folder / name)
        except OSError as error:
            return f"{name}: {error_cause(error)}"
        if actual != digest:
            return f"{name} has another SHA-256 than when it was written"
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def error_cause(error: Exception) -> str:
    """Returns the cause of an error of Orbax in one line.

    TensorStore has the number of a system error, or the file, in the text of a ValueError.

    Args:
        error: an OSError, ValueError, KeyError, TypeError or RecursionError.
    """
    text = str(error)
    if number := re.search(r"os_error_code='(\d+)'", text):
        return os.strerror(int(number[1]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    code, files = re.match(r"[A-Z_]+(?=: )", text), re.findall(r'local file "([^"]+[^/"])"', text)
    if code and files:
        return f"{files[-1]}: {code[0]}"
    line = (text.splitlines() or [type(error).__name__])[0]
    return line if len(line) <= _CAUSE_CHARACTERS else f"{line[:_CAUSE_CHARACTERS]}..."
