"""Published figures of two accelerators, and a model of the time of arithmetic and collectives.

The model assumes that collectives run in rings at the full bandwidth of the links, after a start-up
time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rednet_jax.bench.hlo import Collective


@dataclass(frozen=True)
class Chip:
    """An accelerator and its interconnect.

    Attributes:
        name: of the accelerator.
        peak: FLOP/s, dense bfloat16.
        memory: bytes per device.
        link: bytes/s that a device sends within a node.
        start: start-up time of a collective, seconds.
        hop: latency between neighbouring devices of a node, seconds.
        node: devices per node; None if links connect all devices in a three-dimensional torus.
        network: bytes/s that a device sends to other nodes.
        network_hop: latency between nodes, seconds.
    """

    name: str
    peak: float
    memory: float
    link: float
    start: float
    hop: float
    node: int | None = None
    network: float = math.inf
    network_hop: float = 0.0

    def compute_seconds(self, flops: float) -> float:
        """Returns the time of `flops` operations at the peak."""
        return flops / self.peak

    def communication_seconds(self, collective: Collective) -> float:
        """Returns the time of one collective of two or more devices."""
        devices = len(collective.group)
        nodes = len({number // self.node for number in collective.group}) if self.node else 1
        rounds = 2 if collective.kind == "all-reduce" else 1
        if self.node is None:
            # Half of each side of a cube with wrap-around links along all axes.
            hops = 1.5 * math.cbrt(devices) * self.hop
        else:
            hops = (devices / nodes - 1) * self.hop + math.log2(nodes) * self.network_hop
        bandwidth = self.link
        if nodes > 1:
            # One ring per device of the group in a node, each with its own network card.
            uses_rings = collective.kind in ("all-reduce", "all-gather", "reduce-scatter")
            rings = devices / nodes if uses_rings else 1
            bandwidth = min(self.link, rings * self.network)
        part = 1.0 if collective.kind == "collective-permute" else (devices - 1) / devices
        return self.start + rounds * (hops + part * collective.bytes / bandwidth)


H100 = Chip(
    name="H100",
    # NVIDIA H100 Tensor Core GPU datasheet, H100 SXM: 1,979 TFLOP/s with sparsity, half of it
    # without; 80 GB; NVLink 900 GB/s in both directions together.
    peak=989.5e12,
    memory=80e9,
    link=450e9,
    # NCCL's estimates for its tree algorithm with the protocol LL (github.com/NVIDIA/nccl,
    # ncclTunerConstantsDefaults), microseconds: 6.8 to start, 0.6 over NVLink and 5.0 over the
    # network; a hop for each further GPU of a node, and for each doubling of the nodes.
    start=6.8e-6,
    hop=0.6e-6,
    network_hop=5.0e-6,
    # NVIDIA DGX H100 datasheet: 8 GPUs, each with a ConnectX-7 at 400 Gb/s.
    node=8,
    network=50e9,
)

TPU_V5P = Chip(
    name="TPU v5p",
    # cloud.google.com/tpu/docs/v5p: 459 TFLOP/s; 95 GB; ICI 1,200 GB/s per chip over both
    # directions of six links, so 100 GB/s per link and direction; a ring uses two links per chip.
    peak=459e12,
    memory=95e9,
    link=200e9,
    # "How to Scale Your Model" (jax-ml.github.io/scaling-book): about a microsecond per hop. The
    # start-up time is not published.
    start=0.0,
    hop=1e-6,
)
