"""Fixtures of many tests: narrow networks that compile in seconds, and real faces."""

from __future__ import annotations

import os
from pathlib import Path

# Eight devices for meshes, set before jax is imported, and inherited by subprocesses. There are no
# other flags here: the tests run the code that XLA generates for users.
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
)
# Compilation takes most of a test run, so that processes and later runs share compiled programs.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "compiled")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# Subprocesses must import the package of this tree, too.
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

# On a busy machine an example may exceed Hypothesis' deadline.
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
    """`narrow` with fewer layers: one residual block instead of three to six in `ijcv_resnet`, and
    one convolution per stage instead of two or three in `eccv_vgg`.

    It compiles in a third of the time, and has every kind of layer.
    """
    init_blocks = Blocks.__init__

    def init_one_block(self: Blocks, inputs: int, outputs: int, depth: int, **options: Any) -> None:
        del depth
        init_blocks(self, inputs, outputs, 1, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Blocks, "__init__", init_one_block)
        for module in (encoder, decoder):
            # The first convolution of the first stage is separate from the others.
            patch.setattr(module, "VGG_DEPTHS", (2, 1, 1, 1, 1))
        # The margin differs from that of all other tests, so that their compiled functions, with
        # all layers, are not reused.
        yield lambda name, **changes: narrow(name, **{"crop_margin": 1.5, **changes})


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real faces and clips; tests that use it are skipped without it."""
    folder = os.environ.get("REDNET_DATA")
    if not folder:
        pytest.skip("REDNET_DATA is not set: no real faces")
    return Path(folder)


@pytest.fixture(scope="session")
def real_300w(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder with the prepared faces of 300-W, prepared once for all processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "real_300w"
    with FileLock(f"{folder}.lock"):
        if find_prepared("300w", folder) is None:
            prepare("300w", real_data / "300w", folder)
    return folder


@pytest.fixture
def noise_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports are compared on noise: the generator of faces takes a minute to compile."""
    rng = np.random.default_rng(0)
    box = np.asarray([10, 12, 60, 58], np.float32)
    # Smooth like photographs: in white noise, re-crops amplify rounding errors of positions.
    coarse = [
        Image.fromarray(rng.integers(256, size=(14, 14, 3), dtype=np.uint8)) for _ in range(8)
    ]
    images = [np.asarray(image.resize((72, 70), Image.Resampling.BICUBIC)) for image in coarse]
    monkeypatch.setattr(inputs, "_generated", lambda: [(image, box) for image in images])
    monkeypatch.setattr(inputs, "find_prepared", lambda name, data_dir: None)


@pytest.fixture(scope="session")
def network(narrow: Callable[..., RedNetConfig]) -> tuple[RedNetConfig, dict[str, Any]]:
    """(config, variables) of an untrained narrow network."""
    config = narrow("compact")
    return config, init(config, jax.random.key(0))


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """scikit-image's astronaut, a real face."""
    return read_image(portrait_path(), upright=True)
