"""Export to PyTorch: the self-contained module agrees with the network."""

from __future__ import annotations

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from rednet_jax.errors import RednetError
from rednet_jax.export import check
from rednet_jax.export.named import network
from rednet_jax.export.torch import export_torch
from rednet_jax.landmarks.builtin import REDNET7
from rednet_jax.model import rednet
from rednet_jax.weights.store import load, write_torch_weights, write_weights

torch = pytest.importorskip("torch", reason="torch is not installed: the extra [torch]")

pytestmark = pytest.mark.extras

FORMS = [
    ("compact", {}),
    ("compact", {"feedback": "label_map", "recurrence": "code", "scheme": REDNET7}),
    ("compact", {"feedback": "none", "recurrence": "none", "statistics_per_pass": False}),
    ("eccv_vgg", {"feedback": "label_map", "scheme": REDNET7}),
    ("ijcv_resnet", {}),
    ("compact", {"recrop": "similarity", "context": 1.5}),
    ("compact", {"recrop": "shift_scale", "context": 1.25, "feedback": "label_map"}),
    ("separable", {"recrop": "similarity", "context": 1.5}),
    ("separable", {"feedback": "label_map"}),
    ("compact", {"feedback_update": "gated"}),
    ("separable", {"feedback_update": "gated", "recrop": "similarity", "context": 1.5}),
]


def crops_of(config, count, seed=0):
    shape = count, config.input_size, config.input_size, 3
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


def warps_of(count, seed):
    """Random warps; standard deviations: rotation 3 degrees, scale 5 %, shift 2 pixels."""
    rng = np.random.default_rng(seed)
    angle, scale = rng.normal(0, 0.05, count), rng.normal(1, 0.05, count)
    linear = np.stack([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    return np.concatenate([linear, rng.normal(0, 2, (2, 1, count))], 1).transpose(2, 0, 1)


@pytest.fixture
def module(tmp_path):
    """`module(config, variables)`: the network in PyTorch, loaded from a file."""
    from rednet_jax.export import rednet_torch

    def through_file(config, variables, steps=2):
        file = tmp_path / "net.safetensors"
        write_torch_weights(file, config, variables, feedback_steps=steps)
        return rednet_torch.load(file)

    return through_file


@pytest.mark.parametrize(("preset", "changes"), FORMS)
def test_images_and_streams_agree(narrow, weights, module, preset, changes):
    """Four frames of three streams, one of which restarts at the third frame."""
    config = narrow(preset, **changes)
    variables = weights(config)
    net = module(config, variables)
    # The residual blocks amplify rounding errors; in float64 the results agree to 1e-8.
    atol = 3e-3 if preset == "separable" else 1e-3
    pixels = jnp.asarray(crops_of(config, 3)).astype(jnp.float32) / 255
    out, _ = rednet.align_image(config, variables, pixels, feedback_steps=2)
    with torch.no_grad():
        landmarks, confidence = net(torch.from_numpy(crops_of(config, 3)))
    np.testing.assert_allclose(landmarks, out.landmarks, atol=atol)
    np.testing.assert_allclose(confidence, out.confidence, atol=1e-4)

    state, torch_state = rednet.initial_state(config, 3), net.initial_state(3)
    for frame in range(4):
        crops, warp = crops_of(config, 3, frame), warps_of(3, frame).astype(np.float32)
        if frame == 2:
            blank = rednet.initial_state(config, 3)
            state = jax.tree.map(lambda old, new: old.at[1].set(new[1]), state, blank)
            parts = zip(torch_state, net.initial_state(3), strict=True)
            torch_state = type(torch_state)(
                *(torch.cat([old[:1], new[1:2], old[2:]]) for old, new in parts)
            )
        pixels = jnp.asarray(crops).astype(jnp.float32) / 255
        out, state = rednet.step(
            config, variables, state, pixels, jnp.asarray(warp), feedback_steps=2
        )
        with torch.no_grad():
            landmarks, confidence, torch_state = net.step(
                torch.from_numpy(crops), torch_state, torch.from_numpy(warp)
            )
        np.testing.assert_allclose(landmarks, out.landmarks, atol=atol)
        np.testing.assert_allclose(confidence, out.confidence, atol=1e-4)
    np.testing.assert_array_equal(torch_state.passes, state.passes)
    feedback = torch_state.feedback.permute(0, 2, 3, 1)
    np.testing.assert_allclose(feedback, state.feedback, atol=1e-4)


def test_uint8_and_float_crops_agree(narrow, weights, module):
    config = narrow("compact")
    net, crops = module(config, weights(config)), torch.from_numpy(crops_of(config, 2))
    with torch.no_grad():
        for a, b in zip(net(crops), net(crops / 255), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_crops_of_other_floating_dtypes_agree(narrow, weights, module, dtype):
    config = narrow("compact")
    net = module(config, weights(config))
    crops = torch.from_numpy(crops_of(config, 2) // 128).to(dtype)
    with torch.no_grad():
        for a, b in zip(net(crops), net(crops.float()), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((2, 80, 80, 3), "uint8", r"^crops are \(2, 80, 80, 3\), not \(B, 96, 96, 3\)$"),
        ((2, 96, 95, 3), "uint8", r"^crops are \(2, 96, 95, 3\), not"),
        ((2, 3, 96, 96), "float32", r"^crops are \(2, 3, 96, 96\), not"),
        ((96, 96, 3), "uint8", r"^crops are \(96, 96, 3\), not"),
        (
            (2, 96, 96, 3),
            "int64",
            r"^crops are torch.int64, neither uint8 nor floating in \[0, 1\]$",
        ),
        ((2, 96, 96, 3), "bool", r"^crops are torch.bool, neither"),
    ],
)
def test_other_crops_are_an_error(narrow, weights, module, shape, dtype, message):
    """Without the check, a network with re-crops would accept any size and dtype."""
    config = narrow("compact", recrop="similarity", context=1.5)
    net, crops = module(config, weights(config)), torch.zeros(shape, dtype=getattr(torch, dtype))
    with pytest.raises(ValueError, match=message):
        net(crops)
    with pytest.raises(ValueError, match=message):
        net.step(crops, net.initial_state(2))


def test_a_state_or_warp_of_another_batch_size_is_an_error(narrow, weights, module):
    config = narrow("compact", recrop="similarity", context=1.5)
    net, crops = module(config, weights(config)), torch.from_numpy(crops_of(config, 3))
    state, warp = net.initial_state(3), torch.eye(2, 3).repeat(3, 1, 1)
    for name, part in zip(state._fields, state, strict=True):
        with pytest.raises(ValueError, match=rf"^{name} has batch 1, crops have 3$"):
            net.step(crops, state._replace(**{name: part[:1]}), warp)
    with pytest.raises(ValueError, match=r"^warp has batch 1, crops have 3$"):
        net.step(crops, state, warp[:1])


def test_at_least_one_pass_must_run(narrow, weights, module):
    config = narrow("compact")
    net, crops = module(config, weights(config)), torch.from_numpy(crops_of(config, 2))
    net.feedback_steps = 0
    with pytest.raises(ValueError, match=r"^feedback_steps is 0; at least one pass must run$"):
        net(crops)
    with pytest.raises(ValueError, match=r"^feedback_steps is 0; at least one pass must run$"):
        net.step(crops, net.initial_state(2))


def test_other_files_are_an_error(checkpoint, tmp_path):
    from rednet_jax.export import rednet_torch

    message = "not a file that `rednet export --to torch` writes"
    with pytest.raises(ValueError, match=rf"^[^\n]*tiny.safetensors: {message}$"):
        rednet_torch.load(checkpoint)
    (tmp_path / "bare.safetensors").write_bytes(safetensors.numpy.save({"a": np.zeros(2)}))
    with pytest.raises(ValueError, match=rf"^[^\n]*bare.safetensors: {message}$"):
        rednet_torch.load(tmp_path / "bare.safetensors")
    (tmp_path / "words.safetensors").write_text("no tensors at all")
    with pytest.raises(ValueError, match=rf"^[^\n]*words.safetensors: {message} \([^\n]*\)$"):
        rednet_torch.load(tmp_path / "words.safetensors")


class Stream(torch.nn.Module):
    """`step` as a module, which `torch.export` needs."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, crops, state, warp):
        return self.net.step(crops, state, warp)


@pytest.mark.parametrize(
    ("preset", "changes"),
    [FORMS[0], FORMS[3], FORMS[5], pytest.param(*FORMS[4], marks=pytest.mark.slow)],
)
def test_exported_programs_accept_any_batch_size(narrow, weights, module, preset, changes):
    config = narrow(preset, **changes)
    net = module(config, weights(config))
    batch = torch.export.Dim("batch", min=1, max=64)
    first, more = (torch.from_numpy(crops_of(config, count)) for count in (2, 3))
    still = torch.export.export(net, (first,), dynamic_shapes=({0: batch},))
    state, warp = net.initial_state(2), torch.from_numpy(warps_of(2, 0)).float()
    stream = torch.export.export(
        Stream(net),
        (first, state, warp),
        dynamic_shapes=({0: batch}, type(state)(*[{0: batch}] * 5), {0: batch}),
    )
    with torch.no_grad():
        for a, b in zip(still.module()(more), net(more), strict=True):
            torch.testing.assert_close(a, b)
        state, warp = net.initial_state(3), torch.from_numpy(warps_of(3, 1)).float()
        landmarks, confidence, after = stream.module()(more, state, warp)
        expected = net.step(more, state, warp)
        torch.testing.assert_close((landmarks, confidence, *after), (*expected[:2], *expected[2]))


@pytest.mark.slow
def test_the_compiled_module_agrees(narrow, weights, module):
    """`torch.compile` needs a C++ compiler."""
    config = narrow("compact")
    net, crops = module(config, weights(config)), torch.from_numpy(crops_of(config, 2))
    warp = torch.from_numpy(warps_of(2, 0)).float()
    with torch.no_grad():
        for a, b in zip(torch.compile(net, fullgraph=True)(crops), net(crops), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
        *answer, after = torch.compile(net.step, fullgraph=True)(crops, net.initial_state(2), warp)
        *expected, expected_after = net.step(crops, net.initial_state(2), warp)
        for a, b in zip((*answer, *after), (*expected, *expected_after), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.fixture
def checkpoint(narrow, weights, tmp_path):
    config = narrow("compact")
    write_weights(tmp_path / "tiny.safetensors", config, weights(config))
    return tmp_path / "tiny.safetensors"


@pytest.mark.usefixtures("noise_faces")
def test_the_files_are_self_contained(checkpoint, tmp_path):
    """They need neither JAX nor this library."""
    out = tmp_path / "out"
    written = export_torch(checkpoint, out, feedback_steps=3)
    assert {file.name for file in out.iterdir()} == {*written["files"], "export.json"}
    assert written == json.loads((out / "export.json").read_text())
    assert written["max_difference_px"] < 1e-3
    assert written["points"] == (8 + 30 * 4) * 68
    assert written["signatures"]["stream"]["inputs"]["hidden"] == "float32 [B, 4, 2, 2]"
    code = (
        "import sys; sys.modules['jax'] = sys.modules['rednet_jax'] = None\n"
        "import torch, rednet_torch; net = rednet_torch.load('tiny.safetensors')\n"
        "assert net.feedback_steps == 3\n"
        "landmarks, confidence = net(torch.zeros(2, 64, 64, 3, dtype=torch.uint8))\n"
        "print(landmarks.shape, confidence.shape, landmarks[0, 0].tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=out, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    config, variables = load(checkpoint)
    still = network(config, variables, 3).still
    landmarks, _ = still(np.zeros((2, 64, 64, 3), np.uint8))
    shapes, point = done.stdout.strip().rsplit("[", 1)
    assert shapes == "torch.Size([2, 68, 2]) torch.Size([2, 68]) "
    np.testing.assert_allclose(json.loads("[" + point), landmarks[0, 0], atol=1e-3)


@pytest.mark.usefixtures("noise_faces")
def test_float16_kernels_are_compared_with_float32(checkpoint, tmp_path):
    written = export_torch(checkpoint, tmp_path / "out", "float16")
    assert 1e-5 < written["max_difference_px"] < 0.1
    assert written["bar_px"] == 0.1
    config, variables = load(tmp_path / "out" / "tiny.safetensors")
    kernel = load(checkpoint)[1]["params"]["encoder"]["picture"]["kernel"]
    half = kernel.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(variables["params"]["encoder"]["picture"]["kernel"], half)
    assert config == load(checkpoint)[0]


@pytest.mark.usefixtures("noise_faces")
def test_an_export_that_differs_is_not_written(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(check.BAR_PX, "float32", 0.0)
    monkeypatch.setattr(check, "TWINS", 0)
    with pytest.raises(RednetError, match=r"^tiny as torch: [a-z ]+: \d+ of 8704 landmarks"):
        export_torch(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("preset", ["compact", "separable", "eccv_vgg", "ijcv_resnet"])
def test_weights_are_read_back_bit_by_bit(narrow, weights, tmp_path, preset):
    config = narrow(preset)
    variables = weights(config)
    write_torch_weights(tmp_path / "net.safetensors", config, variables, feedback_steps=2)
    same, again = load(tmp_path / "net.safetensors")
    assert same == config
    jax.tree.map(np.testing.assert_array_equal, variables, again)
