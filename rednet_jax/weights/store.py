"""Safetensors files with the config and variables of a network. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rednet_jax.errors import RednetError
from rednet_jax.fields import shown
from rednet_jax.files import replacing
from rednet_jax.functions import plain_function
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.rednet import mismatch
from rednet_jax.reading import parse_json
from rednet_jax.weights.torch_layout import from_torch, to_torch

BEST = "best.safetensors"
"""The file of a run folder with its best weights so far."""

Variables = dict[str, Any]

Checkpoint = str | os.PathLike[str] | tuple[RedNetConfig, Variables]
"""A released name, a safetensors file, a run folder, or a network (config, variables)."""

_CONFIG = "rednet_config"
# Largest size of a face's response maps, and side of the network's image in pixels.
_LARGEST_MAPS, _LARGEST_SIDE = 2**25, 4096
# Metadata of files in PyTorch's layout.
_STEPS = "feedback_steps"


def released() -> list[str]:
    """Returns the names of the weights in the package."""
    folder = importlib.resources.files(__package__)
    files = (Path(entry.name) for entry in folder.iterdir())
    return sorted(file.stem for file in files if file.suffix == ".safetensors")


def load(
    checkpoint: str | os.PathLike[str],
    *,
    encoder: Callable[..., Any] | None = None,
    decoder: Callable[..., Any] | None = None,
) -> tuple[RedNetConfig, Variables]:
    """Returns the network of a checkpoint.

    Args:
        checkpoint: a released name ('compact', even if there is a file or folder of that name), a
            safetensors file, or a run folder, for its best weights.
        encoder: the encoder of a network with `RedNetConfig.encoder`.
        decoder: the decoder of a network with `RedNetConfig.decoder`.

    Returns:
        The config, and {'params': ..., 'batch_stats': ...}, NumPy float32.

    Raises:
        RednetError: there is no such checkpoint, or the file is damaged or not of this library.
    """
    return read_weights(find(checkpoint), encoder=encoder, decoder=decoder)


def network_of(checkpoint: Checkpoint) -> tuple[RedNetConfig, Variables]:
    """Returns a network as it is, and a name, file or folder as `load` reads it.

    Raises:
        RednetError: as `load` raises it.
    """
    return checkpoint if isinstance(checkpoint, tuple) else load(checkpoint)


def name_in_command(checkpoint: Checkpoint) -> str:
    """Returns the checkpoint as recorded commands write it: as it is, but an absolute path, which
    belongs to one machine, as its `checkpoint_name`, and (config, variables) as CHECKPOINT."""
    if isinstance(checkpoint, tuple):
        return "CHECKPOINT"
    absolute = Path(checkpoint).is_absolute()
    return checkpoint_name(checkpoint) if absolute else os.fspath(checkpoint)


def load_with(
    model: RedNetConfig, checkpoint: str | os.PathLike[str]
) -> tuple[RedNetConfig, Variables]:
    """Returns the network of a checkpoint like `load`.

    The encoder and decoder of `model` are used if the checkpoint has their names.
    """
    return read_weights(find(checkpoint), model=model)


def find(checkpoint: str | os.PathLike[str]) -> Path:
    """Returns the file that `load` reads.

    Raises:
        RednetError: there is no such checkpoint.
    """
    if not isinstance(checkpoint, str | os.PathLike) or not os.fspath(checkpoint):
        # Path("") is the current folder.
        raise RednetError(
            f"checkpoint: {shown(checkpoint)} is not a released name, a file or a run folder"
        )
    names = released()
    path = Path(checkpoint)
    if os.fspath(checkpoint) in names:
        path = Path(str(importlib.resources.files(__package__))) / f"{checkpoint}.safetensors"
    elif path.is_dir():
        path = path / BEST
        if not path.is_file():
            raise RednetError(f"{checkpoint}: no run with weights (it has no {BEST})")
    elif not path.exists():
        known = ", ".join(names) or "none"
        raise RednetError(
            f"{checkpoint}: no such file, run folder or released checkpoint (released: {known})"
        )
    return path


def checkpoint_name(checkpoint: Checkpoint) -> str:
    """Returns the name of a checkpoint: its released name, the last part of its path, or the
    architecture of a network."""
    if isinstance(checkpoint, tuple):
        return checkpoint[0].architecture
    path = Path(checkpoint)
    return path.resolve().name if path.is_dir() else path.stem


def write_weights(
    path: str | os.PathLike[str],
    config: RedNetConfig,
    variables: Variables,
    *,
    dtype: Literal["float32", "float16"] = "float32",
) -> None:
    """Writes a network to a file, atomically.

    Args:
        path: of the file.
        config: of the network.
        variables: {'params': ..., 'batch_stats': ...}.
        dtype: of the kernels; all other arrays are float32.

    Raises:
        RednetError: variables of another config, a value that is not finite in its dtype, or a file
            that cannot be written.
    """
    if complaint := mismatch(config, variables):
        raise RednetError(f"{path}: the variables are not those of the config: {complaint}")
    tensors = _arrays(path, variables, dtype)
    with replacing(path) as partial:
        partial.write_bytes(save(tensors, {_CONFIG: json.dumps(config.to_json())}))


def write_torch_weights(
    path: str | os.PathLike[str],
    config: RedNetConfig,
    variables: Variables,
    *,
    feedback_steps: int,
    dtype: Literal["float32", "float16"] = "float32",
) -> None:
    """Writes a network's arrays with the names and in the layout of the PyTorch module.

    Args:
        path: of the file.
        config: of the network.
        variables: {'params': ..., 'batch_stats': ...}.
        feedback_steps: default K of the exported module.
        dtype: of the kernels.

    Raises:
        RednetError: the config has its own encoder or decoder, or as `write_weights` raises it.
    """
    if config.encoder is not None or config.decoder is not None:
        raise RednetError(
            f"{path}: the PyTorch module has only the presets' encoders and decoders; export to "
            "stablehlo or savedmodel"
        )
    tensors = dict(to_torch(*item) for item in _arrays(path, variables, dtype).items())
    metadata = {
        _CONFIG: json.dumps(config.to_json()),
        _STEPS: str(feedback_steps),
        "mean_shape": json.dumps(config.scheme.shape.tolist()),
    }
    if config.architecture == "ijcv_resnet":
        metadata["coarse_landmarks"] = json.dumps(config.coarse_landmarks)
    with replacing(path) as partial:
        partial.write_bytes(save(tensors, metadata))


def _arrays(
    path: str | os.PathLike[str], variables: Variables, dtype: Literal["float32", "float16"]
) -> dict[str, NDArray[Any]]:
    """The arrays of a file by name."""
    tensors = {}
    for name, value in flat(variables).items():
        array = np.asarray(value, np.float32)
        if name.endswith("/kernel"):
            with np.errstate(over="ignore"):
                array = array.astype(dtype)
        if not np.isfinite(array).all():
            raise RednetError(f"{path}: {name} has values that are not finite in {array.dtype}")
        tensors[name] = np.ascontiguousarray(array)
    return tensors


def read_weights(
    path: str | os.PathLike[str],
    *,
    encoder: Callable[..., Any] | None = None,
    decoder: Callable[..., Any] | None = None,
    model: RedNetConfig | None = None,
) -> tuple[RedNetConfig, Variables]:
    """Reads a file of `write_weights` or `write_torch_weights`; arrays are float32.

    Args:
        path: of the file.
        encoder: as in `load`.
        decoder: as in `load`.
        model: its encoder and decoder are used if the file has their names.

    Raises:
        RednetError: the file is missing, damaged or of another program, or its arrays do not match
            its config.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if _CONFIG not in metadata:
                raise RednetError(f"{path}: a safetensors file, but not of this library")
            names = list(file.keys())
            size = sum(math.prod(file.get_slice(name).get_shape()) for name in names)
            try:
                own = {"encoder": encoder, "decoder": decoder}
                config = _config(parse_json(metadata[_CONFIG]), own, model)
            except (ValueError, TypeError) as error:
                raise RednetError(f"{path}: has no config of this library ({error})") from error
            # Checked before memory is allocated.
            _check_size(path, config, size)
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, TypeError) as error:
        raise RednetError(f"{path}: not a safetensors file that can be read ({error})") from error
    if _STEPS in metadata:
        # Exported to PyTorch: the same arrays under other names.
        tensors = dict(from_torch(*item) for item in tensors.items())
    if message := mismatch(config, tensors):
        raise RednetError(f"{path}: {message}")
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise RednetError(f"{path}: {name} has values that are not finite")
    return config, nested({name: array.astype(np.float32) for name, array in tensors.items()})


def _config(
    fields: Any, own: dict[str, Callable[..., Any] | None], model: RedNetConfig | None
) -> RedNetConfig:
    """The config of a file's JSON, with the encoder and decoder in place of their names."""
    fields = {**fields}
    modules = {name: module for name, module in own.items() if module is not None}
    if model is not None:
        of_model = {name: getattr(model, name) for name in own}
        modules |= {
            name: module
            for name, module in of_model.items()
            if module is not None and _is_of_name(module, fields.get(name))
        }
    return RedNetConfig.from_json({**fields, **modules})


def _is_of_name(module: Callable[..., Any], recorded: Any) -> bool:
    # Without the digest: weights fit an edited class if they have its shapes, which is checked.
    names = plain_function(module), str(recorded)
    return names[0].partition(" ")[0] == names[1].partition(" ")[0]


def _check_size(path: str | os.PathLike[str], config: RedNetConfig, size: int) -> None:
    """Raises RednetError if a config needs more numbers than the file has, or maps too large."""
    widest = max(*config.widths, config.code_width, config.recurrent_width, config.regression_width)
    # A user's own encoder or decoder may not use the widths.
    own = config.encoder is not None or config.decoder is not None
    if not own and max(widest * config.statistic_rows, config.identities) > size:
        raise RednetError(f"{path}: its config needs more numbers than the {size} of the file")
    maps = (config.scheme.count + 1) * config.map_size**2
    if maps > _LARGEST_MAPS or config.input_size > _LARGEST_SIDE:
        raise RednetError(
            f"{path}: its config has images of {config.input_size} x {config.input_size} pixels "
            f"and {config.scheme.count + 1} maps of {config.map_size} x {config.map_size}, which "
            "is too large"
        )


def parameter_count(variables: Variables) -> int:
    """Returns the number of parameters, without batch statistics."""
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(variables["params"]))


def fingerprint(variables: Variables) -> str:
    """Returns the SHA-256 of the float32 values; it does not depend on the file's format."""
    digest = hashlib.sha256()
    for name, array in sorted(flat(variables).items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array, np.float32).tobytes())
    return digest.hexdigest()


def flat(tree: Variables) -> dict[str, Any]:
    """Returns the arrays of variables by name, such as 'params/encoder/stem1/conv/kernel'."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(str(key.key) for key in keys): leaf for keys, leaf in leaves}


def nested(arrays: dict[str, Any]) -> Variables:
    """Inverts `flat`."""
    tree: Variables = {}
    for name, leaf in arrays.items():
        *folders, last = name.split("/")
        subtree = tree
        for folder in folders:
            subtree = subtree.setdefault(folder, {})
        subtree[last] = leaf
    return tree
