"""How a training step should scale to 8, 64 and 256 devices: counts and an estimate.

    python experiments/scaling.py

does what `rednet bench scaling` does, and writes experiments/results/scaling.json and, made from
it, experiments/scaling.md. Nothing is trained. It compiles 7 programs: a minute of a CPU each, or
two.
"""

from __future__ import annotations

import argparse
import math
import textwrap
from pathlib import Path
from typing import Any

from rednet_jax.bench.chips import H100, TPU_V5P
from rednet_jax.bench.hlo import KINDS
from rednet_jax.bench.scaling import CHIPS, FILLED, SHARES, bench_scaling
from rednet_jax.files import write_json, write_text

RESULT = Path(__file__).parent / "results" / "scaling.json"
PAGE = Path(__file__).parent / "scaling.md"


def page(result: dict[str, Any]) -> str:
    """The page in Markdown; every number measured is one of the JSON's."""
    rows = result["rows"]
    largest = result["largest_batch"]
    many = largest["h100"]["batch"]
    few = min(row["batch"] for row in rows)
    seen = [kind for kind in KINDS if any(row[f"{kind.replace('-', '_')}_count"] for row in rows)]
    counted = _table(
        [
            "devices",
            "mesh",
            "batch_statistics",
            "images per device",
            "TFLOP per device",
            "memory, GB",
            *(f"{kind}, MB" for kind in seen),
        ],
        [
            [
                str(row["devices"]),
                f"data {row['data']}, fsdp {row['fsdp']}",
                row["batch_statistics"] if row["devices"] > 1 else "-",
                str(row["batch"]),
                f"{row['tflop']:.2f}",
                f"{row['memory'] / 1e9:.1f}",
                *(_collectives(row, kind.replace("-", "_")) for kind in seen),
            ]
            for row in rows
        ],
    )
    fits = _table(
        ["", "images per device", "memory of the step, GB", "limit, GB"],
        [
            [
                CHIPS[name].name,
                str(one["batch"]),
                f"{one['memory'] / 1e9:.1f}",
                f"{one['limit'] / 1e9:.1f}",
            ]
            for name, one in largest.items()
        ],
    )
    at_64 = {(row["batch"], row["batch_statistics"]): row for row in rows if row["devices"] == 64}
    goal = at_64[many, "device"]["h100"]["at"]
    small = at_64[few, "device"]["h100"]["at"]
    waits = at_64[many, "global"]["h100"]["at"]
    # The collectives of "device" do not grow with the batch, but for a few numbers of each image.
    an_image = small[0]["arithmetic_ms"] / few
    enough = math.ceil(9 * at_64[few, "device"]["h100"]["communication_ms"] / an_image)
    paragraphs = [
        f"""
        The step is that of the image stage of `eccv_vgg_300vw.py` in {result["compute"]}: network
        `{result["network"]}`, K = {result["feedback_steps"]}, {result["parameters"] / 1e6:.1f} M
        parameters, augmentation, the forward and backward pass, AdamW and the averaged weights. The
        batch grows with the number of devices (weak scaling). Parameters, their average and the
        optimiser's moments are sharded over the axis `fsdp`, the 8 devices of a node.
        """,
        f"""
        **On 64 H100 with {many} images per device and `batch_statistics="device"` the estimated
        efficiency is {_interval(goal)} %**: the lower end with arithmetic at the published peak and
        no collective hidden behind it, the upper end with arithmetic at {SHARES[1]:.0%} of the peak
        and collectives run beside arithmetic where the program's dependences allow. With
        `batch_statistics="global"` it is {_interval(waits)} %, and with {few} images per device
        and `"device"` {_interval(small)} %. A batch of 64 x {many} = {64 * many:,} images is
        larger than the training split of 300-W (3,148 images), and whether the network trains as
        well with it was not tried. The lower end of the interval reaches 90 % from {enough} images
        per device, a batch of {64 * enough:,}: the time of the arithmetic is then nine times that
        of the collectives, which do not grow with the batch.
        """,
        """
        ## What is counted
        """,
        """
        The step is compiled ahead of time for virtual CPU devices, from shapes alone: no array is
        allocated and nothing is run. FLOPs, collectives and memory are those of one device. FLOPs
        and collectives are counted in the text of the compiled program, loops multiplied by their
        trip counts. Numbers of collectives are in brackets. MB are 10^6 bytes of the whole array;
        for an all-gather, of its result.
        """,
        counted,
        """
        FLOPs are those of convolutions and matrix products, two for each multiplication, with
        padding. The kernel gradients of a CPU are matrix products over padded rows, 2 % of all
        arithmetic more than the convolutions of a GPU or TPU. Each step all-gathers the parameters
        once, in one collective for each part of the network (encoder, decoder, heads). The
        gradients of all passes are summed on the device, then reduce-scattered over `fsdp` and all-
        reduced over `data`, again once for each part. The gradients of biases and normalisation,
        with `"device"` together with the running averages, take one all-reduce. The losses take one
        all-gather, and the norm of the gradient, for the clip and for the metrics, an all-reduce
        each. With `"global"` every batch normalisation in addition all-reduces the moments of the
        batch, a few kB, in the forward and in the backward pass; each layer waits for that.
        """,
        """
        ## How many images fit
        """,
        f"""
        The batch of a device is the largest multiple of 8 whose step takes at most {FILLED:.0%} of
        the device's memory, by the compiled program's memory analysis on one device, which holds
        all parameters and moments: arguments, results and temporary buffers, donated buffers once.
        The H100's batch was compiled; that of the other chip follows from it and {few} images by a
        straight line, {largest["h100"]["an_image"] / 1e6:.0f} MB for each image.
        """,
        fits,
        """
        Limits of that: it is the buffer assignment of XLA's CPU backend. That backend computes
        convolutions in float32, so part of the activations are counted with 4 bytes where a GPU or
        TPU stores 2, and the batch that really fits is likely larger. It also rematerialises
        nothing beyond what the step itself does (a pass keeps the results of its convolutions and
        computes the rest again), and leaves out workspaces of cuDNN, padding of TPU layouts, and
        fragmentation. The meshes below use the H100's batch.
        """,
        """
        ## Estimate
        """,
        f"""
        **An estimate, not a measurement: no such machine was used.** Efficiency is the time of the
        arithmetic of a step on one device over the time of the step on many, with as many images a
        device. *serial*: the sum of arithmetic and all collectives, nothing hidden. *overlapped*: a
        schedule of the compiled program in which a device computes one operation at a time and runs
        one collective at a time, and each starts when its operands are ready; of several that could
        start, the one with the longest path to the end of the program does. Both are given with
        arithmetic at the published peak, which no network reaches, and at {SHARES[1]:.0%} of it,
        which is an assumption: slower arithmetic makes the share of communication smaller. Times
        in milliseconds.
        """,
        *(_estimate(rows, name) for name in CHIPS),
        """
        In the overlapped schedule, this communication does not overlap with arithmetic: the
        all-gather of the parameters before the first layer, the reduction of the gradients that are
        complete only at the end of the backward pass (the passes share weights, so a gradient is
        complete when the first pass has been differentiated), the norm of the gradient, and with
        `"global"` every moment of the forward pass.
        """,
        """
        Assumed in both: large collectives in rings at the links' whole bandwidth, and each with its
        start-up time and hops. Collectives that run beside arithmetic are taken to slow neither
        down; on a GPU they share its memory bandwidth and some of its multiprocessors.
        """,
        f"""
        | | {H100.name} | {TPU_V5P.name} |
        |---|---|---|
        | peak, bfloat16 dense
         | {H100.peak / 1e12:.1f} TFLOP/s: NVIDIA H100 datasheet, SXM, half of that with sparsity
         | {TPU_V5P.peak / 1e12:.0f} TFLOP/s: cloud.google.com/tpu/docs/v5p |
        | memory
         | {H100.memory / 1e9:.0f} GB: the same
         | {TPU_V5P.memory / 1e9:.0f} GB: the same |
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
        ## What is not included
        """,
        """
        The program is the one that XLA's CPU backend makes. Which collectives there are is written
        in the step itself (`train/collectives.py`), so other backends have the same, but they may
        join or split them; the CPU backend's own pass that joins all-reduces is switched off here,
        because a joined one waits for the last gradient. The gradient of a convolution has another
        form on the CPU (`model/convolutions.py`), of as many FLOPs. Time for memory-bound work
        (normalisation, pooling, augmentation, AdamW), reading data, and hosts that wait for each
        other are left out.
        """,
        f"""
        Made by `{result["command"]}` at commit `{result["git_commit"][:12]}` with jax
        {result["versions"]["jax"]}; the numbers are in `results/scaling.json`.
        """,
    ]
    return "# Estimated scaling of training\n\n" + "\n\n".join(map(_paragraph, paragraphs)) + "\n"


def _interval(at: list[dict[str, float]]) -> str:
    low = min(one["serial_efficiency"] for one in at)
    high = max(one["overlapped_efficiency"] for one in at)
    return f"{low:.0f} to {high:.0f}"


def _paragraph(text: str) -> str:
    lines = textwrap.dedent(text).strip()
    if lines.startswith("|"):
        # A row of a table is one line.
        return lines.replace("\n ", " ")
    return "\n".join(textwrap.wrap(lines, 100, break_on_hyphens=False))


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _collectives(row: dict[str, Any], kind: str) -> str:
    return f"{row[f'{kind}_mb']:.1f} ({row[f'{kind}_count']})"


def _estimate(rows: list[dict[str, Any]], chip: str) -> str:
    """A table with a row for each program and share of the peak."""
    return _table(
        [
            f"{CHIPS[chip].name} (estimate)",
            "batch_statistics",
            "images per device",
            "share of peak",
            "arithmetic",
            "collectives",
            "step, serial to overlapped",
            "efficiency, serial to overlapped, %",
        ],
        [
            [
                str(row["devices"]),
                row["batch_statistics"],
                str(row["batch"]),
                f"{at['peak']:.0%}",
                f"{at['arithmetic_ms']:.2f}",
                f"{row[chip]['communication_ms']:.2f}",
                f"{at['serial_ms']:.2f} to {at['overlapped_ms']:.2f}",
                f"{at['serial_efficiency']:.0f} to {at['overlapped_efficiency']:.0f}",
            ]
            for row in rows
            if row["devices"] > 1
            for at in row[chip]["at"]
        ],
    )


def main() -> None:
    """Counts, and writes both files."""
    result = bench_scaling() | {"command": "python experiments/scaling.py"}
    write_json(RESULT, result)
    write_text(PAGE, page(result))
    print(f"{RESULT}\n{PAGE}")


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    main()
