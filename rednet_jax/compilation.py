"""Compiled programs are kept from one process to the next, in a folder of JAX's.

JAX's own settings decide where they are set: JAX_COMPILATION_CACHE_DIR names another folder, with
JAX's own limits, and JAX_ENABLE_COMPILATION_CACHE=false keeps nothing.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping

from rednet_jax.data.folder import data_folder

FOLDER = "compilation_cache"
"""Below the folder of prepared data."""

_LARGEST = 2 * 2**30
"""Bytes; what was not used for the longest time is deleted first."""

_SHORTEST = 0.1
"""Seconds; a program that compiles faster is not worth a file."""


def keep_compiled(enabled: bool = True) -> None:
    """Turns JAX's compilation cache on, for this process and those that it starts.

    Called before anything is compiled, best before jax is imported, which this does not do. Where
    the folder cannot be made or written, programs are compiled as without it.

    Args:
        enabled: False turns the cache off, whatever JAX's own settings say.
    """
    if not enabled:
        _configure({"jax_enable_compilation_cache": False})
        return
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        folder = data_folder() / FOLDER
        # Whoever can write there can run code here.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        # The second where there is no home.
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        return
    # A full disk or a damaged file costs time, and nothing that a user must know.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
    settings: dict[str, str | float] = {
        "jax_compilation_cache_dir": str(folder),
        "jax_compilation_cache_max_size": _LARGEST,
        "jax_persistent_cache_min_compile_time_secs": _SHORTEST,
    }
    given = os.environ.keys()
    _configure({name: value for name, value in settings.items() if name.upper() not in given})


def _configure(settings: Mapping[str, str | float]) -> None:
    for name, value in settings.items():
        os.environ[name.upper()] = str(value)
    # The variables are read as jax is imported.
    if "jax" in sys.modules:
        import jax

        for name, value in settings.items():
            jax.config.update(name, value)
