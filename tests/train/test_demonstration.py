"""The last part of the quick start: the path of its experiment, and its errors."""

from __future__ import annotations

import importlib.resources
import sys
import tomllib
from pathlib import Path

import pytest

from rednet_jax.errors import RednetError
from rednet_jax.train.demonstration import MESH, RESUMED, STOPPED, demonstrate, smoke_path
from rednet_jax.train.load import load_experiment

ROOT = Path(__file__).parents[2]


def test_a_checkout_has_the_experiment_beside_the_package():
    assert smoke_path() == ROOT / "experiments" / "smoke.py"
    mesh = {f"mesh.{axis}": str(size) for axis, size in MESH.items()}
    smoke = load_experiment(smoke_path(), mesh)
    assert smoke.steps > RESUMED
    # Their validation is printed.
    assert STOPPED % smoke.evaluate_every == RESUMED % smoke.evaluate_every == 0


def test_a_wheel_has_the_experiment_below_the_package(tmp_path, monkeypatch):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    (target,) = (to for source, to in included.items() if source == "experiments/smoke.py")
    installed = tmp_path / target
    installed.parent.mkdir(parents=True)
    installed.touch()
    monkeypatch.setattr(importlib.resources, "files", lambda name: tmp_path / name)
    assert smoke_path() == installed


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo one >&2; echo two >&2; exit 1", "two"),
        ("exit 1", "no error message"),
        ("kill -9 $$", "ended by signal 9"),
    ],
)
def test_a_failure_is_one_line(tmp_path, monkeypatch, script, reason):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    (tmp_path / "smoke").mkdir()
    with pytest.raises(RednetError) as error:
        demonstrate(tmp_path)
    # The existing run is not changed.
    assert str(error.value) == f"{tmp_path}/smoke_2: training failed ({reason})"
