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
    """Runs the script for one checkpoint and targets of which nothing can be made anew.

    The folder holds three exports: of these weights, of others, and one that does not say.
    """
    folder, result = tmp_path / "exports", tmp_path / "parity.json"
    name = checkpoint("compact").name
    monkeypatch.chdir(tmp_path)
    told = {key: number for number, key in enumerate(SCRIPT["TOLD"])}
    mine = fingerprint(load(name)[1])
    for target, weights in (("mine", mine), ("others", "0" * 64), ("silent", None)):
        out = folder / f"{name}_{target}_1_float32"
        out.mkdir(parents=True)
        export = {**told, "versions": {"framework": target}, "weights": weights}
        (out / "export.json").write_text(json.dumps(export))
    given = {"CHECKPOINTS": (name,), "TARGETS": ("mine", "others", "silent")}
    given |= {"FEEDBACK_STEPS": (1,), "DTYPES": ("float32",), "RESULT": result}
    for key, value in given.items():
        monkeypatch.setitem(SCRIPT["main"].__globals__, key, value)
    SCRIPT["main"](folder, tmp_path)
    return json.loads(result.read_text()), told


def test_exports_of_the_same_weights_are_taken_as_they_are(parity):
    result, told = parity
    mine, others, silent = result["per_row"]
    assert {key: mine[key] for key in told} == told and "refused" not in mine
    assert result["versions"]["framework"] == "mine"
    # What cannot be exported says why, and the rows after it are made all the same.
    for row in (others, silent):
        assert "invalid choice" in row["refused"] and row["target"] in row["refused"]
        assert not set(told) & set(row)
