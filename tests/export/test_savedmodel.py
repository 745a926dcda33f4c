"""Export to a SavedModel, run in TensorFlow with any batch size."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from rednet_jax.errors import RednetError
from rednet_jax.export import savedmodel
from rednet_jax.export.savedmodel import export_savedmodel, import_tensorflow

if find_spec("tensorflow") is None:
    pytest.skip("tensorflow is not installed: the extra [tf]", allow_module_level=True)
tf = import_tensorflow()

pytestmark = [pytest.mark.extras, pytest.mark.usefixtures("noise_faces")]


def test_signatures_describe_inputs_and_outputs(checkpoint, tmp_path):
    out = tmp_path / "out"
    written = export_savedmodel(checkpoint("compact"), out, "float16", feedback_steps=1)
    files = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
    assert files == {*written["files"], "export.json"}
    assert written == json.loads((out / "export.json").read_text())
    assert 0 < written["max_difference_px"] < 0.1
    model = tf.saved_model.load(out / "tiny")
    assert set(model.signatures) == set(written["signatures"]) == {"still", "stream"}
    for name, described in written["signatures"].items():
        inputs = model.signatures[name].structured_input_signature[1]
        assert set(inputs) == set(described["inputs"])
        assert set(model.signatures[name].structured_outputs) == set(described["outputs"])
        assert {spec.shape[0] for spec in inputs.values()} == {None}
    crops = np.random.default_rng(0).integers(256, size=(5, 64, 64, 3), dtype=np.uint8)
    still = model.signatures["still"]
    together = still(crops=crops)["landmarks"].numpy()
    alone = np.concatenate([still(crops=crop[None])["landmarks"] for crop in crops])
    assert together.shape == (5, 68, 2)
    np.testing.assert_allclose(together, alone, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("compact", {"recrop": "similarity", "context": 1.5}),
        ("compact", {"feedback": "none", "recurrence": "none", "statistics_per_pass": False}),
        ("separable", {"recrop": "similarity", "context": 1.5}),
    ],
)
def test_every_configuration_agrees(checkpoint, tmp_path, preset, changes):
    written = export_savedmodel(checkpoint(preset, **changes), tmp_path / "out", feedback_steps=2)
    assert written["max_difference_px"] < 1e-3


@pytest.mark.slow
def test_an_export_that_differs_is_not_written(checkpoint, tmp_path, exports_another_bias):
    exports_another_bias(savedmodel)
    with pytest.raises(RednetError, match=r"^tiny as [a-z]+: the export differs from the network"):
        export_savedmodel(checkpoint("compact"), tmp_path / "out", "float16", feedback_steps=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed: the extra [torch]")
def test_pytorch_exports_in_a_process_that_has_imported_tensorflow():
    script = (
        "from rednet_jax.export.savedmodel import import_tensorflow; import_tensorflow()\n"
        "import torch._dynamo"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
