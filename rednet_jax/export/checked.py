"""Writes an export to a temporary folder, compares it, and publishes it only if it agrees."""

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
"""Dtype of the kernels in an export's files; every export computes in float32."""


class Job(NamedTuple):
    """An export to write.

    Attributes:
        name: of the checkpoint, and of its files.
        config: of the network.
        variables: its weights, float32.
        feedback_steps: K.
        dtype: of the kernels.
        folder: temporary folder of the files until they are checked.
    """

    name: str
    config: RedNetConfig
    variables: dict[str, Any]
    feedback_steps: int
    dtype: Dtype
    folder: Path


class Written(NamedTuple):
    """The written files of an export, before they are checked.

    Attributes:
        files: their paths in the job's folder.
        runner: runs them in the target framework.
        details: entries of export.json for this target only.
    """

    files: list[str]
    runner: Runner
    details: dict[str, Any]


def export_checked(
    target: str,
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    dtype: Dtype,
    make: Callable[[Job], Written],
    *,
    modules: Sequence[str] = (),
    extra: str | None = None,
    feedback_steps: int | None = None,
    data_dir: Path | None = None,
) -> dict[str, Any]:
    """Writes an export and its export.json if it agrees with the network.

    Args:
        target: name of the target.
        checkpoint: a released name, a safetensors file, or a run folder. The last part of it is the
            name of the files.
        out: folder, created if it does not exist. The same export in it is replaced.
        dtype: of the kernels in the files.
        make: writes the files.
        modules: Python modules that the target needs.
        extra: the extra of this package that installs them; None if they are always installed.
        feedback_steps: K; None for the K of training.
        data_dir: folder of prepared data. If it has 300w, its faces are the inputs of the check.

    Returns:
        The content of export.json: `target`, `checkpoint` (its name), `weights` (their
        fingerprint), `files`, `dtype`, `feedback_steps`, `crop` (from `crop_rule`), `scheme` (of
        the landmarks), the result of `check.compare`, `versions`, and the target's details.

    Raises:
        RednetError: a package is not installed, the checkpoint cannot be read, a weight is beyond
            the dtype's range, the folder has another export, the target cannot express the network,
            landmarks or confidences differ from the network's, or a file cannot be written. There
            is then no new export.json.
    """
    name = checkpoint_name(checkpoint)
    claim(Path(out), target, name, find(checkpoint))
    if extra is not None:
        require(extra, modules)
    installed = versions(["jax", "flax", *modules])
    config, variables = load(checkpoint)
    _check_range(checkpoint, variables, dtype)
    steps = feedback_steps_of(config, feedback_steps)
    with tempfile.TemporaryDirectory() as folder:
        written = make(Job(name, config, variables, steps, dtype, Path(folder)))
        inputs = comparison_inputs(config, data_dir)
        stored = named.stored(variables, dtype)
        exact = jax.tree.all(jax.tree.map(np.array_equal, stored, variables))
        original = named.network(config, variables, steps)
        rounded = original if exact else named.network(config, stored, steps)
        try:
            comparison = compare(original, rounded, written.runner, inputs, dtype)
        except RednetError as error:
            raise RednetError(f"{name} as {target}: {error}") from error
        description = {
            "target": target,
            "checkpoint": name,
            "weights": fingerprint(variables),
            "files": written.files,
            "dtype": dtype,
            "feedback_steps": steps,
            "crop": crop_rule(config),
            "scheme": config.scheme.to_json(),
            **comparison,
            "versions": installed,
            **written.details,
        }
        publish(Path(folder), Path(out), description)
    return description


def _check_range(
    checkpoint: str | os.PathLike[str], variables: dict[str, Any], dtype: Dtype
) -> None:
    largest = np.finfo(dtype).max
    for name, array in flat(variables).items():
        if name.endswith("/kernel") and not np.abs(array).max(initial=0) <= largest:
            raise RednetError(f"{checkpoint}: {name} has values beyond the range of {dtype}")
