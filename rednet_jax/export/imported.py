"""Imports weights of this library's PyTorch exports, and of torchvision's encoders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.export.folder import require
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.rednet import init
from rednet_jax.weights.store import flat, load, nested, write_weights

_IMAGENET_MEAN = np.asarray([0.485, 0.456, 0.406], np.float32)
_IMAGENET_STD = np.asarray([0.229, 0.224, 0.225], np.float32)
_VGG_DEPTHS = (2, 2, 3, 3, 3)
_RESNET_DEPTHS = (3, 4, 6, 3)
_PARTS = ("reduce", "spatial", "expand")

Arrays = dict[str, NDArray[np.float32]]


class Imported(NamedTuple):
    """The result of `import_weights`.

    Attributes:
        config: of the written network.
        matched: (name in the file, name in the checkpoint) pairs. An array of the checkpoint that
            is computed from several has a pair for each.
        unused: names in the file that are not used.
        fresh: names in the checkpoint that are not in the file; `init` initialises them.
    """

    config: RedNetConfig
    matched: list[tuple[str, str]]
    unused: list[str]
    fresh: list[str]


class _Layer(NamedTuple):
    """Names of a convolution and its normalisation in the file and in the checkpoint.

    `first` is True for the convolution of the image.
    """

    conv: str
    norm: str
    kernel: str
    target: str
    first: bool = False


def import_weights(file: str | os.PathLike[str], out: str | os.PathLike[str]) -> Imported:
    """Converts weights to a checkpoint of this library.

    The weights of `rednet export --to torch` are copied bit by bit. The convolutions of
    torchvision's VGG-16-BN or ResNet-50 become the encoder of `eccv_vgg` or `ijcv_resnet`, with the
    same statistics for every pass; all other arrays are initialised at random. The mean and
    standard deviation of torchvision's inputs, and its biases, are folded into the first kernel and
    the means. Pixels outside the crop are black, while in torchvision they have the mean colour.

    Args:
        file: .safetensors of this library, or .pth of torchvision. Only tensors are unpickled.
        out: the checkpoint, a safetensors file.

    Raises:
        RednetError: the file cannot be read or has other arrays, torch is not installed, or `out`
            cannot be written.
    """
    if os.fspath(file).endswith(".safetensors"):
        config, variables = load(file)
        write_weights(out, config, variables)
        names = [(name, name) for name in flat(variables)]
        return Imported(config, names, [], [])
    source = _read_pth(file)
    if "features.0.weight" in source and "features.1.running_mean" in source:
        architecture, layers = "eccv_vgg", list(_vgg())
    elif "layer1.0.conv1.weight" in source and "layer1.0.conv3.weight" in source:
        architecture, layers = "ijcv_resnet", list(_resnet())
    else:
        raise RednetError(f"{file}: neither torchvision's VGG-16-BN nor its ResNet-50")
    widths = _widths(file, source, architecture)
    config = RedNetConfig.preset(architecture, widths=widths, code_width=widths[-1])
    target = flat(jax.tree.map(np.asarray, init(config, jax.random.key(0))))
    matched = []
    for layer in layers:
        for name, path, array in _arrays(file, source, layer):
            if name is not None:
                matched.append((name, path))
            if array is not None:
                target[path] = _fitted(file, path, array, target[path].shape)
    named, filled = {name for name, _ in matched}, {path for _, path in matched}
    unused = [name for name in source if name not in named]
    for name in unused:
        # Deeper networks of torchvision have all required arrays, and more.
        if re.match(r"(features|layer\d+)\.(?!.*num_batches_tracked$)", name):
            raise RednetError(f"{file}: the encoder of {architecture} has no array for {name}")
    write_weights(out, config, nested(target))
    return Imported(config, matched, unused, [path for path in target if path not in filled])


def _read_pth(file: str | os.PathLike[str]) -> Arrays:
    if not os.path.exists(file):
        raise RednetError(f"{file}: no such file")
    require("torch", ["torch"])
    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        return {name: tensor.float().numpy() for name, tensor in state.items()}
    except OSError as error:
        raise RednetError(f"{file}: cannot be read ({error.strerror or error})") from error
    # torch raises many kinds of exceptions for files that are not tensors by name.
    except Exception as error:
        raise RednetError(f"{file}: not a dictionary of tensors that torch can read") from error


def _vgg() -> Iterator[_Layer]:
    number = 0
    for stage, depth in enumerate(_VGG_DEPTHS, 1):
        for layer in range(1, depth + 1):
            names = f"features.{number}", f"features.{number + 1}"
            if number == 0:
                yield _Layer(*names, "encoder/picture/kernel", "encoder/norm1_1", first=True)
            else:
                target = f"encoder/convs/conv{stage}_{layer}"
                yield _Layer(*names, f"{target}/conv/kernel", f"{target}/norm")
            # The indices of `features` also count ReLU and, at the end of a stage, pooling.
            number += 3
        number += 1


def _resnet() -> Iterator[_Layer]:
    target = "encoder/conv1"
    yield _Layer("conv1", "bn1", f"{target}/conv/kernel", f"{target}/norm", first=True)
    for stage, depth in enumerate(_RESNET_DEPTHS, 1):
        for block in range(depth):
            source = f"layer{stage}.{block}"
            parts = [(f"conv{i}", f"bn{i}", name) for i, name in enumerate(_PARTS, 1)]
            if block == 0:
                parts.append(("downsample.0", "downsample.1", "shortcut"))
            for conv, norm, part in parts:
                target = f"encoder/layer{stage}/blocks/block{block}/{part}"
                yield _Layer(
                    f"{source}.{conv}",
                    f"{source}.{norm}",
                    f"{target}/conv/kernel",
                    f"{target}/norm",
                )


def _widths(file: Any, source: Arrays, architecture: str) -> tuple[int, ...]:
    """Channels of the stages, from the last normalisation of each."""
    if architecture == "eccv_vgg":
        last = [4, 11, 21, 31, 41]
        names = [f"features.{number}.weight" for number in last]
    else:
        names = ["bn1.weight"]
        names += [f"layer{s}.{d - 1}.bn3.weight" for s, d in enumerate(_RESNET_DEPTHS, 1)]
    return tuple(len(_take(file, source, name)) for name in names)


def _arrays(
    file: Any, source: Arrays, layer: _Layer
) -> Iterator[tuple[str | None, str, NDArray[np.float32] | None]]:
    """Yields (name in the file, path in the checkpoint, array).

    The array is None for a name that only modifies the array of another.
    """
    kernel = _take(file, source, f"{layer.conv}.weight")
    if kernel.ndim != 4:
        raise RednetError(f"{file}: {layer.conv}.weight is {kernel.shape}, not of 4 axes")
    width = kernel.shape[:1]
    kernel = kernel.transpose(2, 3, 1, 0)
    mean = _take(file, source, f"{layer.norm}.running_mean", width)
    bias = f"{layer.conv}.bias"
    if bias in source:
        mean = mean - _take(file, source, bias, width)
        yield bias, f"batch_stats/{layer.target}/mean", None
    if layer.first:
        if kernel.shape[2] != 3:
            raise RednetError(f"{file}: {layer.conv}.weight does not have three input channels")
        kernel = kernel / _IMAGENET_STD[:, None]
        mean = mean + np.einsum("hwio,i->o", kernel, _IMAGENET_MEAN)
    norm = layer.norm
    yield f"{layer.conv}.weight", f"params/{layer.kernel}", kernel
    yield f"{norm}.weight", f"params/{layer.target}/scale", _take(file, source, f"{norm}.weight")
    yield f"{norm}.bias", f"params/{layer.target}/offset", _take(file, source, f"{norm}.bias")
    yield f"{norm}.running_mean", f"batch_stats/{layer.target}/mean", mean
    name = f"{norm}.running_var"
    yield name, f"batch_stats/{layer.target}/variance", _take(file, source, name)


def _take(
    file: Any, source: Arrays, name: str, shape: tuple[int, ...] | None = None
) -> NDArray[np.float32]:
    if name not in source:
        raise RednetError(f"{file}: {name} is missing")
    array = source[name]
    if shape is not None and array.shape != shape:
        raise RednetError(f"{file}: {name} is {array.shape}, not {shape}")
    if not np.isfinite(array).all():
        raise RednetError(f"{file}: {name} has values that are not finite")
    return array


def _fitted(
    file: Any, path: str, array: NDArray[np.float32], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """The array in the shape of the checkpoint: statistics are repeated for every pass."""
    if path.startswith("batch_stats/") and array.shape == shape[1:]:
        array = np.broadcast_to(array, shape)
    if array.shape != shape:
        raise RednetError(f"{file}: the array for {path} is {array.shape}, not {shape}")
    return array.astype(np.float32)
