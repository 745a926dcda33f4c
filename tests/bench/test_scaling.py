"""`bench scaling`: what is counted against what the network must cost, and the page against it."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from rednet_jax.bench.chips import H100, TPU_V5P
from rednet_jax.bench.hlo import Collective, Cost
from rednet_jax.bench.scaling import MESHES, mesh_row, step_cost
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train import sharding
from rednet_jax.train.experiment import (
    DataConfig,
    Experiment,
    MeshConfig,
    OptimiserConfig,
    Stage,
)

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FROZEN = OptimiserConfig(frozen=("identity", "temporal"))


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    result: dict[str, Any] = json.loads((EXPERIMENTS / "results" / "scaling.json").read_text())
    return result


def parameters(config: RedNetConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    variables = jax.eval_shape(lambda: rednet.init(config, jax.random.key(0)))
    for path, leaf in jax.tree.leaves_with_path(variables["params"]):
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape


def flops_of_a_face(config: RedNetConfig) -> int:
    """Of a training step of `eccv_vgg`, without what draws the face: kernels times positions."""
    passes, total = config.feedback_steps, 0
    for name, shape in parameters(config):
        if not name.endswith("kernel") or name.startswith(FROZEN.frozen):
            continue
        stage = re.search(r"conv(\d)", name)
        side = 1 if len(shape) == 2 else config.image_size >> (int(stage[1]) - 1 if stage else 0)
        # Nothing asks for the gradient in the picture, which is seen once, nor in the map that
        # goes back.
        runs = {"encoder/picture/kernel": 2, "encoder/feedback/kernel": 2 * passes}
        total += 2 * math.prod(shape) * side**2 * runs.get(name, 3 * passes)
    return total


def gathered_bytes(config: RedNetConfig, fsdp: int) -> int:
    """Of the parameters that lie over `fsdp`, but those that single pictures do not need."""
    return sum(
        4 * math.prod(shape)
        for name, shape in parameters(config)
        if sharding.partition_spec(f"params/{name}", shape, fsdp) != sharding.P()
        and not name.startswith("temporal")
    )


def test_what_is_published_is_what_the_network_must_cost(published: dict[str, Any]) -> None:
    config = RedNetConfig.preset("eccv_vgg", identities=1_654)
    rows = published["meshes"]
    assert [(row["data"], row["fsdp"]) for row in rows] == [(m.data, m.fsdp) for m in MESHES]
    assert published["parameters"] == sum(math.prod(shape) for _, shape in parameters(config))
    for row in rows:
        assert row["tflop"] == pytest.approx(
            row["batch"] * flops_of_a_face(config) / 1e12, rel=1e-3
        )
        megabytes = gathered_bytes(config, row["fsdp"]) / 1e6 if row["devices"] > 1 else 0
        for kind in ("all_gather", "reduce_scatter"):
            assert row[f"{kind}_mb"] == pytest.approx(megabytes, rel=1e-3)
        # A device's eighth of the gradients, over `data`.
        reduced = megabytes / row["fsdp"] if row["data"] > 1 else 0
        assert reduced <= row["all_reduce_mb"] < reduced + 4
        assert row["all_to_all_count"] == row["collective_permute_count"] == 0


def test_the_page_tells_what_the_json_does(published: dict[str, Any]) -> None:
    spec = importlib.util.spec_from_file_location("scaling", EXPERIMENTS / "scaling.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (EXPERIMENTS / "scaling.md").read_text() == module.page(published)


def test_times_of_collectives_by_arithmetic() -> None:
    node, everywhere, across = tuple(range(8)), tuple(range(64)), tuple(range(0, 64, 8))
    large = 10**9
    gather = H100.communication_seconds(Collective("all-gather", large, node))
    assert gather == pytest.approx(6.8e-6 + 7 * 0.6e-6 + 7 / 8 * large / 450e9)
    # There and back; eight cards of a node send at once, or one.
    reduce = H100.communication_seconds(Collective("all-reduce", large, everywhere))
    hops = 7 * 0.6e-6 + 3 * 5e-6
    assert reduce == pytest.approx(6.8e-6 + 2 * (hops + 63 / 64 * large / 400e9))
    reduce = H100.communication_seconds(Collective("all-reduce", large, across))
    assert reduce == pytest.approx(6.8e-6 + 2 * (3 * 5e-6 + 7 / 8 * large / 50e9))
    exchange = H100.communication_seconds(Collective("all-to-all", large, everywhere))
    assert exchange == pytest.approx(6.8e-6 + hops + 63 / 64 * large / 50e9)
    torus = TPU_V5P.communication_seconds(Collective("reduce-scatter", large, everywhere))
    assert torus == pytest.approx(6e-6 + 63 / 64 * large / 200e9)


def test_efficiency_is_the_time_on_one_device_over_that_on_many(
    narrow: Callable[..., RedNetConfig],
) -> None:
    alone = Experiment("alone", narrow("eccv_vgg"), (Stage(batch=4),))
    many = dataclasses.replace(alone, stages=(Stage(batch=32),), mesh=MeshConfig(fsdp=8))
    first = mesh_row(alone, Cost(10**12, Counter()), None)
    assert first["h100_estimated_efficiency"] == first["v5p_estimated_efficiency"] == 100
    one = Collective("all-reduce", 10**8, tuple(range(8)))
    row = mesh_row(many, Cost(10**12, Counter({one: 3})), first)
    assert (row["batch"], row["all_reduce_mb"], row["all_reduce_count"]) == (4, 300, 3)
    milliseconds = 1e3 * 3 * H100.communication_seconds(one)
    assert row["h100_estimated_communication_ms"] == pytest.approx(milliseconds)
    compute = first["h100_estimated_step_ms"]
    assert row["h100_estimated_efficiency"] == pytest.approx(
        100 * compute / (compute + milliseconds)
    )


@pytest.mark.slow
def test_a_step_gathers_once_however_often_the_loop_runs(
    narrow: Callable[..., RedNetConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharding, "SMALLEST", 64)
    # More passes than are unrolled.
    config = narrow("eccv_vgg", feedback_steps=6)
    stage = Stage(data=DataConfig(cached_size=64), optimiser=FROZEN, batch=16)
    found = step_cost(Experiment("narrow", config, (stage,), mesh=MeshConfig(2, 4)))
    assert found.flops == pytest.approx(2 * flops_of_a_face(config), rel=0.05)
    moved = Counter[str]()
    for one, times in found.collectives.items():
        moved[one.kind] += times * one.bytes
    # And the losses of 16 faces, for the metrics.
    assert moved["reduce-scatter"] == gathered_bytes(config, 4)
    assert gathered_bytes(config, 4) <= moved["all-gather"] < gathered_bytes(config, 4) + 4_096
    assert set(moved) <= {"all-reduce", "all-gather", "reduce-scatter"}
