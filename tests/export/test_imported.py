"""Imported weights: exports are read back unchanged, torchvision's encoders give the same codes."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from rednet_jax.errors import RednetError
from rednet_jax.export.imported import import_weights
from rednet_jax.weights.store import load, write_torch_weights

torch = pytest.importorskip("torch", reason="torch is not installed: the extra [torch]")
F = torch.nn.functional

pytestmark = pytest.mark.extras

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
VGG = [4, 4, "M", 6, 6, "M", 8, 8, 8, "M", 10, 10, 10, "M", 12, 12, 12, "M"]
"""A narrow VGG-16 in torchvision's notation."""

GENERATOR = torch.Generator().manual_seed(0)


def drawn(*shape):
    return torch.randn(*shape, generator=GENERATOR)


def norm(name, width):
    """Arrays of a batch normalisation by torchvision's names."""
    return {
        f"{name}.weight": 1 + 0.2 * drawn(width),
        f"{name}.bias": 0.2 * drawn(width),
        f"{name}.running_mean": 0.2 * drawn(width),
        f"{name}.running_var": 1 + drawn(width).abs(),
        f"{name}.num_batches_tracked": torch.tensor(7),
    }


def vgg16_bn(widths=VGG):
    state, inputs, number = {}, 3, 0
    for width in widths:
        if width == "M":
            number += 1
            continue
        state[f"features.{number}.weight"] = drawn(width, inputs, 3, 3) / (3 * inputs**0.5)
        state[f"features.{number}.bias"] = 0.2 * drawn(width)
        state |= norm(f"features.{number + 1}", width)
        inputs, number = width, number + 3
    for number in (0, 3, 6):
        state |= {f"classifier.{number}.weight": drawn(5, 5), f"classifier.{number}.bias": drawn(5)}
    return state


def resnet50(widths=(4, 8, 12, 16, 20), depths=(3, 4, 6, 3)):
    state = {"conv1.weight": drawn(widths[0], 3, 7, 7) / 12} | norm("bn1", widths[0])
    inputs = widths[0]
    for stage, (width, depth) in enumerate(zip(widths[1:], depths, strict=True), 1):
        for block in range(depth):
            name, middle = f"layer{stage}.{block}", width // 4
            shapes = [(middle, inputs, 1), (middle, middle, 3), (width, middle, 1)]
            for i, (outputs, channels, size) in enumerate(shapes, 1):
                scale = size * channels**0.5
                state[f"{name}.conv{i}.weight"] = drawn(outputs, channels, size, size) / scale
                state |= norm(f"{name}.bn{i}", outputs)
            if block == 0:
                kernel = drawn(width, inputs, 1, 1) / inputs**0.5
                state |= {f"{name}.downsample.0.weight": kernel}
                state |= norm(f"{name}.downsample.1", width)
            inputs = width
    return state | {"fc.weight": drawn(5, 20), "fc.bias": drawn(5)}


def normalised(images, border):
    """Images with a black border, normalised as for torchvision."""
    padded = F.pad(images, (border,) * 4)
    return (padded - MEAN[:, None, None]) / STD[:, None, None]


def batch_norm(state, name, maps):
    parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(maps, *parts)


def vgg_code(state, images):
    maps, number = normalised(images, 1), 0
    for width in VGG:
        if width == "M":
            maps, number = F.max_pool2d(maps, 2), number + 1
            continue
        weight, bias = (state[f"features.{number}.{part}"] for part in ("weight", "bias"))
        maps = F.conv2d(maps, weight, bias, padding=1 if number else 0)
        maps, number = F.relu(batch_norm(state, f"features.{number + 1}", maps)), number + 3
    return maps


def resnet_code(state, images):
    def unit(name, norm, maps, **options):
        return batch_norm(state, norm, F.conv2d(maps, state[f"{name}.weight"], **options))

    maps = F.relu(unit("conv1", "bn1", normalised(images, 3), stride=2))
    maps = F.max_pool2d(maps, 3, 2, padding=1)
    for stage, depth in enumerate((3, 4, 6, 3), 1):
        for block in range(depth):
            name, stride = f"layer{stage}.{block}", 2 if block == 0 and stage > 1 else 1
            inner = F.relu(unit(f"{name}.conv1", f"{name}.bn1", maps))
            inner = unit(f"{name}.conv2", f"{name}.bn2", inner, stride=stride, padding=1)
            inner = unit(f"{name}.conv3", f"{name}.bn3", F.relu(inner))
            if block == 0:
                maps = unit(f"{name}.downsample.0", f"{name}.downsample.1", maps, stride=stride)
            maps = F.relu(maps + inner)
    return maps


@pytest.mark.parametrize(
    ("state", "code", "unused"),
    [(vgg16_bn(), vgg_code, ("classifier", 6 + 13)), (resnet50(), resnet_code, ("fc", 2 + 53))],
    ids=["vgg16_bn", "resnet50"],
)
def test_imported_encoders_of_torchvision_give_the_same_code(tmp_path, state, code, unused):
    from rednet_jax.export import rednet_torch

    torch.save(state, tmp_path / "theirs.pth")
    imported = import_weights(tmp_path / "theirs.pth", tmp_path / "ours.safetensors")
    config, variables = load(tmp_path / "ours.safetensors")
    assert config == imported.config
    file = tmp_path / "torch.safetensors"
    write_torch_weights(file, config, variables, feedback_steps=1)
    net = rednet_torch.load(file)
    images = torch.rand(2, 3, config.image_size, config.image_size, generator=GENERATOR)
    with torch.no_grad():
        z = net.initial_state(2).feedback
        for passes in (0, 1):
            row = torch.full((2,), passes)
            if config.architecture == "ijcv_resnet" and passes:
                # After the first pass, a zero feedback map has an effect here.
                continue
            ours = net.encoder(net.encoder.stem(images), z, row).code
            torch.testing.assert_close(ours, code(state, images), atol=1e-4, rtol=1e-4)
    assert ours.abs().max() > 0.1
    matched = {name for name, _ in imported.matched}
    assert matched | set(imported.unused) == set(state)
    others = [name for name in imported.unused if not name.endswith("num_batches_tracked")]
    assert all(name.startswith(unused[0]) for name in others)
    assert len(imported.unused) == unused[1]
    fresh = {name for name in imported.fresh if "/encoder/" in name}
    assert all("/encoder/feedback/" in name for name in fresh)


def test_an_export_of_this_library_is_read_back_bit_by_bit(narrow, weights, tmp_path):
    config = narrow("compact")
    variables = weights(config)
    write_torch_weights(tmp_path / "a.safetensors", config, variables, feedback_steps=3)
    imported = import_weights(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    same, again = load(tmp_path / "b.safetensors")
    assert same == config == imported.config
    assert imported.unused == imported.fresh == []
    jax.tree.map(np.testing.assert_array_equal, variables, again)


def vgg19_bn():
    """With a fourth convolution in each of the last three stages."""
    return vgg16_bn([4, 4, "M", 6, 6, "M", *[8] * 4, "M", *[10] * 4, "M", *[12] * 4, "M"])


def with_nan(state, name):
    state[name][..., 0] = float("nan")
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1, 2], "not a dictionary of tensors"),
        ({"weight": torch.ones(2)}, "neither torchvision's VGG-16-BN nor"),
        ({k: v for k, v in vgg16_bn().items() if k != "features.8.bias"}, "features.8.b"),
        (vgg16_bn() | {"features.7.weight": torch.ones(6, 5, 3, 3)}, "conv2_1/conv"),
        (vgg16_bn() | {"features.0.bias": torch.ones(1)}, r"features.0.bias is \(1,\)"),
        (vgg16_bn() | {"features.44.alpha": torch.ones(1)}, "no array for features.44.alpha"),
        (vgg19_bn(), r"features.24.weight is \(8,\), not of 4 axes"),
        (resnet50(depths=(3, 4, 23, 3)), "no array for layer3.6.conv1.weight"),
        (resnet50(depths=(3, 8, 36, 3)), "no array for layer2.4.conv1.weight"),
        (with_nan(vgg16_bn(), "features.0.bias"), "features.0.bias has .* not finite"),
        (with_nan(vgg16_bn(), "features.3.weight"), "features.3.weight has .* not finite"),
        (with_nan(resnet50(), "layer4.2.bn3.running_var"), "layer4.2.bn3.running_var has"),
    ],
)
def test_other_files_are_an_error_of_one_line(tmp_path, state, message):
    torch.save(state, tmp_path / "theirs.pth")
    with pytest.raises(RednetError, match=rf"^[^\n]*theirs.pth: [^\n]*{message}[^\n]*$"):
        import_weights(tmp_path / "theirs.pth", tmp_path / "ours.safetensors")
    assert not (tmp_path / "ours.safetensors").exists()


def test_a_file_that_torch_cannot_read_is_an_error(tmp_path):
    (tmp_path / "theirs.pth").write_text("words")
    with pytest.raises(RednetError, match=r"theirs\.pth: not a dictionary of tensors"):
        import_weights(tmp_path / "theirs.pth", tmp_path / "ours.safetensors")
    with pytest.raises(RednetError, match=r"missing\.pth: no such file$"):
        import_weights(tmp_path / "missing.pth", tmp_path / "ours.safetensors")
