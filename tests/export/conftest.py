"""Networks for exports: small, but with every number at work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest

from rednet_jax.export import check
from rednet_jax.export.checked import Job, Made
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.rednet import init
from rednet_jax.weights.store import write_weights


@pytest.fixture(scope="session")
def weights() -> Callable[[RedNetConfig], dict[str, Any]]:
    """`weights(config)`: variables in which nothing is 0 or 1 that training would move."""

    def shaken(config: RedNetConfig) -> dict[str, Any]:
        rng = np.random.default_rng(0)
        # Untrained, the journal form's loop makes 1e-6 a pixel within a few passes, and its maps
        # are so flat that their peaks lie anywhere.
        journal = config.architecture == "ijcv_resnet"
        calm, peaked = (0.02, 10.0) if journal else (1.0, 1.0)

        def shake(path: Any, leaf: Any) -> np.ndarray:
            names, array = [part.key for part in path], np.asarray(leaf)
            noise = rng.normal(0, 1, array.shape)
            if names[-1] == "variance":
                array = 1 + 0.5 * np.abs(noise)
            elif names[-1] in ("scale", "gain"):
                array = array * (1 + 0.2 * noise) * (calm if "expand" in names else 1)
            elif names[-1] != "kernel" or not array.any():
                array = array + 0.1 * noise
            elif names[1:3] == ["detection", "logits"]:
                array = array * peaked
            return array.astype(np.float32)

        variables: dict[str, Any] = jax.tree_util.tree_map_with_path(
            shake, init(config, jax.random.key(0))
        )
        return variables

    return shaken


@pytest.fixture
def checkpoint(
    narrow: Callable[..., RedNetConfig],
    weights: Callable[[RedNetConfig], dict[str, Any]],
    tmp_path: Path,
) -> Callable[..., Path]:
    """`checkpoint('compact', **changes)`: a file of weights."""

    def written(preset: str, **changes: Any) -> Path:
        config = narrow(preset, **changes)
        write_weights(tmp_path / "tiny.safetensors", config, weights(config))
        return tmp_path / "tiny.safetensors"

    return written


@pytest.fixture
def exports_another_bias(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType], None]:
    """`exports_another_bias(module)`: its files differ from the checkpoint in a bias of the memory.

    What differs is then no tie, so no twins are computed.
    """
    monkeypatch.setattr(check, "TWINS", 0)

    def patch(module: ModuleType) -> None:
        make: Callable[[Job], Made] = module._make

        def changed(job: Job) -> Made:
            variables = jax.tree.map(np.copy, job.variables)
            variables["params"]["temporal"]["gates"]["bias"] += np.float32(0.01)
            return make(job._replace(variables=variables))

        monkeypatch.setattr(module, "_make", changed)

    return patch
