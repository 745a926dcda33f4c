"""`bench exports`: rows of the available targets, and a list of the others."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rednet_jax.bench import exports
from rednet_jax.bench.exports import bench_exports
from rednet_jax.errors import RednetError
from rednet_jax.export import check
from rednet_jax.export.inputs import Inputs
from rednet_jax.weights.store import fingerprint


@pytest.fixture
def forms(narrow, monkeypatch):
    """Makes two targets available, with networks of one point."""
    frames = np.zeros((4, 2, 8, 8, 3), np.uint8)
    warps = np.zeros((4, 2, 2, 3), np.float32)

    def step(frames, state, warp):
        return (np.zeros((1, 1, 2)), np.ones((1, 1))), state

    runner = check.Runner(lambda crops: None, step)

    def export(checkpoint, target, folder, *, feedback_steps, data_dir):
        if target not in ("stablehlo", "torch"):
            raise RednetError(f"{target} is not installed")
        folder.mkdir(parents=True)
        written = {
            "target": target,
            "weights": fingerprint({}),
            "feedback_steps": feedback_steps,
            "dtype": "float32",
            "versions": {target: "1"},
        }
        (folder / "export.json").write_text(json.dumps(written))

    monkeypatch.setattr(exports, "load", lambda checkpoint: (narrow("compact"), {}))
    monkeypatch.setattr(
        exports,
        "comparison_inputs",
        lambda config, data_dir: Inputs("dots", frames[:, 0], frames, warps),
    )
    monkeypatch.setattr(exports, "network", lambda *args: runner)
    monkeypatch.setattr(exports, "export", export)
    monkeypatch.setattr(
        exports,
        "_runners",
        lambda config, folder, written: {written["target"]: runner},
    )


def test_rows_of_all_available_targets(forms, tmp_path):
    result = bench_exports("any", out=tmp_path, rounds=2)
    rows = [(row["target"], row["feedback_steps"]) for row in result["per_row"]]
    assert rows == [(name, k) for k in (1, 3) for name in ("jax", "stablehlo", "torch")]
    assert result["left_out"] == [
        {"target": name, "feedback_steps": k, "left_out": f"{name} is not installed"}
        for k in (1, 3)
        for name in ("onnx", "savedmodel", "litert")
    ]
    assert all(row["ms_per_frame"] > 0 for row in result["per_row"])
    assert result["seen"] == "dots: one stream of 4 frames"
    assert result["provenance"]["versions"]["torch"] == "1"
    assert result["provenance"]["command"].startswith("rednet bench exports --checkpoint any ")


@pytest.mark.parametrize(
    "changes", [{"weights": "of another"}, {"feedback_steps": 3}, {"dtype": "float16"}]
)
def test_an_existing_export_of_another_checkpoint_is_refused(forms, tmp_path, changes):
    bench_exports("any", out=tmp_path, feedback_steps=(1,), rounds=1)
    file = tmp_path / "torch_1" / "export.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(RednetError, match="torch_1: an export of another checkpoint or config"):
        bench_exports("any", out=tmp_path, feedback_steps=(1,), rounds=1)
    file.write_text("{")
    with pytest.raises(RednetError, match=r"torch_1/export\.json: cannot be read"):
        bench_exports("any", out=tmp_path, feedback_steps=(1,), rounds=1)
