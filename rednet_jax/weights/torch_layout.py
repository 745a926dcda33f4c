"""Converts names and layouts of weights to PyTorch's and back, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Batch statistics, which are buffers in PyTorch.
_STATISTICS = ("mean", "variance")
# Axes of a kernel: [k, k, inputs, outputs] or [inputs, outputs] -> outputs first.
_TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0)}
_FROM_TORCH = {4: (2, 3, 1, 0), 2: (1, 0)}


def to_torch(name: str, array: NDArray[Any]) -> tuple[str, NDArray[Any]]:
    """Returns name and array in the exported PyTorch module.

    Args:
        name: of an array of variables, such as 'params/encoder/stem1/conv/kernel'.
        array: the array.

    Returns:
        A name such as 'encoder.stem1.conv.weight', and the array, kernels with outputs first.
    """
    *folders, last = name.split("/")[1:]
    if last == "kernel":
        last, array = "weight", array.transpose(_TO_TORCH[array.ndim])
    return ".".join([*folders, last]), np.ascontiguousarray(array)


def from_torch(name: str, array: NDArray[Any]) -> tuple[str, NDArray[Any]]:
    """Inverts `to_torch`."""
    *folders, last = name.split(".")
    if last == "weight" and array.ndim in _FROM_TORCH:
        last, array = "kernel", array.transpose(_FROM_TORCH[array.ndim])
    root = "batch_stats" if last in _STATISTICS else "params"
    return "/".join([root, *folders, last]), np.ascontiguousarray(array)
