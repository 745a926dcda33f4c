"""Data sets by name, and where their folder is."""

from __future__ import annotations

from pathlib import Path

import pytest

from rednet_jax.data.sources import read_split
from rednet_jax.errors import RednetError


def test_folder_is_given_or_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("given", "environment"):
        (tmp_path / folder / "ibug").mkdir(parents=True)
        (tmp_path / folder / "ibug" / f"{folder}.pts").touch()
    monkeypatch.setenv("REDNET_JAX_DATA", str(tmp_path / "environment"))
    assert len(read_split("300w", "challenging")) == 1
    samples = read_split("300w", "challenging", tmp_path / "given")
    assert list(samples) == [] and "given.pts: no n_points line" in samples.skipped[0]


def test_unknown_data_set_and_no_folder_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDNET_JAX_DATA", raising=False)
    with pytest.raises(RednetError, match="no data set 'coco'; known: 300w"):
        read_split("coco", "train")
    with pytest.raises(RednetError, match="give --data-dir FOLDER or set REDNET_JAX_DATA"):
        read_split("300w", "train")
