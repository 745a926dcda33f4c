"""`bench layers` on narrow networks: layers, their FLOPs and their values."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rednet_jax.bench.layers import Program, bench_layers, operation_flops, step, step_arguments
from rednet_jax.bench.machine import Timing, interleaved_milliseconds, milliseconds
from rednet_jax.bench.scan import python_loop
from rednet_jax.errors import RednetError
from rednet_jax.model.rednet import init

QUICK = Timing(rounds=1, seconds=0.0)


def program_of(config, variables, batch):
    arguments = step_arguments(config, variables, batch)
    return Program(functools.partial(step, config, scan=python_loop), *arguments), arguments


@pytest.mark.parametrize(
    "name, changes",
    [
        ("compact", {"recrop": "similarity", "context": 1.5}),
        ("compact", {"feedback": "none", "recurrence": "none"}),
        ("eccv_vgg", {}),
        ("ijcv_resnet", {}),
    ],
)
def test_every_kernel_of_the_network_is_a_layer(narrow, name, changes):
    config = narrow(name, **changes)
    variables = init(config, jax.random.key(0))
    program, _ = program_of(config, variables, 1)
    kernels = {
        jax.tree_util.keystr(path[:-1], simple=True, separator="/")
        for path, _ in jax.tree.leaves_with_path(variables["params"])
        if path[-1].key == "kernel"
    }
    # Inference does not run the identity head.
    assert {layer.name for layer in program.layers} == kernels - {"identity/logits"}
    assert {"encoder/stem", "encoder", "decoder", "heads/detection"} <= set(program.parts)
    assert ("recurrent" in program.parts) == (config.recurrence != "none")
    assert ("heads/regression" in program.parts) == (name != "ijcv_resnet")
    assert "heads/identity" not in program.parts


def test_operations_and_parts_compute_the_step(network):
    config, variables = network
    program, arguments = program_of(config, variables, 2)
    expected = jax.tree.leaves(jax.jit(functools.partial(step, config))(*arguments))
    for output, reference in zip(program.outputs(*arguments), expected, strict=True):
        np.testing.assert_allclose(output, reference, rtol=1e-4, atol=1e-4)
    part = program.part("decoder")
    assert [var.aval.shape for var in part.outputs] == [(2, 16, 16, config.widths[2])]
    values = program.values([*part.inputs, *part.outputs], *arguments)
    (features,) = part.run(*values[:-1])
    np.testing.assert_allclose(features, values[-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride, groups, pad", [(1, 1, 0), (2, 1, 0), (1, 2, 0), (1, 1, 1)])
def test_flops_of_a_convolution_agree_with_xla(stride, groups, pad):
    def convolve(images, kernel):
        return jax.lax.conv_general_dilated(
            images,
            kernel,
            (stride, stride),
            [(pad, pad)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    images, kernel = jnp.ones((2, 9, 9, 4)), jnp.ones((3, 3, 4 // groups, 6))
    (operation,) = jax.make_jaxpr(convolve)(images, kernel).eqns
    counted = jax.jit(convolve).lower(images, kernel).compile().cost_analysis()["flops"]
    if pad:
        # XLA excludes products with padding: one tap at each end of 9 rows and columns.
        counted *= (27 / 25) ** 2
    assert operation_flops(operation) == pytest.approx(counted)


def test_flops_of_a_product_agree_with_xla():
    def product(left, right):
        return jnp.einsum("bij,bjk->bik", left, right)

    left, right = jnp.ones((3, 5, 7)), jnp.ones((3, 7, 4))
    closed = jax.make_jaxpr(product)(left, right)
    program = Program(product, left, right)
    counted = jax.jit(product).lower(left, right).compile().cost_analysis()["flops"]
    assert [layer.flops for layer in program.layers] == [counted] == [2 * 3 * 5 * 7 * 4]
    assert closed.out_avals[0].shape == (3, 5, 4)


def test_dead_code_is_left_out():
    def function(left, right):
        jnp.sin(left @ right)
        return left + right

    assert not Program(function, jnp.ones((2, 2)), jnp.ones((2, 2))).layers


def test_every_layer_and_part_has_a_row(network):
    config, variables = network
    result = bench_layers(network, batches=(1, 2), timing=QUICK)
    assert [row["batch"] for row in result["steps"]] == [1, 2]
    for batch, whole in zip((1, 2), result["steps"], strict=True):
        layers = [row for row in result["layers"] if row["batch"] == batch]
        parts = [row for row in result["parts"] if row["batch"] == batch]
        program, _ = program_of(config, variables, batch)
        assert [row["layer"] for row in layers] == [layer.name for layer in program.layers]
        assert [row["part"] for row in parts] == program.parts
        assert whole["gflop"] == pytest.approx(sum(row["gflop"] for row in layers))
        assert whole["gflop"] == pytest.approx(sum(row["gflop"] for row in parts))
        assert whole["layers_ms"] == pytest.approx(sum(row["ms"] for row in layers))
        assert whole["rest_ms"] == pytest.approx(whole["ms"] - whole["layers_ms"])
        assert all(row["ms"] > 0 and np.isfinite(row["gflop_per_s"]) for row in layers)
    assert result["steps"][1]["gflop"] == pytest.approx(2 * result["steps"][0]["gflop"])
    machine = result["machine"]
    assert machine["gflop_per_s"] == pytest.approx(2 * 2048**3 / machine["product_ms"] / 1e6)
    assert (
        result["provenance"]["command"] == "rednet bench layers --checkpoint CHECKPOINT --batch 1,2"
    )


def test_a_batch_without_faces_is_refused(network):
    with pytest.raises(RednetError, match="batch is 0, but must be at least 1"):
        bench_layers(network, batches=(1, 0))


def test_the_fastest_round_is_reported(monkeypatch):
    seconds = iter([9.0, 5.0, 1.0, 9.0, 2.0, 4.0, 3.0, 8.0])
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def run():
        now[0] += next(seconds)

    # A warm-up call, a call that determines the size of rounds, and two rounds of three calls.
    assert milliseconds(run, Timing(rounds=2, seconds=0.1)) == 2000.0


def test_a_slower_period_slows_all_interleaved_calls_and_is_not_reported(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def call(name, seconds):
        def run():
            calls.append(name)
            # Rounds of three calls each: the machine is slower until the second round.
            now[0] += seconds * (10 if len(calls) <= 4 + 6 else 1)

        return run

    runs = {"first": call("first", 1.0), "second": call("second", 2.0)}
    times = interleaved_milliseconds(runs, Timing(rounds=2, seconds=0.1))
    assert times == {"first": 1000.0, "second": 2000.0}
    one_round = ["first"] * 3 + ["second"] * 3
    assert calls == ["first"] * 2 + ["second"] * 2 + one_round * 2
