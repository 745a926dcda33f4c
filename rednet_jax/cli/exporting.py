"""Commands that write checkpoints for other frameworks, and read theirs.

The first lines of a docstring are the command's help. Each function imports what it calls: nothing
here may import jax before it is needed, so that `rednet --help` answers at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rednet_jax.cli import shared


def add_commands(commands: shared.Commands) -> None:
    """Adds `export` and `import`."""
    with commands.add("export", export) as one:
        one.add_argument("checkpoint", metavar="CHECKPOINT", help=shared.CHECKPOINT)
        target = one.add_argument_group("target")
        target.add_argument(
            "--to",
            dest="target",
            required=True,
            choices=("safetensors", "stablehlo", "torch", "onnx", "savedmodel", "litert", "web"),
            help="safetensors: weights for this library; stablehlo: jax.export; torch: a PyTorch "
            "module that needs no JAX; onnx: two graphs, for images and for streams; savedmodel: "
            "TensorFlow; litert: .tflite, one face; web: a page that runs the ONNX graphs in the "
            "browser (required)",
        )
        target.add_argument(
            "--feedback-steps",
            type=int,
            metavar="K",
            help="feedback passes of the network over each face (default: as many as in training)",
        )
        target.add_argument(
            "--dtype",
            choices=("float32", "float16"),
            default="float32",
            help="of the stored convolution kernels (default: %(default)s)",
        )
        target.add_argument(
            "--runtime",
            type=Path,
            metavar="FOLDER",
            help="the folder node_modules/onnxruntime-web (required for web)",
        )
        shared.add_data_dir(one.add_argument_group("data (for the comparison)"))
        one.add_argument_group("output").add_argument(
            "--out", required=True, type=Path, metavar="DIR", help="folder for the files (required)"
        )
    with commands.add("import", import_) as one:
        one.add_argument("file", metavar="FILE", help="a .safetensors file or a .pth file")
        one.add_argument_group("output").add_argument(
            "--out",
            required=True,
            type=Path,
            metavar="FILE.safetensors",
            help="the checkpoint to write (required)",
        )


def export(args: argparse.Namespace) -> int:
    """Export a checkpoint to another format, and compare the export with the network.

    Landmarks are compared on 64 crops and four streams of 30 frames, of real faces where 300w is
    prepared, else of generated ones. If they differ, nothing is written. A folder holds one export.

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
    """Convert PyTorch weights to a checkpoint, and list what became of every array.

    Reads what `rednet export --to torch` writes, and torchvision's VGG-16-BN and ResNet-50, whose
    convolutions become the encoder of eccv_vgg or ijcv_resnet, for `rednet train --init-from`.

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
