"""Export to safetensors, exact in float32 and rounded in float16."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from rednet_jax.errors import RednetError
from rednet_jax.export.safetensors import export_safetensors
from rednet_jax.model.rednet import init
from rednet_jax.weights.store import BEST, load, write_weights

pytestmark = pytest.mark.usefixtures("noise_faces")


@pytest.fixture
def run(narrow, tmp_path):
    """A run folder with weights."""
    config = narrow("compact")
    write_weights(tmp_path / "runs" / "tiny" / BEST, config, init(config, jax.random.key(0)))
    return tmp_path / "runs" / "tiny"


def test_a_run_folder_becomes_one_file(run, tmp_path):
    written = export_safetensors(run, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "tiny.safetensors",
        "export.json",
    }
    assert written == json.loads((tmp_path / "out" / "export.json").read_text())
    assert written["max_difference_px"] == 0
    assert written["target"] == "safetensors"
    assert written["dtype"] == "float32"
    assert written["checkpoint"] == "tiny"
    assert set(written["versions"]) == {"rednet_jax", "jax", "flax", "safetensors"}
    (config, variables), (same, again) = load(run), load(tmp_path / "out" / "tiny.safetensors")
    assert config == same
    jax.tree.map(np.testing.assert_array_equal, variables, again)


def test_float16_kernels_move_landmarks_a_little(run, tmp_path):
    written = export_safetensors(run, tmp_path / "out", "float16")
    assert 0 < written["max_difference_px"] < 0.1
    tensors = load_file(tmp_path / "out" / "tiny.safetensors")
    kinds = {name.endswith("/kernel"): str(value.dtype) for name, value in tensors.items()}
    assert kinds == {True: "float16", False: "float32"}


def test_the_checkpoint_itself_is_not_replaced(run, tmp_path):
    export_safetensors(run, tmp_path / "out")
    file = tmp_path / "out" / "tiny.safetensors"
    before = file.read_bytes()
    with pytest.raises(RednetError, match="would replace the checkpoint itself"):
        export_safetensors(file, tmp_path / "out", "float16")
    assert file.read_bytes() == before
    export_safetensors(file, tmp_path / "half", "float16")
    assert (tmp_path / "half" / "tiny.safetensors").is_file()


def test_the_weights_of_a_run_folder_named_best_are_not_replaced(run, tmp_path):
    best = run.rename(run.with_name("best"))
    before = (best / BEST).read_bytes()
    with pytest.raises(RednetError, match=r"^\S+best/best\.safetensors: would replace the check"):
        export_safetensors(best, best, "float16")
    assert (best / BEST).read_bytes() == before


def test_a_missing_checkpoint_leaves_no_files(tmp_path):
    with pytest.raises(RednetError, match="no such"):
        export_safetensors("missing", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_values_beyond_float16_are_an_error(run, tmp_path):
    config, variables = load(run)
    kernel = variables["params"]["encoder"]["stem1"]["conv"]["kernel"]
    kernel[0, 0, 0, 0] = 1e6
    write_weights(tmp_path / "large.safetensors", config, variables)
    with pytest.raises(
        RednetError,
        match=r"large\.safetensors: params/\S+/kernel has values beyond the range of ",
    ):
        export_safetensors(tmp_path / "large.safetensors", tmp_path / "out", "float16")
    assert not (tmp_path / "out").exists()
