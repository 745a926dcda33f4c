"""Reduces the log messages of other libraries in commands."""

from __future__ import annotations

import logging
import os

LOG_VARIABLES = ("JAX_LOGGING_LEVEL", "JAX_DEBUG_LOG_MODULES")
"""Environment variables of JAX that show all log messages if one of them is set."""

_NOISE = (
    # A GPU or TPU that the installed JAX does not support.
    "jax._src.xla_bridge",
    # Proxies in the environment; `train.distributed` does not use them.
    "jax._src.distributed",
    # Orbax's advice on the frequency of checkpoints; its errors are also raised.
    "absl",
    "orbax",
)


def quieten() -> None:
    """Hides messages below errors of the loggers in `_NOISE` and of XLA.

    It must be called before jax is imported.
    """
    if any(os.environ.get(name) for name in LOG_VARIABLES):
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in _NOISE:
        logging.getLogger(name).setLevel(logging.ERROR)
