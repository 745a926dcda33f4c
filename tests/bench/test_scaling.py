"""`bench scaling`: counts compared with those of the network, and the published page."""

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
from rednet_jax.bench.hlo import Collective, Cost, Operation, total_cost
from rednet_jax.bench.scaling import (
    SHARES,
    CompiledStep,
    compiled_step,
    largest_batch,
    mesh_row,
)
from rednet_jax.errors import RednetError
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
    """Returns the FLOPs of a training step of `eccv_vgg` per face, without augmentation."""
    passes, total = config.feedback_steps, 0
    for name, shape in parameters(config):
        if not name.endswith("kernel") or name.startswith(FROZEN.frozen):
            continue
        stage = re.search(r"conv(\d)", name)
        side = 1 if len(shape) == 2 else config.image_size >> (int(stage[1]) - 1 if stage else 0)
        # There is no gradient of the image, which is encoded once, and none of the feedback map,
        # which the first pass does not have.
        gradients = {"encoder/picture/kernel": 1, "encoder/feedback/kernel": passes - 1}
        of_kernel = gradients.get(name, passes)
        total += 2 * math.prod(shape) * side**2 * (2 if name in gradients else 3) * of_kernel
        if shape[:2] == (3, 3) and side > 8:
            # On a CPU the kernel gradient is a matrix product over rows padded on both sides.
            total += 2 * math.prod(shape) * side * 2 * of_kernel
    return total


def sharded_bytes(config: RedNetConfig, fsdp: int, *, unused: bool) -> int:
    """Returns the bytes of the parameters sharded over `fsdp`.

    Parameters that single images do not use (`unused`) are not gathered. Their gradients are zeros,
    which XLA knows to be replicated only if the arrays are small.
    """
    return sum(
        4 * math.prod(shape)
        for name, shape in parameters(config)
        if sharding.partition_spec(f"params/{name}", shape, fsdp) != sharding.P()
        and (unused or not name.startswith("temporal"))
    )


def test_published_counts_are_those_of_the_network(published: dict[str, Any]) -> None:
    config = RedNetConfig.preset("eccv_vgg", identities=1_654)
    assert published["parameters"] == sum(math.prod(shape) for _, shape in parameters(config))
    for row in published["rows"]:
        assert row["devices"] == row["data"] * row["fsdp"]
        assert row["tflop"] == pytest.approx(
            row["batch"] * flops_of_a_face(config) / 1e12, rel=1e-3
        )
        used = sharded_bytes(config, row["fsdp"], unused=False) if row["fsdp"] > 1 else 0
        # Plus a few losses per face, for the metrics.
        losses = 8 * 4 * row["devices"] * row["batch"]
        assert used <= 1e6 * row["all_gather_mb"] <= used + losses
        assert row["all_to_all_count"] == row["collective_permute_count"] == 0


def test_published_steps_fit_in_memory_and_reach_the_target_efficiency(
    published: dict[str, Any],
) -> None:
    """The efficiency on 64 devices is 90 %, even without overlap."""
    for chip in published["largest_batch"].values():
        assert chip["memory"] <= chip["limit"]
    most = published["largest_batch"]["h100"]["batch"]
    (row,) = (
        row
        for row in published["rows"]
        if (row["devices"], row["batch"], row["batch_statistics"]) == (64, most, "device")
    )
    for at in row["h100"]["at"]:
        assert 90 < at["serial_efficiency"] <= at["overlapped_efficiency"] <= 100


def test_the_page_agrees_with_the_json(published: dict[str, Any]) -> None:
    spec = importlib.util.spec_from_file_location("scaling", EXPERIMENTS / "scaling.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (EXPERIMENTS / "scaling.md").read_text() == module.page(published)


def test_the_search_finds_the_largest_batch_that_fits() -> None:
    measured: list[int] = []

    def memory(batch: int) -> int:
        measured.append(batch)
        # Superlinear at first, as if small buffers were shared.
        return 1_000 + 10 * batch - 500 // batch

    batch = largest_batch(memory, 2_345, (20, 40))
    assert batch % 8 == 0 and memory(batch) <= 2_345 < memory(batch + 8)
    assert len(set(measured)) <= 5
    with pytest.raises(RednetError, match="8 images needs more than 1e\\+03 bytes"):
        largest_batch(memory, 1_000, (20, 40))


def test_times_of_collectives_by_arithmetic() -> None:
    node, everywhere, across = tuple(range(8)), tuple(range(64)), tuple(range(0, 64, 8))
    large = 10**9
    gather = H100.communication_seconds(Collective("all-gather", large, node))
    assert gather == pytest.approx(6.8e-6 + 7 * 0.6e-6 + 7 / 8 * large / 450e9)
    # Two rounds; eight network cards of a node send at once, or one.
    reduce = H100.communication_seconds(Collective("all-reduce", large, everywhere))
    hops = 7 * 0.6e-6 + 3 * 5e-6
    assert reduce == pytest.approx(6.8e-6 + 2 * (hops + 63 / 64 * large / 400e9))
    reduce = H100.communication_seconds(Collective("all-reduce", large, across))
    assert reduce == pytest.approx(6.8e-6 + 2 * (3 * 5e-6 + 7 / 8 * large / 50e9))
    exchange = H100.communication_seconds(Collective("all-to-all", large, everywhere))
    assert exchange == pytest.approx(6.8e-6 + hops + 63 / 64 * large / 50e9)
    torus = TPU_V5P.communication_seconds(Collective("reduce-scatter", large, everywhere))
    assert torus == pytest.approx(6e-6 + 63 / 64 * large / 200e9)


def test_efficiency_is_the_ratio_of_the_times_on_one_device_and_many(
    narrow: Callable[..., RedNetConfig],
) -> None:
    flops = 10**12
    alone = CompiledStep([Operation(Cost(flops, Counter()), ())], 10**9, 1.0)
    first = Experiment("alone", narrow("eccv_vgg"), (Stage(batch=4),))
    many = dataclasses.replace(first, stages=(Stage(batch=32),), mesh=MeshConfig(fsdp=8))
    for at in mesh_row(first, alone, alone)["h100"]["at"]:
        assert at["serial_efficiency"] == at["overlapped_efficiency"] == 100
    # Three reductions: two overlap with the second half of the arithmetic, one follows it.
    collective = Collective("all-reduce", 10**8, tuple(range(8)))
    half, sent = Cost(flops // 2, Counter()), Cost(0, Counter({collective: 1}))
    operations = [
        Operation(half, ()),
        Operation(half, (0,)),
        *(Operation(sent, (place,)) for place in (0, 0, 1)),
    ]
    row = mesh_row(many, CompiledStep(operations, 10**9, 1.0), alone)
    assert (row["batch"], row["all_reduce_mb"], row["all_reduce_count"]) == (4, 300, 3)
    reduction = 1e3 * H100.communication_seconds(collective)
    assert row["h100"]["communication_ms"] == pytest.approx(3 * reduction)
    for share, at in zip(SHARES, row["h100"]["at"], strict=True):
        compute = 1e3 * flops / H100.peak / share
        hidden = compute + max(reduction, 3 * reduction - compute / 2)
        assert at["serial_ms"] == pytest.approx(compute + 3 * reduction)
        assert at["overlapped_ms"] == pytest.approx(hidden)
        assert at["serial_efficiency"] == pytest.approx(100 * compute / at["serial_ms"])
        assert at["overlapped_efficiency"] == pytest.approx(100 * compute / hidden)


@pytest.mark.slow
def test_a_step_gathers_once_for_all_passes(
    narrow: Callable[..., RedNetConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharding, "SMALLEST", 64)
    # More passes than are unrolled.
    config = narrow("eccv_vgg", feedback_steps=6)
    stage = Stage(
        data=DataConfig(cached_size=64), optimiser=FROZEN, batch=16, batch_statistics="device"
    )
    step = compiled_step(Experiment("narrow", config, (stage,), mesh=MeshConfig(2, 4)))
    total = total_cost(operation.cost for operation in step.operations)
    assert total.flops == pytest.approx(2 * flops_of_a_face(config), rel=0.05)
    moved = Counter[str]()
    for collective, times in total.collectives.items():
        moved[collective.kind] += times * collective.bytes
    # Plus the losses of 16 faces, for the metrics.
    used = sharded_bytes(config, 4, unused=False)
    assert used <= moved["reduce-scatter"] <= sharded_bytes(config, 4, unused=True)
    assert used <= moved["all-gather"] < used + 4_096
    assert set(moved) <= {"all-reduce", "all-gather", "reduce-scatter"}
    # A gather, a scatter and a reduction over `data` for the encoder, the decoder, the heads and
    # f_tRNN; a reduction of all other parameters, a gather of the losses, and two gradient norms.
    assert sum(total.collectives.values()) <= 4 * 3 + 1 + 1 + 2
