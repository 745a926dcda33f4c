"""`bench input` on a narrow network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rednet_jax.bench import input as module
from rednet_jax.bench.input import bench_input
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import DataConfig, Experiment, Stage


def test_reading_augmenting_and_waiting_are_measured(
    narrow: Callable[..., RedNetConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_DRAWN", 8)
    stage = Stage(data=DataConfig(cached_size=80), batch=4)
    experiment = Experiment(
        name="bench", model=narrow("compact", feedback_steps=1), stages=(stage,)
    )
    result = bench_input(experiment, faces=10, steps=3)
    numbers = [value for value in result.values() if not isinstance(value, str)]
    assert all(np.isfinite(value) and value > 0 for value in numbers)
    # A step includes its augmentation.
    assert result["augmentation_share"] < 100 and result["waiting_share"] < 100
