"""The table of exports has a row for each form that can be had, and names the others."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rednet_jax.bench import exports
from rednet_jax.bench.exports import bench_exports
from rednet_jax.errors import RednetError
from rednet_jax.export import check
from rednet_jax.export.inputs import Inputs


@pytest.fixture
def forms(narrow, monkeypatch):
    """The points that each form answers, which a test may change; networks of one point."""
    frames = np.zeros((4, 2, 8, 8, 3), np.uint8)
    warps = np.zeros((4, 2, 2, 3), np.float32)

    def runner(point):
        def step(frames, state, warp):
            return (np.full((1, 1, 2), point), np.ones((1, 1))), state

        return check.Runner(lambda crops: None, step)

    def export(checkpoint, target, folder, *, feedback_steps, data_dir):
        if target not in points:
            raise RednetError(f"{target} is not installed")
        folder.mkdir(parents=True)
        written = {"target": target, "max_difference_px": 0.25, "versions": {target: "1"}}
        (folder / "export.json").write_text(json.dumps(written))

    points = {"torch": 3.25, "stablehlo": 3.0}
    monkeypatch.setattr(exports, "load", lambda checkpoint: (narrow("compact"), {}))
    monkeypatch.setattr(
        exports,
        "comparison_inputs",
        lambda config, data_dir: Inputs("dots", frames[:, 0], frames, warps),
    )
    monkeypatch.setattr(exports, "network", lambda *args: runner(3.0))
    monkeypatch.setattr(exports, "export", export)
    monkeypatch.setattr(
        exports,
        "_runners",
        lambda config, folder, written: {written["target"]: runner(points[written["target"]])},
    )
    return points


def test_rows_of_all_forms_that_can_be_had(forms, tmp_path):
    result = bench_exports("any", out=tmp_path, rounds=2)
    rows = [(row["target"], row["feedback_steps"]) for row in result["per_row"]]
    assert rows == [(name, k) for k in (1, 3) for name in ("jax", "stablehlo", "torch")]
    missing = {row["target"]: row["left_out"] for row in result["left_out"]}
    assert missing == {
        name: f"{name} is not installed" for name in ("onnx", "savedmodel", "litert")
    }
    assert all(row["ms_per_frame"] > 0 for row in result["per_row"])
    assert {row["max_difference_px"] for row in result["per_row"]} == {0.0, 0.25}
    assert result["seen"] == "dots: one stream of 4 frames"
    assert result["provenance"]["versions"]["torch"] == "1"
    assert result["provenance"]["command"].startswith("rednet bench exports --checkpoint any ")


def test_another_checkpoints_export_is_not_timed(forms, tmp_path):
    bench_exports("any", out=tmp_path, feedback_steps=(1,), rounds=1)
    forms["torch"] = 30.0
    with pytest.raises(RednetError, match="torch_1: an export of something else; delete it"):
        bench_exports("other", out=tmp_path, feedback_steps=(1,), rounds=1)
