"""Small networks for exports, in which every weight has an effect, and the exported web page."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest
from export.web_page import serving

from rednet_jax.export import check
from rednet_jax.export.checked import Job, Written
from rednet_jax.export.web import export_web
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.rednet import init
from rednet_jax.weights.store import write_weights


@pytest.fixture(scope="session")
def weights() -> Callable[[RedNetConfig], dict[str, Any]]:
    """`weights(config)`: variables without the zeros and ones of the initialisation."""

    def randomised(config: RedNetConfig) -> dict[str, Any]:
        rng = np.random.default_rng(0)
        # Untrained, the journal version's loop amplifies 1e-6 to a pixel within a few passes, and
        # its maps are so flat that the positions of their peaks are arbitrary.
        journal = config.architecture == "ijcv_resnet"
        calm, peaked = (0.02, 10.0) if journal else (1.0, 1.0)

        def add_noise(path: Any, leaf: Any) -> np.ndarray:
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
            add_noise, init(config, jax.random.key(0))
        )
        return variables

    return randomised


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
    """`exports_another_bias(module)`: its files differ from the checkpoint in a bias of f_tRNN.

    No twins are computed, since the differences are no ties.
    """
    monkeypatch.setattr(check, "TWINS", 0)

    def patch(module: ModuleType) -> None:
        make: Callable[[Job], Written] = module._make

        def changed(job: Job) -> Written:
            variables = jax.tree.map(np.copy, job.variables)
            variables["params"]["temporal"]["gates"]["bias"] += np.float32(0.01)
            return make(job._replace(variables=variables))

        monkeypatch.setattr(module, "_make", changed)

    return patch


BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A function that launches Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as driver:
        yield functools.partial(driver.chromium.launch, executable_path=executable)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The exported page of `compact`: its folder, and the address of a server of static files."""
    node_modules = os.environ.get("REDNET_ONNXRUNTIME_WEB")
    if not node_modules:
        pytest.skip("REDNET_ONNXRUNTIME_WEB is not set to npm's folder onnxruntime-web")
    for module in ("torch", "onnxscript", "onnx", "onnxruntime"):
        pytest.importorskip(module, reason=f"{module} is not installed: the extra [onnx]")
    folder = tmp_path_factory.mktemp("site")
    export_web("compact", folder, runtime=node_modules, feedback_steps=1)
    with serving(folder) as address:
        yield folder, address


@pytest.fixture
def clip(real_data: Path) -> Path:
    """A video file with a face in the centre."""
    return real_data / "clips" / "carphone_pristine" / "vid.mp4"
