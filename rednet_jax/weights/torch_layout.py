"""The names and layouts that weights have in PyTorch, and back: the same numbers, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of statistics, which PyTorch keeps beside the parameters, as buffers.
_STATISTICS = ("mean", "variance")
# Axes of a kernel: [k, k, inputs, outputs] or [inputs, outputs] -> outputs first.
_TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0)}
_FROM_TORCH = {4: (2, 3, 1, 0), 2: (1, 0)}


def to_torch(name: str, array: NDArray[Any]) -> tuple[str, NDArray[Any]]:
    """Returns name and array as the exported PyTorch module has them.

    Args:
        name: of an array of variables, such as 'params/encoder/stem1/conv/kernel'.
        array: of that name.

    Returns:
        Such as 'encoder.stem1.conv.weight', and the kernel with its outputs first.
    """
    *folders, last = name.split("/")[1:]
    if last == "kernel":
        last, array = "weight", array.transpose(_TO_TORCH[array.ndim])
    return ".".join([*folders, last]), np.ascontiguousarray(array)


def from_torch(name: str, array: NDArray[Any]) -> tuple[str, NDArray[Any]]:
    """Returns what `to_torch` was given."""
    *folders, last = name.split(".")
    if last == "weight" and array.ndim in _FROM_TORCH:
        last, array = "kernel", array.transpose(_FROM_TORCH[array.ndim])
    root = "batch_stats" if last in _STATISTICS else "params"
    return "/".join([root, *folders, last]), np.ascontiguousarray(array)
