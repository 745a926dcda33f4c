"""Costs of programs, compared with arithmetic, and costs of loops with those of unrolled loops."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from rednet_jax.bench.hlo import Collective, Cost, program_cost
from rednet_jax.bench.scan import python_loop

EIGHT = tuple(range(8))


def compiled(f: Callable[..., Any], *shapes: tuple[int, ...]) -> str:
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(f).lower(*arrays).compile().as_text()


def cost(f: Callable[..., Any], *shapes: tuple[int, ...]) -> Cost:
    return program_cost(compiled(f, *shapes))


def over_devices(f: Callable[..., Any], axes: dict[str, int], *specs: P, out: Any) -> Any:
    kinds = (AxisType.Auto,) * len(axes)
    mesh = jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=kinds)
    return jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)


def test_products_and_convolutions_by_arithmetic() -> None:
    assert cost(lambda a, b: a @ b, (5, 7), (7, 3)).flops == 2 * 5 * 7 * 3
    batched = cost(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (4, 5, 7), (4, 7, 3))
    assert batched.flops == 4 * 2 * 5 * 7 * 3

    def convolve(images: jax.Array, kernel: jax.Array, **how: Any) -> jax.Array:
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            images, kernel, how.pop("strides", (1, 1)), "SAME", dimension_numbers=layout, **how
        )

    images, kernel = (2, 16, 16, 6), (3, 3, 6, 10)
    assert cost(convolve, images, kernel).flops == 2 * (2 * 16 * 16 * 10) * 9 * 6
    # Half the positions along each axis, also in both gradients.
    strided = lambda x, w: convolve(x, w, strides=(2, 2))  # noqa: E731
    once = 2 * (2 * 8 * 8 * 10) * 9 * 6
    assert cost(strided, images, kernel).flops == once
    both = jax.grad(lambda x, w: jnp.sum(strided(x, w) ** 2), argnums=(0, 1))
    assert cost(both, images, kernel).flops == 3 * once
    grouped = lambda x, w: convolve(x, w, feature_group_count=2)  # noqa: E731
    assert cost(grouped, images, (3, 3, 3, 10)).flops == 2 * (2 * 16 * 16 * 10) * 9 * 3


def test_collectives_by_arithmetic() -> None:
    def communicate(x: jax.Array) -> tuple[jax.Array, ...]:
        return (
            lax.psum(x, ("a", "b")),
            lax.all_gather(x, "b", tiled=True),
            lax.psum_scatter(x, "a", tiled=True),
            lax.all_to_all(x, "b", 0, 1),
            lax.ppermute(x, "b", [(0, 1), (1, 2), (2, 3), (3, 0)]),
        )

    # Each device has 384 bytes.
    total = cost(over_devices(communicate, {"a": 2, "b": 4}, P(), out=P()), (4, 24))
    row = (0, 1, 2, 3)
    assert total.flops == 0
    assert total.collectives == Counter(
        [
            Collective("all-reduce", 384, EIGHT),
            Collective("all-gather", 4 * 384, row),
            Collective("reduce-scatter", 384, (0, 4)),
            Collective("all-to-all", 384, row),
            Collective("collective-permute", 384, (0, 1)),
        ]
    )


def test_groups_of_one_device_are_not_counted() -> None:
    total = cost(
        over_devices(lambda x: lax.psum(x, "a"), {"a": 1, "b": 8}, P("b"), out=P("b")), (8,)
    )
    assert not total.collectives


def trained(scan: Callable[..., Any]) -> Callable[..., Any]:
    """Returns gradients of nested loops with products, gathers and reductions."""

    def inner(x: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
        return x / (1 + lax.pmean(x * x, "a")), jnp.sum(x)

    def outer(kernel: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        means = lax.all_gather(jnp.mean(x, axis=0), "a")
        return scan(inner, jnp.tanh(x @ kernel + jnp.max(means, axis=0)), jnp.arange(3))

    def loss(kernel: jax.Array, x: jax.Array) -> jax.Array:
        x, sums = scan(lambda x, _: outer(kernel, x), x, jnp.arange(5))
        return jnp.sum(x) + jnp.sum(sums)

    gradients = jax.grad(loss, argnums=(0, 1))
    return over_devices(gradients, {"a": 8}, P(), P("a"), out=(P(), P("a")))


def test_a_loop_costs_the_same_as_unrolled() -> None:
    shapes = (16, 16), (32, 16)
    text = compiled(trained(lax.scan), *shapes)
    looped, unrolled = program_cost(text), cost(trained(python_loop), *shapes)
    assert text.count(" while(") >= 4
    # Five products of 4 rows per device: forward, and the gradients of the rows and the kernel.
    assert looped.flops == unrolled.flops == 5 * 3 * 2 * (4 * 16 * 16)
    # Unrolled collectives are partly combined, so their number differs, but not their bytes.
    moved = [bytes_by_kind(total) for total in (looped, unrolled)]
    row = 4 * 16
    reduced = {"all-reduce": 2 * 5 * 3 * 4 * row}
    assert (
        moved[0] == moved[1] == reduced | {"all-gather": 5 * 8 * row, "reduce-scatter": 5 * 8 * row}
    )


def bytes_by_kind(cost: Cost) -> Counter[str]:
    total = Counter[str]()
    for collective, times in cost.collectives.items():
        total[collective.kind] += times * collective.bytes
    return total


def test_the_trip_count_is_inferred_from_the_condition_if_it_is_not_recorded() -> None:
    text = compiled(trained(lax.scan), (16, 16), (32, 16))
    bare, removed = re.subn(r'"known_trip_count":\{[^}]*\}', "", text)
    assert removed >= 4 and program_cost(bare) == program_cost(text)


def test_unknown_costs_raise() -> None:
    def search(x: jax.Array) -> jax.Array:
        return lax.while_loop(lambda x: jnp.sum(x) < 9, lambda x: x * 2, x)

    with pytest.raises(ValueError, match="the number of iterations is unknown"):
        cost(search, (4,))
    with pytest.raises(ValueError, match="it is unknown which branch runs"):
        cost(lambda x: lax.cond(x[0, 0] > 0, lambda x: x @ x, lambda x: x, x), (4, 4))


@pytest.mark.parametrize(
    ("written", "group"),
    [
        ("{}", EIGHT),
        ("{{0,2},{1,3}}", (0, 2)),
        ("[4,2]<=[8]", (0, 1)),
        ("[2,4]<=[4,2]T(1,0)", (0, 2, 4, 6)),
        ("mesh['x'=2,'y'=4] {'y'}", (0, 1, 2, 3)),
        ("mesh['x'=2,'y'=4], device_ids=([4,2]T(1,0)) {'y'}", (0, 2, 4, 6)),
        ("mesh['x'=2,'y'=4] {'y','x'}", (0, 4, 1, 5, 2, 6, 3, 7)),
    ],
)
def test_all_notations_of_device_groups(written: str, group: tuple[int, ...]) -> None:
    text = f"""HloModule m, num_partitions=8

ENTRY %main (x: f32[4]) -> f32[4] {{
  %x = f32[4]{{0}} parameter(0)
  ROOT %sum = f32[4]{{0}} all-reduce(%x), replica_groups={written}, to_apply=%add
}}

%add (a: f32[], b: f32[]) -> f32[] {{
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}}
"""
    assert program_cost(text).collectives == Counter([Collective("all-reduce", 16, group)])
