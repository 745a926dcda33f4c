"""Commands that measure the library on this machine.

The first lines of a docstring are the command's help. Each function imports what it calls: nothing
here may import jax before it is needed, so that `rednet --help` answers at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rednet_jax.cli import shared, values
from rednet_jax.cli.output import print_result, progress


def add_commands(commands: shared.Commands) -> None:
    """Adds `bench`, which has commands itself."""
    what = commands.group("bench", "Measure the speed of the library on this machine.", "WHAT")
    with what.add("scan", bench_scan) as one:
        shared.add_json(one)
    with what.add("startup", bench_startup) as one:
        # Times of compiling are measured; the processes that it starts have caches of their own.
        one.set_defaults(compilation_cache=False)
        shared.add_json(one)
    with what.add("input", bench_input) as one:
        shared.add_json(one)
    with what.add("scaling", bench_scaling) as one:
        shared.add_json(one)
    with what.add("track", bench_track) as one:
        shared.add_network(one, feedback_steps=1, checkpoint="compact_video")
        shared.add_json(one)
    with what.add("detect", bench_detect) as one:
        data = one.add_argument_group("data")
        data.add_argument(
            "--infants",
            type=Path,
            metavar="DIR",
            help="labelled photographs of infants: NAME.jpg, NAME.pts and groups.csv "
            "(default: not measured)",
        )
        data.add_argument(
            "--without-faces",
            type=Path,
            metavar="DIR",
            help="images without a face, added to 200 generated ones (default: none)",
        )
        data.add_argument(
            "--images", type=int, metavar="N", help="images of each set (default: all)"
        )
        shared.add_data_dir(data)
        shared.add_json(one)
    with what.add("exports", bench_exports) as one:
        network = one.add_argument_group("network")
        shared.add_checkpoint(network)
        network.add_argument(
            "--feedback-steps",
            type=values.whole_numbers,
            default=(1, 3),
            metavar="K,K",
            help="numbers of feedback passes to measure (default: 1,3)",
        )
        shared.add_data_dir(one.add_argument_group("data"))
        output = one.add_argument_group("output")
        output.add_argument(
            "--out",
            required=True,
            type=Path,
            metavar="DIR",
            help="folder for the exports; those that it has are not written again (required)",
        )
        shared.add_json_option(output)
    with what.add("steadiness", bench_steadiness) as one:
        shared.add_network(one, feedback_steps=1, checkpoint="compact_video")
        data = one.add_argument_group("data")
        data.add_argument(
            "--data",
            default="300vw",
            metavar="NAME",
            help="a prepared data set of clips (default: %(default)s)",
        )
        data.add_argument(
            "--split", default="validation", metavar="S", help="its split (default: %(default)s)"
        )
        shared.add_data_dir(data)
        shared.add_json(one)
    with what.add("layers", bench_layers) as one:
        network = one.add_argument_group("network")
        shared.add_checkpoint(network)
        shared.add_batch(network)
        shared.add_json(one)
    with what.add("torch", bench_torch) as one:
        network = one.add_argument_group("network")
        shared.add_checkpoint(network)
        shared.add_batch(network)
        shared.add_all_steps(network, "measure")
        shared.add_json(one)


def bench_scan(args: argparse.Namespace) -> int:
    """Compare the nested lax.scans with the same loops unrolled, and time one frame.

    Example: rednet bench scan --json scan.json
    """
    from rednet_jax.bench.scan import bench_scan

    print_result(bench_scan(), args.json)
    return 0


def bench_startup(args: argparse.Namespace) -> int:
    """Time the start of commands, and compilation by number of passes and frames.

    Each command runs in a new process, without and then with the compilation cache. Takes
    minutes; run nothing else at the same time.

    Example: rednet bench startup --json startup.json
    """
    from rednet_jax.bench.startup import bench_startup
    from rednet_jax.evaluate.provenance import provenance

    origin = provenance("rednet bench startup --json experiments/results/startup.json", seed=0)
    print_result({**bench_startup(), "provenance": origin}, args.json)
    return 0


def bench_input(args: argparse.Namespace) -> int:
    """Time the input pipeline (reading and augmentation), alone and with training steps.

    Example: rednet bench input --json input.json
    """
    from rednet_jax.bench.input import bench_input

    print_result(bench_input(), args.json)
    return 0


def bench_scaling(args: argparse.Namespace) -> int:
    """Count the operations and bytes sent of a training step on 1, 8, 64 and 256 devices.

    They are counted in the compiled program; the times on H100 and TPU v5p are estimates. Takes
    minutes.

    Example: rednet bench scaling --json scaling.json
    """
    from rednet_jax.bench.scaling import bench_scaling

    with progress("mesh") as report:
        result = bench_scaling(report)
    print_result(result, args.json)
    return 0


def bench_track(args: argparse.Namespace) -> int:
    """Time one frame of video: decoding, detection, network, encoding, and end to end.

    The clip is generated: copies of a portrait that move.

    Example: rednet bench track --json track.json
    """
    from rednet_jax.bench.track import bench_track

    print_result(bench_track(args.checkpoint, feedback_steps=args.feedback_steps), args.json)
    return 0


def bench_detect(args: argparse.Namespace) -> int:
    """Measure the detector by roll, size and brightness of faces: found, false alarms, time.

    The images are made from the validation images of 300-W.

    Example: rednet bench detect --data-dir DIR --json detect.json
    """
    from rednet_jax.bench.detect import bench_detect

    with progress("image") as report:
        result = bench_detect(
            data_dir=args.data_dir,
            infants=args.infants,
            without_faces=args.without_faces,
            images=args.images,
            report=report,
        )
    print_result(result, args.json)
    return 0


def bench_exports(args: argparse.Namespace) -> int:
    """Time one frame in every export format, and in JAX itself.

    Exports that the folder does not have are written first, which takes minutes each.

    Example: rednet bench exports --out exported --json exports.json
    """
    from rednet_jax.bench.exports import bench_exports

    with progress("row") as report:
        result = bench_exports(
            args.checkpoint,
            out=args.out,
            feedback_steps=args.feedback_steps,
            data_dir=args.data_dir,
            report=report,
        )
    print_result(result, args.json)
    return 0


def bench_steadiness(args: argparse.Namespace) -> int:
    """Measure error and jitter in labelled clips, with and without state carried over frames.

    Example: rednet bench steadiness --data-dir DIR --json steadiness.json
    """
    from rednet_jax.bench.steadiness import bench_steadiness

    with progress("frame") as report:
        result = bench_steadiness(
            args.checkpoint,
            args.data,
            args.split,
            data_dir=args.data_dir,
            feedback_steps=args.feedback_steps,
            report=report,
        )
    print_result(result, args.json)
    return 0


def bench_layers(args: argparse.Namespace) -> int:
    """Time one pass by part and by layer, beside a matrix product of the same machine.

    Run nothing else at the same time.

    Example: rednet bench layers --json layers.json
    """
    from rednet_jax.bench.layers import bench_layers

    with progress("batch") as report:
        result = bench_layers(args.checkpoint, batches=args.batch, report=report)
    print_result(result, args.json)
    return 0


def bench_torch(args: argparse.Namespace) -> int:
    """Time inference and the training step in JAX and in PyTorch, after comparing outputs.

    Needs the extra [torch]. MediaPipe's face mesh is also timed if it is installed. Run nothing
    else at the same time; compilation takes minutes.

    Example: rednet bench torch --json torch.json
    """
    from rednet_jax.bench.pytorch import bench_torch

    with progress("row") as report:
        result = bench_torch(
            args.checkpoint,
            batches=args.batch,
            feedback_steps=args.feedback_steps,
            report=report,
        )
    print_result(result, args.json)
    return 0
