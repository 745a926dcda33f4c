"""Networks without training, and small videos."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from rednet_jax.media.images import read_image
from rednet_jax.model.rednet import init
from rednet_jax.tracking.quickstart import portrait_path


@pytest.fixture(scope="session")
def network(narrow):
    """(config, variables) of a narrow network as it is before training."""
    config = narrow("compact")
    return config, init(config, jax.random.key(0))


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """The astronaut: a real face that comes with scikit-image."""
    return read_image(portrait_path(), upright=True)
