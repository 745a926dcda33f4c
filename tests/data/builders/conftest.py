"""A fixture that prepares data sets in a temporary data folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rednet_jax.data.prepare import Prepared, prepare


@pytest.fixture
def build(tmp_path: Path) -> Callable[[str, Path], Prepared]:
    """`build(name, source)` prepares a data set as the command does."""
    return lambda name, source: prepare(name, source, tmp_path / "prepared")
