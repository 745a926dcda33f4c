"""How a training step should scale to 8, 64 and 256 devices: counts and an estimate.

    python experiments/scaling.py

does what `rednet bench scaling` does, and writes experiments/results/scaling.json and, made from
it, experiments/scaling.md. Nothing is trained; it takes some minutes, most of them for compiling.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from rednet_jax.bench.chips import H100, TPU_V5P
from rednet_jax.bench.hlo import KINDS
from rednet_jax.bench.scaling import bench_scaling
from rednet_jax.files import write_text

RESULT = Path(__file__).parent / "results" / "scaling.json"
PAGE = Path(__file__).parent / "scaling.md"


def page(result: dict[str, Any]) -> str:
    """The page in Markdown; every number measured is one of the JSON's."""
    rows = result["meshes"]
    largest = rows[-1]
    seen = [kind for kind in KINDS if any(row[f"{kind.replace('-', '_')}_count"] for row in rows)]
    counted = _table(
        ["devices", "mesh", "faces a device", "TFLOP a device", *(f"{kind}, MB" for kind in seen)],
        [
            [
                str(row["devices"]),
                f"data {row['data']}, fsdp {row['fsdp']}",
                str(row["batch"]),
                f"{row['tflop']:.3f}",
                *(_collectives(row, kind.replace("-", "_")) for kind in seen),
            ]
            for row in rows
        ],
    )
    estimates = "\n\n".join(_estimate(rows, chip) for chip in ("h100", "v5p"))
    paragraphs = [
        f"""
        The step is that of the picture stage of `eccv_vgg_300vw.py` in {result["compute"]}: network
        `{result["network"]}`, K = {result["feedback_steps"]}, {result["parameters"] / 1e6:.1f} M
        parameters, drawing, both directions of all passes, AdamW and the averaged weights. The
        batch grows with the devices (weak scaling). Parameters, their average and moments lie over
        the axis `fsdp`, which stays within a node of eight.
        """,
        """
        ## What is counted
        """,
        """
        The step is compiled ahead of time for virtual CPU devices, from shapes alone: nothing is
        allocated and nothing run. FLOPs and collectives are read from the text of the compiled
        program, as one device runs it, loops multiplied by how often they run. In brackets: how
        many collectives. MB are 10^6 bytes of the whole array, of an all-gather of its result.
        """,
        counted,
        f"""
        FLOPs are those of convolutions and matrix products, two a multiplication; padding counts.
        That is three times the forward passes, less the gradients in the picture and in the map
        that goes back. Each large parameter is gathered once a step, and its gradient, summed over
        all passes, is reduced once to where it lies and then over `data`. Of the
        {largest["all_reduce_count"]} all-reduces on {largest["devices"]} devices all but a few are
        the moments of batch normalisation, which are those of the whole batch: a few kB each, and
        each waits for the layer before and holds up the next.
        """,
        """
        ## Estimate
        """,
        """
        **An estimate, not a measurement: no such machine was used.** Efficiency is the time of a
        step on one device over that on many, with as many faces a device.
        """,
        estimates,
        """
        Assumed: arithmetic at the published bfloat16 peak, which no network reaches, and nothing
        for memory; collectives one after the other, none hidden behind arithmetic; large arrays in
        rings at the links' whole bandwidth; each collective with the time that its start and its
        hops take. The step is therefore too short, and the efficiency most likely too low:
        arithmetic at 40 % of the peak takes 2.5 times as long. Links that are shared or busy, and
        what starting a collective takes on TPU, would lower it.
        """,
        f"""
        | | {H100.name} | {TPU_V5P.name} |
        |---|---|---|
        | peak, bfloat16 dense
         | {H100.peak / 1e12:.1f} TFLOP/s: NVIDIA H100 datasheet, SXM, half of that with sparsity
         | {TPU_V5P.peak / 1e12:.0f} TFLOP/s: cloud.google.com/tpu/docs/v5p |
        | a device sends to its neighbours
         | {H100.link / 1e9:.0f} GB/s within a node of {H100.node}: the same, NVLink, one direction
         | {TPU_V5P.link / 1e9:.0f} GB/s: the same, ICI, one direction of two of six links: a ring |
        | and between nodes
         | {H100.network / 1e9:.0f} GB/s: NVIDIA DGX H100 datasheet, one ConnectX-7 a GPU
         | one torus joins all |
        | start of a collective
         | {H100.start * 1e6:.1f} microseconds: NCCL's `ncclTunerConstantsDefaults`, tree, LL
         | none published |
        | a hop
         | {H100.hop * 1e6:.1f} microseconds in a node, {H100.network_hop * 1e6:.1f} for each
         doubling of the nodes: the same
         | {TPU_V5P.hop * 1e6:.0f} microsecond: jax-ml.github.io/scaling-book; half of each side of
         a cube |
        """,
        """
        ## What this does not tell
        """,
        """
        The program is the one that XLA's CPU backend makes. Which collectives there are is written
        in the step itself (`train/parallel.py`), so other backends have the same, but they may
        join small ones into one, split large ones, and run them beside arithmetic. The gradient of
        a convolution has another form on the CPU (`model/layers.py`), of as many FLOPs. Reading
        data, and hosts that wait for each other, are left out.
        """,
        f"""
        Made by `{result["command"]}` at commit `{result["git_commit"][:12]}` with jax
        {result["versions"]["jax"]}; the numbers are in `results/scaling.json`.
        """,
    ]
    return "# How training should scale\n\n" + "\n\n".join(map(_paragraph, paragraphs)) + "\n"


def _paragraph(text: str) -> str:
    lines = textwrap.dedent(text).strip()
    if lines.startswith("|"):
        # A row of a table is one line.
        return lines.replace("\n ", " ")
    return "\n".join(textwrap.wrap(lines, 100))


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _collectives(row: dict[str, Any], kind: str) -> str:
    return f"{row[f'{kind}_mb']:.1f} ({row[f'{kind}_count']})"


def _estimate(rows: list[dict[str, Any]], chip: str) -> str:
    name = {"h100": H100.name, "v5p": TPU_V5P.name}[chip]
    parts = ("compute_ms", "communication_ms", "step_ms")
    return _table(
        [
            f"{name} (estimate)",
            "compute, ms",
            "communication, ms",
            "step, ms",
            "efficiency, %",
        ],
        [
            [
                str(row["devices"]),
                *(f"{row[f'{chip}_estimated_{part}']:.2f}" for part in parts),
                f"{row[f'{chip}_estimated_efficiency']:.0f}",
            ]
            for row in rows
        ],
    )


def main() -> None:
    """Counts, and writes both files."""
    result = bench_scaling() | {"command": "python experiments/scaling.py"}
    write_text(RESULT, json.dumps(result, indent=2) + "\n")
    write_text(PAGE, page(result))
    print(f"{RESULT}\n{PAGE}")


if __name__ == "__main__":
    main()
