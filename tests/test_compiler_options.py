"""XLA accepts the options on a CPU; other devices, and other versions of XLA, get none."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from rednet_jax import compiler_options
from rednet_jax.compiler_options import generation_options, inference_options, training_options


@pytest.fixture(autouse=True)
def fresh():
    compiler_options._has_library_fusions.cache_clear()
    yield
    compiler_options._has_library_fusions.cache_clear()


def product_and_sum(x):
    return jnp.sum(x @ x, axis=1)


def test_inference_has_no_library_fusions_and_the_same_result():
    # Not symmetric, and large enough for a product of the library.
    x = jax.random.normal(jax.random.key(0), (256, 256))
    jitted = jax.jit(product_and_sum, compiler_options=inference_options())
    assert "ynn" not in jitted.lower(x).compile().as_text()
    reference = jax.jit(product_and_sum)(x)
    for options in (inference_options(), training_options(), generation_options()):
        result = jax.jit(product_and_sum, compiler_options=options)(x)
        assert jnp.allclose(result, reference, rtol=1e-4, atol=1e-3)


def test_other_devices_get_no_options(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert inference_options() == training_options() == generation_options() == {}


def test_an_unknown_option_is_left_out(monkeypatch):
    monkeypatch.setattr(compiler_options, "_LIBRARY_FUSIONS", "xla_cpu_no_such_option")
    assert inference_options() == training_options() == {}
    jax.jit(product_and_sum, compiler_options=inference_options()).lower(jnp.eye(2)).compile()
