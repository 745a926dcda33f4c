"""Collectives over trees: their results, and their number in compiled programs."""

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


def random_tree(leading: tuple[int, ...] = ()) -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda shape: rng.normal(size=(*leading, *shape)).astype(np.float32),
        SHAPES,
        is_leaf=lambda shape: isinstance(shape, tuple),
    )


def sharded(mesh: Mesh, f: Any, *specs: Any, out: Any) -> Any:
    return jax.jit(jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False))


def test_parameters_are_gathered_by_one_collective_for_each_part(mesh: Mesh) -> None:
    params = random_tree()
    gather = sharded(mesh, lambda tree: gather_params(tree, SPECS), SPECS, out=P())
    jax.tree.map(np.testing.assert_array_equal, gather(params), params)
    layout = jax.tree.map(lambda spec: NamedSharding(mesh, spec), SPECS)
    shapes = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        params,
        layout,
    )
    cost = program_cost(gather.lower(shapes).compile().as_text())
    sizes = sorted((each.kind, each.bytes, times) for each, times in cost.collectives.items())
    assert sizes == [("all-gather", 4 * 12, 1), ("all-gather", 4 * (144 + 20), 1)]


def test_averaged_gradients_are_sharded_as_their_parameters(mesh: Mesh) -> None:
    each, stats = random_tree((8,)), np.arange(24, dtype=np.float32).reshape(8, 3)

    def average(gradients: Any, stats: Any) -> Any:
        gradients = jax.tree.map(lambda leaf: leaf[0], gradients)
        return average_gradients(gradients, SPECS, {"mean": stats[0]}, AXES)

    averaged = sharded(mesh, average, P(AXES), P(AXES), out=(SPECS, P()))
    gradients, mean_stats = averaged(each, stats)
    jax.tree.map(
        lambda mean, all_: np.testing.assert_allclose(mean, all_.mean(0), rtol=1e-5, atol=1e-6),
        gradients,
        each,
    )
    np.testing.assert_allclose(mean_stats["mean"], stats.mean(0), rtol=1e-6)
    jax.tree.map(
        lambda leaf, spec: None if leaf.sharding.spec == spec else pytest.fail(f"{leaf.sharding}"),
        gradients,
        SPECS,
    )
    # Two parts have sharded arrays; all replicated arrays are reduced at once.
    options: dict[str, str | bool] = {"xla_disable_hlo_passes": "cpu-all-reduce-combiner"}
    text = averaged.lower(each, stats).compile(compiler_options=options).as_text()
    kinds = Counter[str]()
    for collective, times in program_cost(text).collectives.items():
        kinds[collective.kind] += times
    assert kinds == {"reduce-scatter": 2, "all-reduce": 2 + 1}


def test_the_sharded_norm_is_that_of_all_arrays(mesh: Mesh) -> None:
    params = random_tree()
    norm = sharded(mesh, functools.partial(sharded_norm, specs=SPECS), SPECS, out=P())(params)
    leaves = [leaf.reshape(-1) for leaf in jax.tree.leaves(params)]
    assert float(norm) == pytest.approx(np.linalg.norm(np.concatenate(leaves)), rel=1e-6)


def test_gathered_numbers_are_in_the_order_of_the_batch(mesh: Mesh) -> None:
    values = {"loss": np.arange(16, dtype=np.float32), "nme": -np.arange(16, dtype=np.float32)}
    gathered = sharded(mesh, lambda tree: gather_batch(tree, AXES), P(AXES), out=P())(values)
    jax.tree.map(np.testing.assert_array_equal, gathered, values)
