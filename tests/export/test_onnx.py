"""Export to ONNX, run in onnxruntime with any batch size."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rednet_jax.errors import RednetError
from rednet_jax.export import check
from rednet_jax.export.onnx import OPSET, export_onnx
from rednet_jax.landmarks.builtin import REDNET7

for module in ("torch", "onnxscript", "onnx", "onnxruntime"):
    pytest.importorskip(module, reason=f"{module} is not installed: the extra [onnx]")
import onnx  # noqa: E402
import onnxruntime  # noqa: E402

pytestmark = [pytest.mark.extras, pytest.mark.usefixtures("noise_faces")]


def test_graphs_have_the_described_inputs_and_outputs(checkpoint, tmp_path):
    out = tmp_path / "out"
    written = export_onnx(checkpoint("compact"), out, "float16", feedback_steps=1)
    assert {file.name for file in out.iterdir()} == {*written["files"], "export.json"}
    assert written == json.loads((out / "export.json").read_text())
    assert 0 < written["max_difference_px"] < 0.1
    assert written["opset"] == OPSET == 18
    for name, signature in zip(written["files"], written["signatures"].values(), strict=True):
        model = onnx.load(out / name)
        assert [(part.domain, part.version) for part in model.opset_import] == [("", 18)]
        stored = {onnx.numpy_helper.to_array(part).dtype for part in model.graph.initializer}
        assert np.dtype(np.float16) in stored
        session = onnxruntime.InferenceSession(out / name, providers=["CPUExecutionProvider"])
        assert [part.name for part in session.get_inputs()] == list(signature["inputs"])
        assert [part.name for part in session.get_outputs()] == list(signature["outputs"])
        assert {part.shape[0] for part in session.get_inputs()} == {"batch"}
    session = onnxruntime.InferenceSession(out / "tiny.onnx", providers=["CPUExecutionProvider"])
    crops = np.random.default_rng(0).integers(256, size=(5, 64, 64, 3), dtype=np.uint8)
    together = session.run(None, {"crops": crops})[0]
    alone = np.concatenate([session.run(None, {"crops": crop[None]})[0] for crop in crops])
    assert together.shape == (5, 68, 2)
    np.testing.assert_allclose(together, alone, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("compact", {"recrop": "similarity", "context": 1.5}),
        ("compact", {"feedback": "none", "recurrence": "none", "statistics_per_pass": False}),
        ("separable", {"recrop": "similarity", "context": 1.5}),
        ("eccv_vgg", {"feedback": "label_map", "scheme": REDNET7}),
        ("ijcv_resnet", {}),
    ],
)
def test_every_configuration_agrees(checkpoint, tmp_path, preset, changes):
    written = export_onnx(checkpoint(preset, **changes), tmp_path / "out", feedback_steps=2)
    assert written["max_difference_px"] < 1e-3


@pytest.mark.slow
def test_an_export_that_differs_is_not_written(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(check.BAR_PX, "float32", 0.0)
    monkeypatch.setattr(check, "TWINS", 0)
    with pytest.raises(RednetError, match=r"^tiny as [a-z]+: the export differs from the network"):
        export_onnx(checkpoint("compact"), tmp_path / "out", feedback_steps=1)
    assert not (tmp_path / "out").exists()
