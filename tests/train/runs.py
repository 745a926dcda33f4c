"""Helpers of tests that train: the results of a run, and its errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from rednet_jax.errors import RednetError
from rednet_jax.train.experiment import Experiment
from rednet_jax.train.loop import train


def rows(folder: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl without the values that depend on the clock."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    clock = ("frames_per_second", "waiting")
    return [{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines]


def validations(folder: Path) -> dict[int, list[float]]:
    """Validation NME of each pass by step."""
    return {row["step"]: row["validation_nme"] for row in rows(folder) if "validation_nme" in row}


def saved(folder: Path) -> list[int]:
    """Steps of the checkpoints."""
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


def assert_same(actual: Any, expected: Any) -> None:
    """Asserts that two trees are equal, bit for bit."""
    for (path, a), b in zip(
        jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


def training_error(
    experiment: Experiment, folder: Path, data_dir: Path | None, **options: Any
) -> str:
    """The message of the RednetError that `train` raises, which is one line."""
    with pytest.raises(RednetError) as caught:
        train(experiment, folder, data_dir=data_dir, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text
