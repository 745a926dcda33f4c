"""Commands that write checkpoints for other frameworks, and read theirs.

The first lines of a docstring are the command's help. Each function imports what it calls: nothing
here may import jax before it is needed, so that `rednet --help` answers at once.
"""

from __future__ import annotations

import argparse


def export(args: argparse.Namespace) -> int:
    """Write a checkpoint in another form, and check it against the network it came from.

    Landmarks are compared on 64 crops and on four streams of 30 frames: real faces where 300w is
    prepared, else generated ones. If they differ, no file is left. A folder holds one export.

    Example: rednet export compact_video --to torch --out exported --feedback-steps 1
    """
    from rednet_jax.export.targets import export

    written = export(
        args.checkpoint,
        args.target,
        args.out,
        dtype=args.dtype,
        feedback_steps=args.feedback_steps,
        data_dir=args.data_dir,
        runtime=args.runtime,
    )
    for file in written["files"]:
        print(args.out / file)
    excused, farthest = written["points_excused"], written["max_difference_px_excused"]
    print(
        f"{written['points'] - excused} landmarks differ by at most "
        f"{written['max_difference_px']:.3g} crop pixels"
        + (
            f", {excused} by {farthest:.3g} where rounding moves the network as far"
            if excused
            else ""
        )
    )
    return 0


def import_(args: argparse.Namespace) -> int:
    """Make a checkpoint of weights from PyTorch, and say what became of every array.

    Takes what `rednet export --to torch` wrote, and torchvision's VGG-16-BN and ResNet-50, whose
    convolutions become the encoder of eccv_vgg and ijcv_resnet: begin a run with --init-from.

    Example: rednet import vgg16_bn.pth --out vgg16_bn.safetensors
    """
    from rednet_jax.export.imported import import_weights

    imported = import_weights(args.file, args.out)
    for theirs, ours in imported.matched:
        print(f"{theirs} -> {ours}")
    for name in imported.unused:
        print(f"{name}: not used")
    for name in imported.fresh:
        print(f"{name}: not in the file, drawn afresh")
    print(
        f"{args.out}: {imported.config.architecture}, {len(imported.matched)} arrays matched, "
        f"{len(imported.unused)} not used, {len(imported.fresh)} drawn afresh"
    )
    return 0
