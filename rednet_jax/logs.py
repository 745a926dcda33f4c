"""What other libraries log while a command runs."""

from __future__ import annotations

import logging
import os

ASKED = ("JAX_LOGGING_LEVEL", "JAX_DEBUG_LOG_MODULES")
"""Variables of JAX; whoever sets one asks to see what is logged, and nothing is held back."""

_NOISE = (
    # That a machine may have a GPU or TPU that the installed JAX does not use.
    "jax._src.xla_bridge",
    # That there are proxies in the environment; `train.distributed` goes around them.
    "jax._src.distributed",
    # Orbax's advice on how often to save; what fails is raised as well.
    "absl",
    "orbax",
)


def quieten() -> None:
    """Holds back messages below errors of a few loggers, and of XLA; others log as ever.

    Called before jax is imported.
    """
    if any(os.environ.get(name) for name in ASKED):
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in _NOISE:
        logging.getLogger(name).setLevel(logging.ERROR)
