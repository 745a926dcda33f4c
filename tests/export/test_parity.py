"""The table of differences between exports and the network reuses existing exports."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from rednet_jax.weights.store import fingerprint, load

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "experiments" / "parity.py"))


@pytest.fixture
def parity(checkpoint, monkeypatch, tmp_path):
    """Runs the script for targets to which it cannot export.

    The folder has three exports: of the same weights, of others, and without a fingerprint.
    """
    monkeypatch.chdir(tmp_path)
    name = checkpoint("compact").name
    figures = {key: number for number, key in enumerate(SCRIPT["COPIED_FIELDS"])}
    same = fingerprint(load(name)[1])
    for target, weights in (("same", same), ("others", "0" * 64), ("unknown", None)):
        out = tmp_path / "exports" / f"{name}_{target}_1_float32"
        out.mkdir(parents=True)
        export = {**figures, "versions": {"framework": target}, "weights": weights}
        (out / "export.json").write_text(json.dumps(export))
    constants = {"TARGETS": ("same", "others", "unknown"), "FEEDBACK_STEPS": (1,)}
    constants |= {"DTYPES": ("float32",), "RESULTS": tmp_path}
    for key, value in constants.items():
        monkeypatch.setitem(SCRIPT["main"].__globals__, key, value)
    SCRIPT["main"](name, tmp_path / "exports", tmp_path)
    return json.loads((tmp_path / f"{name}_parity.json").read_text()), figures, same


def test_exports_of_the_same_weights_are_reused(parity):
    result, figures, weights = parity
    assert result["weights"] == weights
    same, others, unknown = result["per_row"]
    assert {key: same[key] for key in figures} == figures and "refused" not in same
    assert result["versions"]["framework"] == "same"
    # A failed export has a row with the cause, and the next rows follow.
    for row in (others, unknown):
        assert "invalid choice" in row["refused"] and row["target"] in row["refused"]
        assert not set(figures) & set(row)
