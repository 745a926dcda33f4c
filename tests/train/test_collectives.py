"""Few collectives over a tree do what one for each array does."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from rednet_jax.bench.hlo import program_cost
from rednet_jax.train.collectives import (
    average_gradients,
    gather_batch,
    gather_params,
    sharded_norm,
)
from rednet_jax.train.experiment import MeshConfig
from rednet_jax.train.sharding import make_mesh

AXES = ("data", "fsdp")
SPECS = {
    "encoder": {"kernel": P(None, None, None, "fsdp"), "other": P(None, "fsdp"), "scale": P()},
    "decoder": {"kernel": P("fsdp"), "bias": P()},
    "heads": {"bias": P()},
}
SHAPES = {
    "encoder": {"kernel": (3, 3, 2, 8), "other": (5, 4), "scale": (7,)},
    "decoder": {"kernel": (4, 3), "bias": ()},
    "heads": {"bias": (2, 2)},
}


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return make_mesh(MeshConfig(2, 4))


def drawn(leading: tuple[int, ...] = ()) -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda shape: rng.normal(size=(*leading, *shape)).astype(np.float32),
        SHAPES,
        is_leaf=lambda one: isinstance(one, tuple),
    )


def over(mesh: Mesh, f: Any, *specs: Any, out: Any) -> Any:
    return jax.jit(jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False))


def test_parameters_are_gathered_whole_by_one_collective_for_each_part(mesh: Mesh) -> None:
    params = drawn()
    gather = over(mesh, lambda tree: gather_params(tree, SPECS), SPECS, out=P())
    jax.tree.map(np.testing.assert_array_equal, gather(params), params)
    layout = jax.tree.map(lambda spec: NamedSharding(mesh, spec), SPECS)
    shapes = jax.tree.map(
        lambda leaf, one: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one), params, layout
    )
    cost = program_cost(gather.lower(shapes).compile().as_text())
    sizes = sorted((one.kind, one.bytes, times) for one, times in cost.collectives.items())
    assert sizes == [("all-gather", 4 * 12, 1), ("all-gather", 4 * (144 + 20), 1)]


def test_gradients_are_averaged_and_stay_sharded(mesh: Mesh) -> None:
    each, stats = drawn((8,)), np.arange(24, dtype=np.float32).reshape(8, 3)

    def average(gradients: Any, stats: Any) -> Any:
        gradients = jax.tree.map(lambda leaf: leaf[0], gradients)
        return average_gradients(gradients, SPECS, {"mean": stats[0]}, AXES)

    averaged = over(mesh, average, P(AXES), P(AXES), out=(SPECS, P()))
    gradients, moved = averaged(each, stats)
    jax.tree.map(
        lambda one, all_: np.testing.assert_allclose(one, all_.mean(0), rtol=1e-5, atol=1e-6),
        gradients,
        each,
    )
    np.testing.assert_allclose(moved["mean"], stats.mean(0), rtol=1e-6)
    jax.tree.map(
        lambda one, spec: None if one.sharding.spec == spec else pytest.fail(f"{one.sharding}"),
        gradients,
        SPECS,
    )
    # Two parts with sharded arrays, and all that is replicated at once.
    options: dict[str, str | bool] = {"xla_disable_hlo_passes": "cpu-all-reduce-combiner"}
    text = averaged.lower(each, stats).compile(compiler_options=options).as_text()
    kinds = Counter[str]()
    for one, times in program_cost(text).collectives.items():
        kinds[one.kind] += times
    assert kinds == {"reduce-scatter": 2, "all-reduce": 2 + 1}


def test_the_norm_counts_every_shard_once(mesh: Mesh) -> None:
    params = drawn()
    norm = over(mesh, functools.partial(sharded_norm, specs=SPECS), SPECS, out=P())(params)
    leaves = [leaf.reshape(-1) for leaf in jax.tree.leaves(params)]
    assert float(norm) == pytest.approx(np.linalg.norm(np.concatenate(leaves)), rel=1e-6)


def test_numbers_of_a_batch_come_in_its_order(mesh: Mesh) -> None:
    values = {"loss": np.arange(16, dtype=np.float32), "nme": -np.arange(16, dtype=np.float32)}
    gathered = over(mesh, lambda tree: gather_batch(tree, AXES), P(AXES), out=P())(values)
    jax.tree.map(np.testing.assert_array_equal, gathered, values)
