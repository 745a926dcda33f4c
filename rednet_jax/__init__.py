"""rednet_jax: facial landmarks in video with RED-Net, in JAX.

    import rednet_jax as rednet
    config, variables = rednet.load("compact")

Names are imported lazily on first use, so that `import rednet_jax` is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rednet_jax.inference.aligner import Aligner as Aligner
    from rednet_jax.inference.aligner import align as align
    from rednet_jax.inference.face import Face as Face
    from rednet_jax.inference.tracker import Tracker as Tracker
    from rednet_jax.inference.tracking import track as track
    from rednet_jax.landmarks.builtin import load_scheme as load_scheme
    from rednet_jax.landmarks.schemes import Scheme as Scheme
    from rednet_jax.model.config import RedNetConfig as RedNetConfig
    from rednet_jax.model.rednet import align_clip as align_clip
    from rednet_jax.model.rednet import align_image as align_image
    from rednet_jax.model.rednet import encode as encode
    from rednet_jax.model.rednet import init as init
    from rednet_jax.model.rednet import initial_state as initial_state
    from rednet_jax.model.rednet import step as step
    from rednet_jax.train.experiment import Experiment as Experiment
    from rednet_jax.train.experiment import Stage as Stage
    from rednet_jax.weights.store import load as load
    from rednet_jax.weights.store import write_weights as save  # noqa: F401

__version__ = "0.2.0"

_MODULES = {
    "RedNetConfig": "rednet_jax.model.config",
    "init": "rednet_jax.model.rednet",
    "initial_state": "rednet_jax.model.rednet",
    "align_image": "rednet_jax.model.rednet",
    "align_clip": "rednet_jax.model.rednet",
    "step": "rednet_jax.model.rednet",
    "encode": "rednet_jax.model.rednet",
    "load": "rednet_jax.weights.store",
    "save": "rednet_jax.weights.store:write_weights",
    "Scheme": "rednet_jax.landmarks.schemes",
    "load_scheme": "rednet_jax.landmarks.builtin",
    "Experiment": "rednet_jax.train.experiment",
    "Stage": "rednet_jax.train.experiment",
    "align": "rednet_jax.inference.aligner",
    "Aligner": "rednet_jax.inference.aligner",
    "Face": "rednet_jax.inference.face",
    "Tracker": "rednet_jax.inference.tracker",
    "track": "rednet_jax.inference.tracking",
}

__all__ = [*_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'rednet_jax' has no attribute {name!r}")
    module, _, attribute = _MODULES[name].partition(":")
    return getattr(importlib.import_module(module), attribute or name)


def __dir__() -> list[str]:
    return sorted(__all__)
