"""The table of how far exports are from the network: what lies there is read, the rest is made."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from rednet_jax.weights.store import fingerprint, load

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "experiments" / "parity.py"))


@pytest.fixture
def parity(checkpoint, monkeypatch, tmp_path):
    """Runs the script for targets of which nothing can be made anew.

    The folder holds three exports: of these weights, of others, and one that does not say.
    """
    monkeypatch.chdir(tmp_path)
    name = checkpoint("compact").name
    told = {key: number for number, key in enumerate(SCRIPT["TOLD"])}
    mine = fingerprint(load(name)[1])
    for target, weights in (("mine", mine), ("others", "0" * 64), ("silent", None)):
        out = tmp_path / "exports" / f"{name}_{target}_1_float32"
        out.mkdir(parents=True)
        export = {**told, "versions": {"framework": target}, "weights": weights}
        (out / "export.json").write_text(json.dumps(export))
    given = {"TARGETS": ("mine", "others", "silent"), "FEEDBACK_STEPS": (1,)}
    given |= {"DTYPES": ("float32",), "RESULTS": tmp_path}
    for key, value in given.items():
        monkeypatch.setitem(SCRIPT["main"].__globals__, key, value)
    SCRIPT["main"](name, tmp_path / "exports", tmp_path)
    return json.loads((tmp_path / f"{name}_parity.json").read_text()), told, mine


def test_exports_of_the_same_weights_are_taken_as_they_are(parity):
    result, told, weights = parity
    assert result["weights"] == weights
    mine, others, silent = result["per_row"]
    assert {key: mine[key] for key in told} == told and "refused" not in mine
    assert result["versions"]["framework"] == "mine"
    # What cannot be exported says why, and the rows after it are made all the same.
    for row in (others, silent):
        assert "invalid choice" in row["refused"] and row["target"] in row["refused"]
        assert not set(told) & set(row)
