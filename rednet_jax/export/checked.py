"""How an export comes about: written aside, compared, and only then put in its place."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from rednet_jax.errors import RednetError
from rednet_jax.export import named
from rednet_jax.export.check import Runner, compare
from rednet_jax.export.folder import (
    claim,
    crop_rule,
    feedback_steps_of,
    publish,
    require,
    versions,
)
from rednet_jax.export.inputs import comparison_inputs
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.store import checkpoint_name, find, fingerprint, flat, load

Dtype = Literal["float32", "float16"]
"""Of the kernels in an export's files; every form computes in float32."""


class Job(NamedTuple):
    """What is to be exported.

    Attributes:
        name: of the checkpoint, and of its files.
        config: of the network.
        variables: its weights, float32.
        feedback_steps: K.
        dtype: of the kernels.
        folder: where files lie until they are checked.
    """

    name: str
    config: RedNetConfig
    variables: dict[str, Any]
    feedback_steps: int
    dtype: Dtype
    folder: Path


class Made(NamedTuple):
    """What a form made of it.

    Attributes:
        files: that were written, by their paths in the job's folder.
        runner: what they answer, where they will run.
        told: what export.json says of this form alone.
    """

    files: list[str]
    runner: Runner
    told: dict[str, Any]


def export_checked(
    target: str,
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    dtype: Dtype,
    make: Callable[[Job], Made],
    *,
    modules: Sequence[str] = (),
    extra: str | None = None,
    feedback_steps: int | None = None,
    data_dir: Path | None = None,
) -> dict[str, Any]:
    """Writes an export, once it is seen to be the network, and export.json with it.

    Args:
        target: name of the form.
        checkpoint: a released name, a safetensors file, or a run folder; its last part names files.
        out: folder, made if need be; it may hold the same export, which is replaced.
        dtype: of the kernels in the files.
        make: writes the files.
        modules: that the form needs.
        extra: of this package, which installs them; None if they come with it.
        feedback_steps: K; None for the K that the network was trained with.
        data_dir: the folder of prepared data, whose faces are compared on if it holds 300w.

    Returns:
        What export.json holds: `target`, `checkpoint` (its name), `weights` (their fingerprint),
        `files`, `dtype`, `feedback_steps`, `crop` (how it is cut), `scheme` (of the
        landmarks), what `check.compare` returns,
        `versions`, and what the form tells.

    Raises:
        RednetError: a package is not installed, a checkpoint that cannot be read, a number that the
            type does not hold, a folder with something else, a network that the form cannot
            express, landmarks or confidences that differ from the network's, or files that cannot
            be written. There is no export.json then, or the one of before.
    """
    name = checkpoint_name(checkpoint)
    claim(Path(out), target, name, find(checkpoint))
    if extra is not None:
        require(extra, modules)
    used = versions(["jax", "flax", *modules])
    config, variables = load(checkpoint)
    _expect_finite(checkpoint, variables, dtype)
    steps = feedback_steps_of(config, feedback_steps)
    with tempfile.TemporaryDirectory() as folder:
        made = make(Job(name, config, variables, steps, dtype, Path(folder)))
        inputs = comparison_inputs(config, data_dir)
        stored = named.stored(variables, dtype)
        exact = jax.tree.all(jax.tree.map(np.array_equal, stored, variables))
        original = named.network(config, variables, steps)
        rounded = original if exact else named.network(config, stored, steps)
        try:
            compared = compare(original, rounded, made.runner, inputs, dtype)
        except RednetError as error:
            raise RednetError(f"{name} as {target}: {error}") from error
        written = {
            "target": target,
            "checkpoint": name,
            "weights": fingerprint(variables),
            "files": made.files,
            "dtype": dtype,
            "feedback_steps": steps,
            "crop": crop_rule(config),
            "scheme": config.scheme.to_json(),
            **compared,
            "versions": used,
            **made.told,
        }
        publish(Path(folder), Path(out), written)
    return written


def _expect_finite(
    checkpoint: str | os.PathLike[str], variables: dict[str, Any], dtype: Dtype
) -> None:
    largest = np.finfo(dtype).max
    for name, array in flat(variables).items():
        if name.endswith("/kernel") and not np.abs(array).max(initial=0) <= largest:
            raise RednetError(f"{checkpoint}: {name} holds numbers beyond {dtype}")
