"""Schedules with collectives that overlap with arithmetic, compared with times added by hand."""

from __future__ import annotations

from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from rednet_jax.bench.hlo import Collective, Cost, Operation, program_operations, total_cost
from rednet_jax.bench.overlap import overlapped_seconds


def computes(seconds: int, *operands: int) -> Operation:
    return Operation(Cost(seconds, Counter()), operands)


def sends(seconds: int, *operands: int) -> Operation:
    return Operation(
        Cost(0, Counter([Collective("all-reduce", seconds, tuple(range(8)))])), operands
    )


def seconds(operations: list[Operation]) -> float:
    return overlapped_seconds(
        operations,
        lambda cost: cost.flops,
        lambda cost: sum(count * each.bytes for each, count in cost.collectives.items()),
    )


def test_a_chain_has_no_overlap() -> None:
    chain = [computes(3), sends(2, 0), computes(4, 1), sends(1, 2)]
    assert seconds(chain) == 10


def test_reductions_of_gradients_overlap_with_the_backward_pass() -> None:
    # A backward pass of three layers; the last reduction does not overlap.
    backward = [computes(4), computes(4, 0), computes(4, 1), sends(3, 0), sends(3, 1), sends(3, 2)]
    assert seconds(backward) == 12 + 3
    # Reductions that take longer than the arithmetic wait for the network.
    slow = [*backward[:3], sends(5, 0), sends(5, 1), sends(5, 2)]
    assert seconds(slow) == 4 + 3 * 5


def test_operations_on_the_longest_path_are_sent_first() -> None:
    # Either parameter could be gathered first; the second is on the longest path.
    gathers = [sends(2), sends(2), computes(9, 1), computes(1, 0, 2)]
    assert seconds(gathers) == 2 + 9 + 1


def test_a_loop_with_collectives_occupies_both_units() -> None:
    loop = Operation(Cost(3, sends(4).cost.collectives), ())
    assert seconds([loop, computes(5), sends(6)]) == 7 + 6


def test_dependences_are_read_from_a_compiled_program() -> None:
    """One reduction is independent of the next product, the other is its operand."""

    def backward(kernel: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        gradient = lax.psum(x.T @ x, "a")
        mean = lax.psum(jnp.tanh(x @ kernel), "a")
        return gradient, mean @ kernel

    mesh = jax.make_mesh((8,), ("a",), axis_types=(AxisType.Auto,))
    over = jax.shard_map(
        backward, mesh=mesh, in_specs=(P(), P("a")), out_specs=P(), check_vma=False
    )
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((16, 16), (128, 16))]
    # The CPU backend would combine both reductions.
    options: dict[str, str | bool] = {"xla_disable_hlo_passes": "cpu-all-reduce-combiner"}
    text = jax.jit(over).lower(*shapes).compile(compiler_options=options).as_text()
    assert text is not None
    operations = program_operations(text)
    product, reduced = 2 * 16 * 16 * 16, 4 * 16 * 16
    cost = total_cost(step.cost for step in operations)
    assert cost == Cost(
        3 * product, Counter({Collective("all-reduce", reduced, tuple(range(8))): 2})
    )
    took = overlapped_seconds(
        operations,
        lambda cost: cost.flops / product,
        lambda cost: sum(cost.collectives.values()),
    )
    # Of five units, the gradient's product overlaps with the mean's reduction, and its reduction
    # with the last product.
    assert took == pytest.approx(3)
