"""Commands that export checkpoints to other frameworks, and import theirs.

The docstring of a command's function is its help. Imports are inside the functions, so that
`rednet --help` does not wait for JAX.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rednet_jax.cli import shared


def add_commands(commands: shared.Commands) -> None:
    """Adds `export` and `import`."""
    with commands.add("export", export) as command:
        command.add_argument("checkpoint", metavar="CHECKPOINT", help=shared.CHECKPOINT)
        target = command.add_argument_group("target")
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
            help="dtype of the stored convolution kernels (default: %(default)s)",
        )
        target.add_argument(
            "--runtime",
            type=Path,
            metavar="FOLDER",
            help="path of the folder node_modules/onnxruntime-web (required for web)",
        )
        shared.add_data_dir(command.add_argument_group("data (for the comparison)"))
        command.add_argument_group("output").add_argument(
            "--out", required=True, type=Path, metavar="DIR", help="folder for the files (required)"
        )
    with commands.add("import", import_) as command:
        command.add_argument("file", metavar="FILE", help="a .safetensors file or a .pth file")
        command.add_argument_group("output").add_argument(
            "--out",
            required=True,
            type=Path,
            metavar="FILE.safetensors",
            help="the checkpoint to write (required)",
        )


def export(args: argparse.Namespace) -> int:
    """Export a checkpoint to another format, and compare the export with the network.

    Landmarks are compared on 64 crops and four streams of 30 frames, of real faces if 300w is
    prepared, else of generated faces. If they differ, nothing is written. Each export needs its own
    folder.

    Example: rednet export compact_video --to torch --out exported --feedback-steps 1
    """
    from rednet_jax.export.targets import export

    shared.check_outputs([], folders=[("--out", args.out)])
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
    excused, excused_difference = written["points_excused"], written["max_difference_px_excused"]
    print(
        f"{written['points'] - excused} landmarks differ by at most "
        f"{written['max_difference_px']:.3g} crop pixels"
        + (
            f", {excused} by {excused_difference:.3g}, where rounding moves the network's own "
            "landmarks as far"
            if excused
            else ""
        )
    )
    return 0


def import_(args: argparse.Namespace) -> int:
    """Convert PyTorch weights to a checkpoint, and list which arrays were used.

    Reads the files of `rednet export --to torch`, and torchvision's VGG-16-BN and ResNet-50. The
    convolutions of these become the encoder of eccv_vgg or ijcv_resnet, for `rednet train
    --init-from`.

    Example: rednet import vgg16_bn.pth --out vgg16_bn.safetensors
    """
    from rednet_jax.export.imported import import_weights

    shared.check_outputs([("--out", args.out)], [args.file])
    imported = import_weights(args.file, args.out)
    for theirs, ours in imported.matched:
        print(f"{theirs} -> {ours}")
    for name in imported.unused:
        print(f"{name}: not used")
    for name in imported.fresh:
        print(f"{name}: not in the file, initialised at random")
    print(
        f"{args.out}: {imported.config.architecture}, {len(imported.matched)} arrays matched, "
        f"{len(imported.unused)} not used, {len(imported.fresh)} initialised at random"
    )
    return 0
