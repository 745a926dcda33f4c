"""Commands that prepare and show data sets.

The docstring of a command's function is its help. Imports are inside the functions, so that
`rednet --help` does not wait for JAX.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rednet_jax.cli import shared, values
from rednet_jax.cli.output import counts, failed, progress
from rednet_jax.errors import RednetError

if TYPE_CHECKING:
    from rednet_jax.data.builders.own_folder import OwnData


def add_commands(commands: shared.Commands) -> None:
    """Adds `data` with its subcommands."""
    subcommands = commands.group("data", "List, prepare and draw data sets.", "COMMAND")
    with subcommands.add("list", list_data) as command:
        shared.add_data_dir(command.add_argument_group("data"))
    with subcommands.add("prepare", prepare_data) as command:
        command.add_argument(
            "data",
            metavar="DATA",
            help="a name that `rednet data list` prints, or `folder` for your own images",
        )
        command.add_argument_group("input").add_argument(
            "--from",
            dest="source",
            type=Path,
            metavar="FOLDER",
            help="folder of the data set as published, or of your own images (required except for "
            "synthetic data)",
        )
        own = command.add_argument_group("your own images (DATA is `folder`)")
        own.add_argument("--name", metavar="NAME", help="name for the data set (required)")
        own.add_argument(
            "--scheme",
            metavar="S",
            help="landmark scheme of the labels: a built-in name or a JSON file (required)",
        )
        own.add_argument(
            "--labels",
            type=Path,
            metavar="FILE",
            help="CSV file (name,x0,y0,...) or COCO keypoints (default: NAME.pts beside each "
            "image)",
        )
        own.add_argument(
            "--split-list",
            action="append",
            type=values.split_list,
            metavar="SPLIT=FILE",
            help="text file with the names of the images of a split, one per line; may be repeated "
            "(default: random splits)",
        )
        own.add_argument(
            "--shares",
            type=values.shares,
            metavar="T,V,E",
            help="shares of train, validation and test in random splits; no person is in two "
            "splits (default: 0.8,0.1,0.1)",
        )
        own.add_argument(
            "--seed", type=int, metavar="N", help="seed of the random splits (default: 0)"
        )
        shared.add_data_dir(command.add_argument_group("output"))
    with subcommands.add("scheme", propose) as command:
        command.add_argument("source", type=Path, metavar="DIR", help="folder of labelled images")
        command.add_argument_group("input").add_argument(
            "--labels",
            type=Path,
            metavar="FILE",
            help="CSV file (name,x0,y0,...) or COCO keypoints (default: NAME.pts beside each "
            "image)",
        )
        output = command.add_argument_group("output")
        output.add_argument(
            "--name", required=True, metavar="NAME", help="name of the scheme (required)"
        )
        output.add_argument(
            "--out", type=Path, metavar="OUT.json", help="the scheme (default: NAME.json)"
        )
        output.add_argument(
            "--sheet",
            type=Path,
            metavar="OUT.png",
            help="image of the numbered landmarks (default: NAME.png)",
        )
    with subcommands.add("show", show_data) as command:
        command.add_argument("name", metavar="NAME", help="a name that `rednet data list` prints")
        samples = command.add_argument_group("samples")
        samples.add_argument(
            "--split", default="train", metavar="S", help="split (default: %(default)s)"
        )
        samples.add_argument(
            "--count", type=int, metavar="N", help="number of samples (default: 16; of clips 4)"
        )
        samples.add_argument(
            "--augmented",
            action="store_true",
            help="add two augmented versions below each sample (default: off)",
        )
        shared.add_data_dir(samples)
        command.add_argument_group("output").add_argument(
            "--out", metavar="OUT.png", help="the image (default: NAME_SPLIT.png)"
        )


def list_data(args: argparse.Namespace) -> int:
    """List the data sets that can be prepared, and those that are prepared.

    Example: rednet data list
    """
    from rednet_jax.data.builders import BUILDERS
    from rednet_jax.data.folder import data_folder
    from rednet_jax.data.prepare import find_prepared, own_data

    print(f"data folder: {data_folder(args.data_dir)}")
    names = (*BUILDERS, *own_data(args.data_dir))
    width = max(map(len, names))
    for name in names:
        prepared = find_prepared(name, args.data_dir)
        if prepared is not None:
            print(f"{name:{width}} {counts(prepared.samples)} ({prepared.scheme.name})")
        else:
            print(f"{name:{width}} not prepared ({BUILDERS[name].tree})")
    return 0


def prepare_data(args: argparse.Namespace) -> int:
    """Prepare a data set as records, from its publisher's folder or from your own images.

    The cards in data/ describe where each data set is published and the layout of its folder.
    `synthetic` and `synthetic_clips` are generated and need no folder. Preparing an unchanged
    folder again does nothing.

    Example: rednet data prepare 300w --from ~/300w

    Example: rednet data prepare folder --name mine --from ~/mine --scheme mine98.json
    """
    from rednet_jax.data.prepare import prepare

    name, own = _own(args) if args.data == "folder" else (args.data, None)
    if own is None:
        for option in ("name", "scheme", "labels", "split_list", "shares", "seed"):
            if getattr(args, option) is not None:
                raise RednetError(
                    f"--{option.replace('_', '-')} is only for your own images "
                    "(`data prepare folder`)"
                )
    with progress("sample") as report:
        prepared = prepare(name, args.source, args.data_dir, report, own=own)
    for line in prepared.left_out:
        print(f"left out: {line}")
    if prepared.unread:
        of_kinds = ", ".join(f"{count} {kind}" for kind, count in prepared.unread.items())
        print(f"not read: {of_kinds}")
    print(f"{prepared.folder}: {counts(prepared.samples)}, {len(prepared.skipped)} files skipped")
    if not prepared.built:
        print("unchanged since the last preparation: nothing to do")
        return 0
    return failed(prepared.skipped)


def _own(args: argparse.Namespace) -> tuple[str, OwnData]:
    """Returns the name and the description of a folder of images."""
    from rednet_jax.data.builders.own_folder import OwnData
    from rednet_jax.landmarks.builtin import load_scheme

    for option in ("name", "scheme"):
        if getattr(args, option) is None:
            raise RednetError(f"a folder of your own images needs --{option}")
    optional = {"labels": args.labels, "shares": args.shares, "seed": args.seed}
    if args.split_list and args.shares:
        raise RednetError("--split-list and --shares cannot be used together")
    options = {option: value for option, value in optional.items() if value is not None}
    return args.name, OwnData(
        load_scheme(args.scheme), lists=tuple(args.split_list or ()), **options
    )


def propose(args: argparse.Namespace) -> int:
    """Propose a landmark scheme for labelled images: mean shape, mirror pairs and normaliser.

    Writes the scheme as JSON and an image of its numbered landmarks. Check the image, and correct
    wrong pairs in the JSON file. The parts that the file defines are drawn as lines, and evaluation
    gives the error of each.

    Example: rednet data scheme ~/mine --labels labels.csv --name mine98
    """
    from rednet_jax.data.propose import propose_scheme
    from rednet_jax.media.images import ENDINGS

    out, sheet = args.out or Path(f"{args.name}.json"), args.sheet or Path(f"{args.name}.png")
    shared.check_outputs(
        [("--out", out), ("--sheet", sheet)],
        [args.labels, *shared.files_of(args.source, (*ENDINGS, ".pts"))],
    )
    shared.check_png("--sheet", sheet)
    with progress("face") as report:
        proposal = propose_scheme(
            args.source,
            args.name,
            labels=args.labels,
            out=out,
            sheet=sheet,
            report=report,
        )
    scheme = proposal.scheme
    on_axis = sum(index == partner for index, partner in enumerate(scheme.mirror))
    pairs = (scheme.count - on_axis) // 2
    print(
        f"{scheme.count} landmarks, {pairs} mirror pairs and {on_axis} on the axis, from "
        f"{proposal.faces} faces: {proposal.file} and {proposal.sheet}"
    )
    return 0


def show_data(args: argparse.Namespace) -> int:
    """Draw samples of a prepared data set with their landmarks in one image.

    Example: rednet data show 300w --split validation --augmented
    """
    from rednet_jax.data.show import show_split

    out = args.out or f"{args.name}_{args.split}.png"
    shared.check_outputs([("--out", out)], [shared.prepared_folder(args.name, args.data_dir)])
    shared.check_png("--out", out)
    with progress("sample") as report:
        sheet = show_split(
            args.name,
            args.split,
            count=args.count,
            augmented=args.augmented,
            out=out,
            data_dir=args.data_dir,
            report=report,
        )
    print(sheet)
    return 0
