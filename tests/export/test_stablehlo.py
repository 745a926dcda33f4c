"""StableHLO answers as the network does, with JAX alone, for any batch and platform."""

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

ALONE = """
import sys
sys.modules["rednet_jax"] = sys.modules["flax"] = None

import json
from pathlib import Path

import jax
import jax.export
import numpy as np

folder = Path(sys.argv[1])
given = np.load(folder / "given.npz")
still, stream = (
    jax.export.deserialize(bytearray((folder / file).read_bytes()))
    for file in ("tiny.stablehlo", "tiny_stream.stablehlo")
)
answer = still.call(crops=given["frames"][0])["landmarks"]
begin = json.loads((folder / "export.json").read_text())["signatures"]["stream"]
_, inputs = stream.in_tree.unflatten(stream.in_avals)
state = {
    name: np.broadcast_to(np.asarray(value, inputs[name].dtype), (3, *inputs[name].shape[1:]))
    for name, value in begin["before_the_first_frame"].items()
}
for crops, warp in zip(given["frames"], given["warps"], strict=True):
    outputs = stream.call(crops=crops, warp=warp, **state)
    state = {name: outputs[f"next_{name}"] for name in state}
np.savez(folder / "answers.npz", still=answer, stream=outputs["landmarks"])
"""


def test_jax_alone_runs_the_files_for_any_batch(checkpoint, tmp_path):
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
            shapes = {key: f"{one.dtype} {[*one.shape]}" for key, one in arrays.items()}
            said = {key: text.split("]")[0] + "]" for key, text in signature[described].items()}
            assert shapes == {key: text.replace("B", "b") for key, text in said.items()}
    config, variables = load(file)
    given = comparison_inputs(config)
    runner = network(config, variables, 1)
    (_, _), state = runner.step(given.frames[0], None, given.warps[0])
    (landmarks, _), _ = runner.step(given.frames[1], state, given.warps[1])
    np.savez(out / "given.npz", frames=given.frames[:2, :3], warps=given.warps[:2, :3])
    subprocess.run([sys.executable, "-c", ALONE, out], check=True)
    answers = np.load(out / "answers.npz")
    np.testing.assert_allclose(answers["still"], runner.still(given.crops)[0][:3], atol=1e-3)
    np.testing.assert_allclose(answers["stream"], landmarks[:3], atol=1e-3)


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
def test_every_form_is_answered_alike(checkpoint, tmp_path, preset, changes):
    written = export_stablehlo(checkpoint(preset, **changes), tmp_path / "out", feedback_steps=2)
    assert written["max_difference_px"] < 1e-3


@pytest.mark.slow
def test_what_differs_is_not_written(checkpoint, tmp_path, exports_another_bias):
    exports_another_bias(stablehlo)
    file = checkpoint("compact", recrop="similarity", context=1.5)
    with pytest.raises(RednetError, match=r"^tiny as [a-z]+: the export is not the network: "):
        export_stablehlo(file, tmp_path / "out", "float16", feedback_steps=1)
    assert not (tmp_path / "out").exists()
