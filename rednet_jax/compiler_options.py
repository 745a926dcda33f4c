"""XLA's compiler options for the programs of this library.

They are arguments of `jax.jit`, so they neither need environment variables nor affect other
programs of the process. Only an outermost `jax.jit` accepts them.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

Options = dict[str, str | int]

_LIBRARY_FUSIONS = "xla_cpu_experimental_ynn_fusion_type"
"""Operations that XLA's CPU backend fuses into kernels of the library YNNPACK."""


def inference_options() -> Options:
    """Returns options of programs that run the network; none unless the default device is a CPU.

    With JAX 0.10.2, kernels of XLA itself are faster for this network than fused ones of YNNPACK,
    which are the default: above all in batches, and for one face, too.
    """
    return _with_library_fusions("")


def training_options() -> Options:
    """Returns options of programs that compute gradients; none unless the default device is a CPU.

    YNNPACK is faster for sums over large arrays, such as batch moments, but slower for the rest, so
    it is used for sums alone. `jax.pmap` takes no options.
    """
    return _with_library_fusions("LIBRARY_FUSION_TYPE_REDUCE")


def generation_options() -> Options:
    """Returns options of programs that generate faces; none unless the default device is a CPU.

    They have hundreds of kernels. Optimisation level 1 compiles them in three quarters of the time,
    and they run as fast.
    """
    return {"xla_backend_optimization_level": 1} if _on_cpu() else {}


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _with_library_fusions(types: str) -> Options:
    return {_LIBRARY_FUSIONS: types} if _on_cpu() and _has_library_fusions() else {}


@functools.cache
def _has_library_fusions() -> bool:
    """Returns whether this version of XLA has the option, which is experimental."""
    options: Options = {_LIBRARY_FUSIONS: ""}
    try:
        jax.jit(jnp.negative, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
