"""Commands that measure the library on this machine.

The first lines of a docstring are the command's help. Each function imports what it calls: nothing
here may import jax before it is needed, so that `rednet --help` answers at once.
"""

from __future__ import annotations

import argparse

from rednet_jax.cli.output import print_result, progress


def bench_scan(args: argparse.Namespace) -> int:
    """The nested scans against the same loops unrolled, and the time of one frame.

    Example: rednet bench scan --json scan.json
    """
    from rednet_jax.bench.scan import bench_scan

    print_result(bench_scan(), args.json)
    return 0


def bench_startup(args: argparse.Namespace) -> int:
    """How long commands take to start, and compile time against passes and frames.

    Each start is measured in fresh processes, without and with what the first one compiled.
    Takes minutes; nothing else should run.

    Example: rednet bench startup --json startup.json
    """
    from rednet_jax.bench.startup import bench_startup
    from rednet_jax.evaluate.provenance import provenance

    origin = provenance("rednet bench startup --json experiments/results/startup.json", seed=0)
    print_result({**bench_startup(), "provenance": origin}, args.json)
    return 0


def bench_input(args: argparse.Namespace) -> int:
    """Reading and augmenting faces, alone and in front of training steps.

    Example: rednet bench input --json input.json
    """
    from rednet_jax.bench.input import bench_input

    print_result(bench_input(), args.json)
    return 0


def bench_scaling(args: argparse.Namespace) -> int:
    """What a training step computes and sends on 1, 8, 64 and 256 devices; takes minutes.

    It is counted in the compiled program; its time on H100 and TPU v5p is an estimate.

    Example: rednet bench scaling --json scaling.json
    """
    from rednet_jax.bench.scaling import bench_scaling

    with progress("mesh") as report:
        result = bench_scaling(report)
    print_result(result, args.json)
    return 0


def bench_track(args: argparse.Namespace) -> int:
    """A frame of video: decoding, detection, network, encoding, and all of it end to end.

    The clip is drawn by code: a portrait, several times, moving.

    Example: rednet bench track --json track.json
    """
    from rednet_jax.bench.track import bench_track

    print_result(bench_track(args.checkpoint, feedback_steps=args.feedback_steps), args.json)
    return 0


def bench_detect(args: argparse.Namespace) -> int:
    """Faces found and aligned, rolled, small and dark; false alarms; milliseconds an image.

    Composites are made of the validation images of 300-W.

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
    """A frame's time in every form that a checkpoint is exported to, and in JAX itself.

    Exports what does not lie in the folder yet, which takes minutes each.

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
    """Error and jitter in labelled clips: each frame alone, and with what the network carries.

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
    """Where the time of one pass goes, by part and by layer, beside a matrix product.

    Nothing else should run. Layers are read from the network itself, whatever its shape.

    Example: rednet bench layers --json layers.json
    """
    from rednet_jax.bench.layers import bench_layers

    with progress("batch") as report:
        result = bench_layers(args.checkpoint, batches=args.batch, report=report)
    print_result(result, args.json)
    return 0


def bench_torch(args: argparse.Namespace) -> int:
    """Inference and the training step, in JAX and in PyTorch; outputs are compared first.

    Needs the extra [torch]. MediaPipe's face mesh is timed, too, if it is installed. Nothing else
    should run; compiling takes minutes.

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
