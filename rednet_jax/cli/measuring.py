"""Commands that measure the library on this machine.

The docstring of a command's function is its help. Imports are inside the functions, so that
`rednet --help` does not wait for JAX.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rednet_jax.cli import shared, values
from rednet_jax.cli.output import print_result, progress


def add_commands(commands: shared.Commands) -> None:
    """Adds `bench` with its subcommands."""
    benchmarks = commands.group(
        "bench", "Measure speed, detection and tracking on this machine.", "BENCHMARK"
    )
    with benchmarks.add("scan", bench_scan) as command:
        shared.add_json(command)
    with benchmarks.add("startup", bench_startup) as command:
        # It measures compilation; the processes that it starts have their own caches.
        command.set_defaults(compilation_cache=False)
        shared.add_json(command)
    with benchmarks.add("input", bench_input) as command:
        shared.add_json(command)
    with benchmarks.add("scaling", bench_scaling) as command:
        shared.add_json(command)
    with benchmarks.add("track", bench_track) as command:
        shared.add_network(command, feedback_steps=1, checkpoint="compact_video")
        shared.add_json(command)
    with benchmarks.add("detect", bench_detect) as command:
        data = command.add_argument_group("data")
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
        shared.add_json(command)
    with benchmarks.add("exports", bench_exports) as command:
        network = command.add_argument_group("network")
        shared.add_checkpoint(network)
        network.add_argument(
            "--feedback-steps",
            type=values.whole_numbers,
            default=(1, 3),
            metavar="K,K",
            help="numbers of feedback passes to measure (default: 1,3)",
        )
        shared.add_data_dir(command.add_argument_group("data"))
        output = command.add_argument_group("output")
        output.add_argument(
            "--out",
            required=True,
            type=Path,
            metavar="DIR",
            help="folder for the exports; existing ones are not written again (required)",
        )
        shared.add_json_option(output)
    with benchmarks.add("steadiness", bench_steadiness) as command:
        shared.add_network(command, feedback_steps=1, checkpoint="compact_video")
        data = command.add_argument_group("data")
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
        shared.add_json(command)
    with benchmarks.add("identities", bench_identities) as command:
        data = command.add_argument_group("data")
        data.add_argument(
            "--data",
            default="300vw",
            metavar="NAME",
            help="a prepared data set of clips, each of one person in one shot "
            "(default: %(default)s)",
        )
        data.add_argument(
            "--splits",
            type=values.names,
            default=("train", "validation"),
            metavar="S,S",
            help="its splits (default: train,validation)",
        )
        shared.add_data_dir(data)
        shared.add_json(command)
    with benchmarks.add("layers", bench_layers) as command:
        network = command.add_argument_group("network")
        shared.add_checkpoint(network)
        shared.add_batch(network)
        shared.add_json(command)
    with benchmarks.add("torch", bench_torch) as command:
        network = command.add_argument_group("network")
        shared.add_checkpoint(network)
        shared.add_batch(network)
        shared.add_all_steps(network, "measure")
        shared.add_json(command)


def _check_outputs(args: argparse.Namespace) -> None:
    """Checks the outputs of a benchmark, of which each has only some of these options."""
    from rednet_jax.media.images import ENDINGS

    given = vars(args)
    inputs = [shared.weights_file(given.get("checkpoint"))]
    if "data_dir" in given:
        inputs.append(shared.prepared_folder(given.get("data", "300w"), args.data_dir))
    for folder in filter(None, (given.get("infants"), given.get("without_faces"))):
        inputs += shared.files_of(folder, (*ENDINGS, ".pts", ".csv"))
    shared.check_outputs([("--json", args.json)], inputs, folders=[("--out", given.get("out"))])


def bench_scan(args: argparse.Namespace) -> int:
    """Compare the nested lax.scans with the same loops unrolled, and time one frame.

    Example: rednet bench scan --json scan.json
    """
    from rednet_jax.bench.scan import bench_scan

    _check_outputs(args)
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

    _check_outputs(args)
    origin = provenance("rednet bench startup --json experiments/results/startup.json", seed=0)
    print_result({**bench_startup(), "provenance": origin}, args.json)
    return 0


def bench_input(args: argparse.Namespace) -> int:
    """Time the input pipeline (reading and augmentation), alone and with training steps.

    Example: rednet bench input --json input.json
    """
    from rednet_jax.bench.input import bench_input

    _check_outputs(args)
    print_result(bench_input(), args.json)
    return 0


def bench_scaling(args: argparse.Namespace) -> int:
    """Count the operations and communicated bytes of a training step on 1, 8, 64 and 256 devices.

    The counts are of the compiled program; the times on H100 and TPU v5p are estimates. Takes
    minutes.

    Example: rednet bench scaling --json scaling.json
    """
    from rednet_jax.bench.scaling import bench_scaling

    _check_outputs(args)
    with progress("mesh") as report:
        result = bench_scaling(report)
    print_result(result, args.json)
    return 0


def bench_track(args: argparse.Namespace) -> int:
    """Time one frame of video: decoding, detection, network, encoding, and end to end.

    The clip is generated from moving copies of a portrait.

    Example: rednet bench track --json track.json
    """
    from rednet_jax.bench.track import bench_track

    _check_outputs(args)
    print_result(bench_track(args.checkpoint, feedback_steps=args.feedback_steps), args.json)
    return 0


def bench_detect(args: argparse.Namespace) -> int:
    """Measure the detector's recall, false alarms and time by roll, size and brightness of faces.

    The images are made from the validation images of 300-W.

    Example: rednet bench detect --data-dir DIR --json detect.json
    """
    from rednet_jax.bench.detect import bench_detect

    _check_outputs(args)
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

    Missing exports are written first, which takes minutes each.

    Example: rednet bench exports --out exported --json exports.json
    """
    from rednet_jax.bench.exports import bench_exports

    _check_outputs(args)
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
    """Measure error and jitter in labelled clips, with and without state carried between frames.

    Example: rednet bench steadiness --data-dir DIR --json steadiness.json
    """
    from rednet_jax.bench.steadiness import bench_steadiness

    _check_outputs(args)
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


def bench_identities(args: argparse.Namespace) -> int:
    """Count cuts and changes of person: those found, and those reported where there are none.

    The rules run on labelled clips, clean and corrupted, and on pairs of clips, one after the
    other.

    Example: rednet bench identities --data-dir DIR --json identities.json
    """
    from rednet_jax.bench.identities import bench_identities

    _check_outputs(args)
    with progress("clip") as report:
        result = bench_identities(args.data, args.splits, data_dir=args.data_dir, report=report)
    print_result(result, args.json)
    return 0


def bench_layers(args: argparse.Namespace) -> int:
    """Time the parts and layers of one pass, and a matrix product for comparison.

    Run nothing else at the same time.

    Example: rednet bench layers --json layers.json
    """
    from rednet_jax.bench.layers import bench_layers

    _check_outputs(args)
    with progress("batch") as report:
        result = bench_layers(args.checkpoint, batches=args.batch, report=report)
    print_result(result, args.json)
    return 0


def bench_torch(args: argparse.Namespace) -> int:
    """Time inference and the training step in JAX and in PyTorch, after comparing their outputs.

    Needs the extra [torch]. MediaPipe's face mesh and dlib are also timed if they are installed.
    Run nothing else at the same time; compilation takes minutes.

    Example: rednet bench torch --json torch.json
    """
    from rednet_jax.bench.pytorch import bench_torch

    _check_outputs(args)
    with progress("row") as report:
        result = bench_torch(
            args.checkpoint,
            batches=args.batch,
            feedback_steps=args.feedback_steps,
            report=report,
        )
    print_result(result, args.json)
    return 0
