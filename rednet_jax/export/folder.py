"""What all exports share: the extras that they need, and a folder that gets files once checked."""

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
from rednet_jax.files import replacing, write_text, writing
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.temporal import memory_shape
from rednet_jax.reading import read_json

EXPORT = "export.json"
"""The file that describes an export: written last, it says that all others are there."""


def require(extra: str, modules: Sequence[str]) -> None:
    """Says in one line which module is missing and which command installs it.

    Raises:
        RednetError: one of the modules is not installed.
    """
    for name in modules:
        if importlib.util.find_spec(name) is None:
            raise RednetError(
                f"{name} is not installed; do `pip install -c constraints.txt '.[{extra}]'` first"
            )


def feedback_steps_of(config: RedNetConfig, feedback_steps: int | None) -> int:
    """Returns the K that was asked for, or the K that the network was trained with.

    Raises:
        RednetError: K is below 1.
    """
    steps = config.feedback_steps if feedback_steps is None else feedback_steps
    if steps < 1:
        raise RednetError(f"feedback_steps is {steps}; at least one pass must run")
    return steps


def versions(modules: Sequence[str]) -> dict[str, str]:
    """Returns this library's version and those of installed modules, whoever packs them."""
    packages = importlib.metadata.packages_distributions()
    others = {name: importlib.metadata.version(packages[name][0]) for name in modules}
    return {"rednet_jax": rednet_jax.__version__, **others}


Passes = Literal["int64", "int32"]
"""Type that passes are counted in: JAX has no int64 unless asked for, torch no other index."""

Shapes = dict[str, tuple[str, tuple[int, ...]]]
"""Arrays by name: dtype, and shape without the batch."""


def signatures(
    config: RedNetConfig, *, passes: Passes = "int64", batch: str = "B"
) -> dict[str, Any]:
    """Returns inputs and outputs of the still and the streaming model: name, dtype and shape.

    B is any number of faces; maps have their channels first. A part of the state that the network
    does not have (no feedback, no recurrence) is left out.
    """
    size, count = config.input_size, config.scheme.count
    crops = {"crops": f"uint8 [{batch}, {size}, {size}, 3], RGB"}
    answer = {
        "landmarks": f"float32 [{batch}, {count}, 2], (x, y) in crop pixels, centres at integers",
        "confidence": f"float32 [{batch}, {count}], probability that a point lies within 5 % of "
        "the inter-ocular distance",
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
    """Returns what each part of one face's state is before a first frame: a number throughout, or
    a matrix."""
    around = (config.input_size - config.image_size) / 2
    blank: dict[str, Any] = dict.fromkeys(state_shapes(config), 0)
    if "crop" in blank:
        blank["crop"] = [[1, 0, around], [0, 1, around]]
    return blank


def input_shapes(config: RedNetConfig, *, passes: Passes) -> tuple[Shapes, Shapes]:
    """Returns what goes into the still and into the streaming model."""
    size = config.input_size
    crops: Shapes = {"crops": ("uint8", (size, size, 3))}
    return crops, {**crops, "warp": ("float32", (2, 3)), **state_shapes(config, passes=passes)}


def state_shapes(config: RedNetConfig, *, passes: Passes = "int64") -> Shapes:
    """Returns the parts of the state."""
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
    """Returns how a crop is cut: its `size` in pixels, its `margin`, and the `rule` in words."""
    return {
        "size": config.input_size,
        "margin": config.input_margin,
        "rule": "the square in the middle of the landmarks' box, margin times its larger side",
    }


def claim(out: Path, target: str, name: str, source: Path) -> None:
    """Sees before any work that a folder may be written to, and that nothing else is lost there.

    Args:
        out: folder.
        target: the form.
        name: of the checkpoint.
        source: its file.

    Raises:
        RednetError: no folder, or one that may not be written to; it holds the checkpoint itself
            where it would be replaced, or another export.
    """
    place = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise RednetError(f"{out}: cannot be written ({place} is no folder, or forbids it)")
    weights = out / f"{name}.safetensors"
    if target in ("safetensors", "torch") and weights.resolve() == source.resolve():
        raise RednetError(f"{weights}: would replace the checkpoint itself")
    described = out / EXPORT
    if described.exists():
        before = read_export(described)
        if (before.get("target"), before.get("checkpoint")) != (target, name):
            raise RednetError(
                f"{out}: holds {before.get('checkpoint')} as {before.get('target')} already; "
                "name another folder"
            )


def read_export(file: Path) -> dict[str, Any]:
    """Returns what an export.json says.

    Raises:
        RednetError: it cannot be read, or holds something else.
    """
    try:
        found = read_json(file)
    except (OSError, ValueError) as error:
        raise RednetError(f"{file}: cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise RednetError(f"{file}: describes no export")
    return found


def publish(staged: Path, out: Path, written: dict[str, Any]) -> None:
    """Copies `written["files"]` to a folder, each whole or not at all, and writes export.json last.

    An older export.json is gone first: where there is one, the files are those that it describes.

    Raises:
        RednetError: a file cannot be written.
    """
    with writing(out / EXPORT):
        (out / EXPORT).unlink(missing_ok=True)
    for name in written["files"]:
        with replacing(out / name) as partial:
            shutil.copyfile(staged / name, partial)
    write_text(out / EXPORT, json.dumps(written, indent=2) + "\n")
