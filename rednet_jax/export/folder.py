"""Shared by all exports: required extras, signatures, and the output folder."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import rednet_jax
from rednet_jax.errors import RednetError
from rednet_jax.fields import integer
from rednet_jax.files import replacing, write_text, writing
from rednet_jax.landmarks.normalisers import normaliser_text
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.temporal import memory_shape
from rednet_jax.reading import read_json

EXPORT = "export.json"
"""The file that describes an export. It is written last: if it exists, the export is complete."""


def require(extra: str, modules: Sequence[str]) -> None:
    """Checks that the modules of an extra are installed.

    Raises:
        RednetError: a module is not installed; the message has the command that installs it.
    """
    for name in modules:
        if importlib.util.find_spec(name) is None:
            raise RednetError(
                f"{name} is not installed; do `pip install -c constraints.txt '.[{extra}]'` first"
            )


def feedback_steps_of(config: RedNetConfig, feedback_steps: int | None) -> int:
    """Returns K, or the K of training if it is None.

    Raises:
        RednetError: K is not an integer, or is below 1.
    """
    steps = config.feedback_steps if feedback_steps is None else feedback_steps
    return integer(steps, "feedback_steps")


def versions(modules: Sequence[str]) -> dict[str, str]:
    """Returns the versions of this library and of the packages of installed modules."""
    packages = importlib.metadata.packages_distributions()
    installed = {name: importlib.metadata.version(packages[name][0]) for name in modules}
    return {"rednet_jax": rednet_jax.__version__, **installed}


Passes = Literal["int64", "int32"]
"""Dtype of the number of passes: int32 in JAX, int64 in PyTorch, where indices need it."""

Shapes = dict[str, tuple[str, tuple[int, ...]]]
"""Dtype and shape without the batch axis of arrays, by name."""


def signatures(
    config: RedNetConfig, *, passes: Passes = "int64", batch: str = "B"
) -> dict[str, Any]:
    """Returns name, dtype and shape of the inputs and outputs of the still and streaming models.

    B is any number of faces; the layout of maps is channels first. Parts of the state that the
    network does not have (without feedback, without recurrence) are left out.
    """
    size, count = config.input_size, config.scheme.count
    crops = {"crops": f"uint8 [{batch}, {size}, {size}, 3], RGB"}
    answer = {
        "landmarks": f"float32 [{batch}, {count}, 2], (x, y) in crop pixels, centres at integers",
        "confidence": f"float32 [{batch}, {count}], probability that a point lies within 5 % of "
        f"the normaliser, {normaliser_text(config.scheme)}",
    }
    state = {
        name: f"{dtype} [{', '.join([batch, *map(str, shape)])}]"
        for name, (dtype, shape) in state_shapes(config, passes=passes).items()
    }
    warp = {
        "warp": f"float32 [{batch}, 2, 3], pixels of this crop -> pixels of the crop before; "
        "[[1, 0, 0], [0, 1, 0]] at the first frame"
    }
    return {
        "still": {"inputs": crops, "outputs": answer},
        "stream": {
            "inputs": {**crops, **warp, **state},
            "outputs": {**answer, **{f"next_{name}": kind for name, kind in state.items()}},
            "before_the_first_frame": initial_state(config),
        },
    }


def initial_state(config: RedNetConfig) -> dict[str, Any]:
    """Returns the parts of a face's state before the first frame: a fill value, or a matrix."""
    border = (config.input_size - config.image_size) / 2
    initial: dict[str, Any] = dict.fromkeys(state_shapes(config), 0)
    if "crop" in initial:
        initial["crop"] = [[1, 0, border], [0, 1, border]]
    return initial


def input_shapes(config: RedNetConfig, *, passes: Passes) -> tuple[Shapes, Shapes]:
    """Returns the inputs of the still and of the streaming model."""
    size = config.input_size
    crops: Shapes = {"crops": ("uint8", (size, size, 3))}
    return crops, {**crops, "warp": ("float32", (2, 3)), **state_shapes(config, passes=passes)}


def state_shapes(config: RedNetConfig, *, passes: Passes = "int64") -> Shapes:
    """Returns the parts of the state that the network has."""
    side, channels = config.feedback_size, config.feedback_channels
    _, *grid, units = memory_shape(config, 1)
    parts: Shapes = {
        "feedback": ("float32", (channels, side, side)),
        "hidden": ("float32", (units, *grid)),
        "cell": ("float32", (units, *grid)),
        "passes": (passes, ()),
    }
    if config.recrop != "none":
        parts["crop"] = ("float32", (2, 3))
    return {name: part for name, part in parts.items() if 0 not in part[1]}


def crop_rule(config: RedNetConfig) -> dict[str, Any]:
    """Returns the crop rule: `size` in pixels, `margin`, and the `rule` in words."""
    return {
        "size": config.input_size,
        "margin": config.input_margin,
        "rule": "a square centred on the landmarks' box; its side is margin times the larger side "
        "of the box",
    }


def claim(out: Path, target: str, name: str, source: Path) -> None:
    """Checks before an export that its folder can be written without replacing other files.

    Args:
        out: folder.
        target: name of the target.
        name: of the checkpoint.
        source: the checkpoint's file.

    Raises:
        RednetError: the folder cannot be written, the export would replace the checkpoint itself,
            or the folder has another export or files that are not of an export.
    """
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise RednetError(f"{out}: cannot be written ({existing} is not a writable folder)")
    weights = out / f"{name}.safetensors"
    if target in ("safetensors", "torch") and weights.resolve() == source.resolve():
        raise RednetError(f"{weights}: would replace the checkpoint itself")
    description = out / EXPORT
    if description.exists():
        before = read_export(description)
        if (before.get("target"), before.get("checkpoint")) != (target, name):
            raise RednetError(
                f"{out}: already has {before.get('checkpoint')} as {before.get('target')}; use "
                "another folder"
            )
    elif out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir()):
        # Some of them could have the names of the export's files.
        raise RednetError(f"{out}: has files, but no {EXPORT}; use a new or empty folder")


def read_export(file: Path) -> dict[str, Any]:
    """Returns the content of an export.json.

    Raises:
        RednetError: the file cannot be read, or is not a JSON object.
    """
    try:
        description = read_json(file)
    except (OSError, ValueError) as error:
        raise RednetError(f"{file}: cannot be read ({error})") from error
    if not isinstance(description, dict):
        raise RednetError(f"{file}: does not describe an export")
    return description


def publish(staged: Path, out: Path, description: dict[str, Any]) -> None:
    """Copies `description["files"]` to a folder, each atomically, and writes export.json last.

    An older export.json is deleted first, so that an export.json always describes the files.

    Raises:
        RednetError: a file cannot be written.
    """
    with writing(out / EXPORT):
        (out / EXPORT).unlink(missing_ok=True)
    for name in description["files"]:
        with replacing(out / name) as partial:
            shutil.copyfile(staged / name, partial)
    write_text(out / EXPORT, json.dumps(description, indent=2) + "\n")
