"""What many tests share: narrow networks that compile in seconds, and real faces."""

from __future__ import annotations

import os
from pathlib import Path

# Eight devices, for meshes. Set before jax is imported, and inherited by subprocesses. Nothing
# else is set here: the tests run the code that XLA generates for users.
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
)
# Compiling is most of a test run: its processes share what they compile, and the next run has it.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "compiled")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# So that subprocesses, too, import the tree that these tests lie in.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
)

from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import jax
import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from rednet_jax.data.prepare import find_prepared, prepare
from rednet_jax.export import inputs
from rednet_jax.media.images import read_image
from rednet_jax.model import decoder, encoder
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.encoder import Blocks
from rednet_jax.model.rednet import init
from rednet_jax.quickstart import portrait_path

# On a busy machine any example may take longer than Hypothesis allows.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")

NARROW: dict[str, dict[str, Any]] = {
    "compact": {
        "image_size": 64,
        "widths": (4, 6, 8, 10, 12, 14, 5),
        "code_width": 16,
        "recurrent_width": 4,
        "regression_width": 6,
        "identities": 5,
    },
    "separable": {
        "image_size": 64,
        "widths": (6, 10, 14),
        "code_width": 16,
        "recurrent_width": 4,
        "regression_width": 6,
        "identities": 5,
    },
    "eccv_vgg": {
        "image_size": 32,
        "widths": (4, 6, 8, 10, 12),
        "code_width": 12,
        "recurrent_width": 4,
        "regression_width": 6,
        "identities": 5,
    },
    "ijcv_resnet": {
        "image_size": 64,
        "widths": (4, 8, 12, 16, 20),
        "code_width": 20,
        "recurrent_width": 4,
        "regression_width": 8,
        "identities": 5,
    },
}


@pytest.fixture(scope="session")
def narrow() -> Callable[..., RedNetConfig]:
    """`narrow('compact', feedback_steps=3)`: a preset at widths that compile in seconds."""
    return lambda name, **changes: RedNetConfig.preset(name, **{**NARROW[name], **changes})


@pytest.fixture(scope="module")
def shallow(narrow: Callable[..., RedNetConfig]) -> Iterator[Callable[..., RedNetConfig]]:
    """`narrow` with fewer layers: one residual block where `ijcv_resnet` has three to six, and one
    convolution in each stage of `eccv_vgg` where it has two or three.

    It compiles in a third of the time, and has every kind of layer that scans and gradients meet.
    """
    begin = Blocks.__init__

    def one(self: Blocks, inputs: int, outputs: int, depth: int, **options: Any) -> None:
        del depth
        begin(self, inputs, outputs, 1, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Blocks, "__init__", one)
        for module in (encoder, decoder):
            # The first convolution of the first stage stands apart from the others.
            patch.setattr(module, "VGG_DEPTHS", (2, 1, 1, 1, 1))
        # A margin of its own: no other test, with all layers, can have compiled for such a config.
        yield lambda name, **changes: narrow(name, **{"crop_margin": 1.5, **changes})


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real faces and clips; without one, the test that asks for it is skipped."""
    folder = os.environ.get("REDNET_DATA")
    if not folder:
        pytest.skip("REDNET_DATA is not set: no real faces here")
    return Path(folder)


@pytest.fixture(scope="session")
def real_300w(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder in which the real faces of 300-W are prepared, once for all processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "real_300w"
    with FileLock(f"{folder}.lock"):
        if find_prepared("300w", folder) is None:
            prepare("300w", real_data / "300w", folder)
    return folder


@pytest.fixture
def noise_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports are compared on images of noise: faces take a minute to compile."""
    rng = np.random.default_rng(0)
    box = np.asarray([10, 12, 60, 58], np.float32)
    # As smooth as images are: re-crops would enlarge the last bit of a place.
    coarse = [
        Image.fromarray(rng.integers(256, size=(14, 14, 3), dtype=np.uint8)) for _ in range(8)
    ]
    pictures = [(np.asarray(one.resize((72, 70), Image.Resampling.BICUBIC)), box) for one in coarse]
    monkeypatch.setattr(inputs, "_generated", lambda: pictures)
    monkeypatch.setattr(inputs, "find_prepared", lambda name, data_dir: None)


@pytest.fixture(scope="session")
def network(narrow: Callable[..., RedNetConfig]) -> tuple[RedNetConfig, dict[str, Any]]:
    """(config, variables) of a narrow network as it is before training."""
    config = narrow("compact")
    return config, init(config, jax.random.key(0))


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """The astronaut: a real face that comes with scikit-image."""
    return read_image(portrait_path(), upright=True)
