"""Enables JAX's persistent compilation cache for commands.

JAX's own settings take precedence: JAX_COMPILATION_CACHE_DIR is another folder, with JAX's default
limits, and JAX_ENABLE_COMPILATION_CACHE=false disables the cache.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping

from rednet_jax.data.folder import data_folder

FOLDER = "compilation_cache"
"""Folder of the cache in the folder of prepared data."""

_LARGEST = 2 * 2**30
"""Maximum size in bytes; the least recently used programs are deleted first."""

_SHORTEST = 0.1
"""Programs that compile in fewer seconds are not stored."""


def keep_compiled(enabled: bool = True) -> None:
    """Enables JAX's compilation cache for this process and its subprocesses.

    It must be called before the first compilation, and does not import jax. Without write access to
    the folder, programs are compiled without a cache.

    Args:
        enabled: False disables the cache, regardless of JAX's own settings.
    """
    if not enabled:
        _configure({"jax_enable_compilation_cache": False})
        return
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        folder = data_folder() / FOLDER
        # Only the user may write there, since files of the cache are executed.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        # RuntimeError: there is no home folder.
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        return
    # A full disk or a damaged file has no effect except a slower start.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
    settings: dict[str, str | float] = {
        "jax_compilation_cache_dir": str(folder),
        "jax_compilation_cache_max_size": _LARGEST,
        "jax_persistent_cache_min_compile_time_secs": _SHORTEST,
    }
    _configure({name: value for name, value in settings.items() if name.upper() not in os.environ})


def _configure(settings: Mapping[str, str | float]) -> None:
    for name, value in settings.items():
        os.environ[name.upper()] = str(value)
    # JAX reads the environment variables only when it is imported.
    if "jax" in sys.modules:
        import jax

        for name, value in settings.items():
            jax.config.update(name, value)
