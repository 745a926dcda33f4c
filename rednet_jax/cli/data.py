"""Commands that prepare data sets and show them.

The first lines of a docstring are the command's help. Each function imports what it calls: nothing
here may import jax before it is needed, so that `rednet --help` answers at once.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rednet_jax.cli.output import counts, failed, progress
from rednet_jax.errors import RednetError

if TYPE_CHECKING:
    from rednet_jax.data.builders.own_folder import OwnData


def list_data(args: argparse.Namespace) -> int:
    """Name the data sets that can be prepared, and those that are.

    Example: rednet data list
    """
    from rednet_jax.data.builders import BUILDERS
    from rednet_jax.data.folder import data_folder
    from rednet_jax.data.prepare import find_prepared, own_data

    print(f"data folder: {data_folder(args.data_dir)}")
    names = (*BUILDERS, *own_data(args.data_dir))
    width = max(map(len, names))
    for name in names:
        found = find_prepared(name, args.data_dir)
        if found is not None:
            print(f"{name:{width}} {counts(found.samples)} ({found.scheme.name})")
        else:
            print(f"{name:{width}} not prepared ({BUILDERS[name].tree})")
    return 0


def prepare_data(args: argparse.Namespace) -> int:
    """Build a data set from its publisher's folder, or from a folder of your own images.

    The cards in data/ say where to get each data set and how its folder is laid out. `synthetic`
    and `synthetic_clips` need no folder. Preparing an unchanged folder again does nothing.

    Example: rednet data prepare 300w --from ~/300w

    Example: rednet data prepare folder --name mine --from ~/mine --scheme mine98.json
    """
    from rednet_jax.data.prepare import prepare

    name, own = _own(args) if args.data == "folder" else (args.data, None)
    if own is None:
        for option in ("name", "scheme", "labels", "split_list", "shares", "seed"):
            if getattr(args, option) is not None:
                raise RednetError(
                    f"--{option.replace('_', '-')} is for your own images: `data prepare folder`"
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
        print("unchanged since it was prepared: nothing to do")
        return 0
    return failed(prepared.skipped)


def _own(args: argparse.Namespace) -> tuple[str, OwnData]:
    """Name and description of a folder of images."""
    from rednet_jax.data.builders.own_folder import OwnData
    from rednet_jax.landmarks.builtin import load_scheme

    for option in ("name", "scheme"):
        if getattr(args, option) is None:
            raise RednetError(f"a folder of your own images needs --{option}")
    given = {"labels": args.labels, "shares": args.shares, "seed": args.seed}
    if args.split_list and args.shares:
        raise RednetError("either --split-list or --shares, not both")
    chosen = {option: value for option, value in given.items() if value is not None}
    return args.name, OwnData(
        load_scheme(args.scheme), lists=tuple(args.split_list or ()), **chosen
    )


def propose(args: argparse.Namespace) -> int:
    """Propose a scheme for labelled images: mean shape, mirror pairs, normaliser.

    Writes the scheme as JSON and a sheet on which its landmarks are numbered. Look at the sheet,
    and edit the file where a pair is wrong; name parts there, so that they are drawn as lines and
    have errors of their own.

    Example: rednet data scheme ~/mine --labels labels.csv --name mine98
    """
    from rednet_jax.data.propose import propose_scheme

    with progress("face") as report:
        found = propose_scheme(
            args.source,
            args.name,
            labels=args.labels,
            out=args.out,
            sheet=args.sheet,
            report=report,
        )
    scheme = found.scheme
    alone = sum(index == other for index, other in enumerate(scheme.mirror))
    pairs = (scheme.count - alone) // 2
    print(
        f"{scheme.count} landmarks, {pairs} mirror pairs and {alone} on the axis, from "
        f"{found.faces} faces: {found.file} and {found.sheet}"
    )
    return 0


def show_data(args: argparse.Namespace) -> int:
    """Draw landmarks into samples of a prepared data set, side by side in one image.

    Example: rednet data show 300w --split validation --augmented
    """
    from rednet_jax.data.show import show_split

    with progress("sample") as report:
        sheet = show_split(
            args.name,
            args.split,
            count=args.count,
            augmented=args.augmented,
            out=args.out,
            data_dir=args.data_dir,
            report=report,
        )
    print(sheet)
    return 0
