"""Export to LiteRT with builtin operators."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from rednet_jax.errors import RednetError
from rednet_jax.export import litert
from rednet_jax.export.litert import export_litert
from rednet_jax.weights.store import load, write_weights

for module in ("tensorflow", "ai_edge_litert"):
    # `importorskip` would import TensorFlow without what `import_tensorflow` does.
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed: the extra [tf]", allow_module_level=True)
from ai_edge_litert.interpreter import Interpreter  # noqa: E402

pytestmark = [pytest.mark.extras, pytest.mark.usefixtures("noise_faces")]


def test_signatures_describe_inputs_and_outputs(checkpoint, tmp_path):
    out, sizes = tmp_path / "out", {}
    file = checkpoint("compact")
    for dtype in ("float32", "float16"):
        written = export_litert(file, out, dtype, feedback_steps=1)
        assert {file.name for file in out.iterdir()} == {*written["files"], "export.json"}
        assert written == json.loads((out / "export.json").read_text())
        assert 0 < written["max_difference_px"] < 0.1
        sizes[dtype] = (out / "tiny.tflite").stat().st_size
    assert sizes["float16"] < sizes["float32"]
    for file, (name, described) in zip(
        written["files"], written["signatures"].items(), strict=True
    ):
        interpreter = Interpreter(str(out / file))
        details = interpreter.get_input_details()
        inputs = sorted(f"{part['dtype'].__name__} {part['shape'].tolist()}" for part in details)
        assert inputs == sorted(
            text.partition("]")[0] + "]" for text in described["inputs"].values()
        )
        signatures = interpreter.get_signature_list()
        assert set(signatures) == {name}
        assert set(signatures[name]["inputs"]) == set(described["inputs"])
        assert set(signatures[name]["outputs"]) == set(described["outputs"])


def test_only_kernels_are_rounded(checkpoint, tmp_path):
    file = checkpoint("compact")
    write_weights(file, *load(file), dtype="float16")
    written = export_litert(file, tmp_path / "out", "float16", feedback_steps=1)
    assert written["max_difference_px"] < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("feedback_steps", "preset", "changes"),
    [
        (1, "compact", {"recrop": "similarity", "context": 1.5}),
        (2, "compact", {"feedback": "none", "recurrence": "none", "statistics_per_pass": False}),
        # This many passes are a loop in the file.
        (5, "compact", {}),
        (2, "separable", {"recrop": "similarity", "context": 1.5}),
    ],
)
def test_every_configuration_agrees(checkpoint, tmp_path, feedback_steps, preset, changes):
    file = checkpoint(preset, **changes)
    written = export_litert(file, tmp_path / "out", feedback_steps=feedback_steps)
    assert written["max_difference_px"] < 1e-3


@pytest.mark.slow
def test_an_export_that_differs_is_not_written(checkpoint, tmp_path, exports_another_bias):
    exports_another_bias(litert)
    with pytest.raises(RednetError, match=r"^tiny as [a-z]+: the export differs from the network"):
        export_litert(checkpoint("compact"), tmp_path / "out", "float16", feedback_steps=1)
    assert not (tmp_path / "out").exists()
