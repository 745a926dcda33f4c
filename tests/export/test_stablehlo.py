"""Export to StableHLO, run with only JAX, for any batch size and platform."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from jax import export

from rednet_jax.errors import RednetError
from rednet_jax.export import stablehlo
from rednet_jax.export.inputs import comparison_inputs
from rednet_jax.export.named import network
from rednet_jax.export.stablehlo import export_stablehlo
from rednet_jax.landmarks.builtin import REDNET7
from rednet_jax.weights.store import load

pytestmark = pytest.mark.usefixtures("noise_faces")

WITH_ONLY_JAX = """
import sys
sys.modules["rednet_jax"] = sys.modules["flax"] = None

import json
from pathlib import Path

import jax
import jax.export
import numpy as np

folder = Path(sys.argv[1])
inputs = np.load(folder / "inputs.npz")
still, stream = (
    jax.export.deserialize(bytearray((folder / file).read_bytes()))
    for file in ("tiny.stablehlo", "tiny_stream.stablehlo")
)
landmarks = still.call(crops=inputs["frames"][0])["landmarks"]
signature = json.loads((folder / "export.json").read_text())["signatures"]["stream"]
_, avals = stream.in_tree.unflatten(stream.in_avals)
state = {
    name: np.broadcast_to(np.asarray(value, avals[name].dtype), (3, *avals[name].shape[1:]))
    for name, value in signature["before_the_first_frame"].items()
}
for crops, warp in zip(inputs["frames"], inputs["warps"], strict=True):
    outputs = stream.call(crops=crops, warp=warp, **state)
    state = {name: outputs[f"next_{name}"] for name in state}
np.savez(folder / "outputs.npz", still=landmarks, stream=outputs["landmarks"])
"""


def test_the_files_need_only_jax_and_accept_any_batch_size(checkpoint, tmp_path):
    out, file = tmp_path / "out", checkpoint("compact", recrop="similarity", context=1.5)
    written = export_stablehlo(file, out, feedback_steps=1)
    assert {file.name for file in out.iterdir()} == {*written["files"], "export.json"}
    assert written == json.loads((out / "export.json").read_text())
    for name, signature in zip(written["files"], written["signatures"].values(), strict=True):
        exported = export.deserialize(bytearray((out / name).read_bytes()))
        assert exported.platforms == ("cpu", "cuda", "tpu")
        _, inputs = exported.in_tree.unflatten(exported.in_avals)
        outputs = exported.out_tree.unflatten(exported.out_avals)
        for arrays, described in ((inputs, "inputs"), (outputs, "outputs")):
            shapes = {key: f"{aval.dtype} {[*aval.shape]}" for key, aval in arrays.items()}
            texts = {key: text.split("]")[0] + "]" for key, text in signature[described].items()}
            assert shapes == {key: text.replace("B", "b") for key, text in texts.items()}
    config, variables = load(file)
    inputs = comparison_inputs(config)
    runner = network(config, variables, 1)
    (_, _), state = runner.step(inputs.frames[0], None, inputs.warps[0])
    (landmarks, _), _ = runner.step(inputs.frames[1], state, inputs.warps[1])
    np.savez(out / "inputs.npz", frames=inputs.frames[:2, :3], warps=inputs.warps[:2, :3])
    subprocess.run([sys.executable, "-c", WITH_ONLY_JAX, out], check=True)
    outputs = np.load(out / "outputs.npz")
    np.testing.assert_allclose(outputs["still"], runner.still(inputs.crops)[0][:3], atol=1e-3)
    np.testing.assert_allclose(outputs["stream"], landmarks[:3], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("compact", {}),
        ("compact", {"feedback": "none", "recurrence": "none", "statistics_per_pass": False}),
        ("separable", {"recrop": "similarity", "context": 1.5}),
        ("eccv_vgg", {"feedback": "label_map", "scheme": REDNET7}),
        ("ijcv_resnet", {}),
    ],
)
def test_every_configuration_agrees(checkpoint, tmp_path, preset, changes):
    written = export_stablehlo(checkpoint(preset, **changes), tmp_path / "out", feedback_steps=2)
    assert written["max_difference_px"] < 1e-3


@pytest.mark.slow
def test_an_export_that_differs_is_not_written(checkpoint, tmp_path, exports_another_bias):
    exports_another_bias(stablehlo)
    file = checkpoint("compact", recrop="similarity", context=1.5)
    with pytest.raises(RednetError, match=r"^tiny as [a-z]+: the export differs from the network"):
        export_stablehlo(file, tmp_path / "out", "float16", feedback_steps=1)
    assert not (tmp_path / "out").exists()
