"""Adds commands to a parser; the options that several commands share, and checks of outputs."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from rednet_jax.cli import values
from rednet_jax.errors import RednetError
from rednet_jax.files import check_writable

CHECKPOINT = "a released network (compact, compact_video), a .safetensors file, or a run folder"

# A parser or an argument group.
Options = argparse._ActionsContainer

Paths = Sequence[tuple[str, str | os.PathLike[str] | None]]
"""Options and their values."""

_STANDARD_OUTPUT = ("--csv", "--json", "--jsonl", "--landmarks")
"""Options for which - is standard output."""


class Commands:
    """The commands of a parser.

    Args:
        parser: of `rednet`, or of a command with subcommands.
        metavar: placeholder of the command's name in the usage line.
        title: of the list of commands in the help.
    """

    def __init__(self, parser: argparse.ArgumentParser, metavar: str, title: str) -> None:
        self._parsers = parser.add_subparsers(metavar=metavar, title=title, required=True)

    @contextlib.contextmanager
    def add(
        self, name: str, run: Callable[[argparse.Namespace], int]
    ) -> Iterator[argparse.ArgumentParser]:
        """Yields the parser of a command, to which its options are added.

        The general options are added at the end.

        Args:
            name: of the command.
            run: function that runs the command and returns its exit status. Its docstring is the
                command's help.
        """
        text = inspect.getdoc(run) or ""
        command: argparse.ArgumentParser = self._parsers.add_parser(
            name,
            help=text.splitlines()[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            # An abbreviated option could be a field of an experiment.
            allow_abbrev=False,
            add_help=False,
        )
        yield command
        general = command.add_argument_group("general")
        general.add_argument("-h", "--help", action="help", help="print this text and exit")
        general.add_argument(
            "--no-compilation-cache",
            dest="compilation_cache",
            action="store_false",
            help="do not use JAX's compilation cache (default: compiled programs are kept in the "
            "folder of prepared data)",
        )
        command.set_defaults(run=run)

    def group(self, name: str, text: str, metavar: str) -> Commands:
        """Adds a command with subcommands, and returns these."""
        command = self._parsers.add_parser(name, help=text, description=text, add_help=False)
        commands = Commands(command, metavar, "commands")
        general = command.add_argument_group("general")
        general.add_argument("-h", "--help", action="help", help="print this text and exit")
        return commands


def add_checkpoint(options: Options, default: str = "compact") -> None:
    options.add_argument(
        "--checkpoint",
        default=default,
        metavar="CHECKPOINT",
        help=f"{CHECKPOINT} (default: %(default)s)",
    )


def add_network(
    command: argparse.ArgumentParser, feedback_steps: int, checkpoint: str = "compact"
) -> None:
    network = command.add_argument_group("network")
    add_checkpoint(network, checkpoint)
    network.add_argument(
        "--feedback-steps",
        type=int,
        default=feedback_steps,
        metavar="K",
        help="feedback passes of the network over each face (default: %(default)s)",
    )


def add_all_steps(options: Options, verb: str, default: tuple[int, ...] | None = (1, 2, 3)) -> None:
    options.add_argument(
        "--feedback-steps",
        type=values.whole_numbers,
        default=default,
        metavar="K,K",
        help=f"numbers of feedback passes to {verb} (default: 1,2,3"
        f"{'; for clips 1' if default is None else ''})",
    )


def add_carry(options: Options, where: str = "", default: str | None = "all") -> None:
    options.add_argument(
        "--carry",
        choices=("all", "feedback", "nothing"),
        default=default,
        help=f"{where}state carried from frame to frame: all, the feedback maps only, or nothing, "
        "which aligns each frame alone (default: all)",
    )


def add_batch(options: Options) -> None:
    options.add_argument(
        "--batch",
        type=values.whole_numbers,
        default=(1, 32),
        metavar="B,B",
        help="batch sizes to measure (default: 1,32)",
    )


def add_data_dir(options: Options) -> None:
    options.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="folder of prepared data (default: $REDNET_JAX_DATA, else ~/.cache/rednet_jax)",
    )


def add_json(command: argparse.ArgumentParser) -> None:
    add_json_option(command.add_argument_group("output"))


def add_json_option(options: Options) -> None:
    options.add_argument(
        "--json",
        metavar="OUT",
        help="all figures as JSON; - writes them to standard output (default: not written)",
    )


def check_outputs(
    files: Paths,
    inputs: Iterable[str | os.PathLike[str] | None] = (),
    *,
    folders: Paths = (),
) -> None:
    """Checks the outputs of a command before its work, which may take hours.

    Args:
        files: each output file with its option; None if it is not written.
        inputs: files that the command reads, and folders of which it may read any file.
        folders: as `files`, of output folders.

    Raises:
        RednetError: an output cannot be written or would replace an input, or two outputs have the
            same path.
    """
    outputs = [
        (option, path, folder)
        for paths, folder in ((files, False), (folders, True))
        for option, path in paths
        if path is not None and not (str(path) == "-" and option in _STANDARD_OUTPUT)
    ]
    sources = [source for source in inputs if source is not None and os.path.exists(source)]
    for option, path, folder in outputs:
        if str(path) == "-":
            raise RednetError(f"{option} -: standard output is not possible here; give a path")
        if not folder and any(_replaces(path, source) for source in sources):
            raise RednetError(f"{option} {path}: would replace an input of this command")
    for first, second in itertools.permutations(outputs, 2):
        (option, path, folder), (other, below, _) = first, second
        target, inside = Path(os.path.realpath(path)), Path(os.path.realpath(below))
        if target == inside or (not folder and target in inside.parents):
            raise RednetError(f"{other} {below}: {option} writes to {path}")
    for _, path, folder in outputs:
        check_writable(path, folder=folder)


def check_png(option: str, path: str | os.PathLike[str] | None) -> None:
    """Raises RednetError unless the path of a PNG, if there is one, has the extension .png."""
    if path is not None and Path(path).suffix.lower() != ".png":
        raise RednetError(f"{option} {path}: a PNG file needs the extension .png")


def _replaces(output: str | os.PathLike[str], source: str | os.PathLike[str]) -> bool:
    """Whether an output is an input file, or an existing file below an input folder."""
    if not os.path.exists(output):
        return False
    if os.path.isdir(source):
        return Path(os.path.realpath(source)) in Path(os.path.realpath(output)).parents
    return os.path.samefile(output, source)


def weights_file(checkpoint: str | None) -> Path | None:
    """Returns the file that a checkpoint is read from; raises RednetError if there is none."""
    from rednet_jax.weights.store import find

    return None if checkpoint is None else find(checkpoint)


def prepared_folder(data: str, data_dir: Path | None) -> Path | None:
    """Returns the folder of a data set; None if it is not prepared."""
    from rednet_jax.data.prepare import find_prepared

    prepared = find_prepared(data, data_dir)
    return None if prepared is None else prepared.folder


def files_of(path: str | os.PathLike[str], endings: Iterable[str]) -> list[Path]:
    """Returns a file itself, and of a folder the files below with these endings in any case."""
    from rednet_jax.media.folders import files_in

    endings = tuple(endings)
    if not os.path.isdir(path):
        return [Path(path)]
    return [file for file in files_in(path)[0] if file.suffix.lower() in endings]
