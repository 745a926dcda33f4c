"""The parser of `rednet`. Each command's module adds the command's options."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any, NoReturn

from rednet_jax.cli import data, evaluation, exporting, faces, measuring, training
from rednet_jax.cli.shared import Commands
from rednet_jax.errors import RednetError


def parser() -> argparse.ArgumentParser:
    """Returns the parser. `run` of the parsed arguments is the command's function."""
    rednet = _Parser(
        "rednet",
        description="Facial landmarks in images and video with RED-Net, a recurrent "
        "encoder-decoder: use, train, evaluate, ablate and export it.",
        epilog="`rednet COMMAND --help` describes a command. Start with: rednet quickstart",
        add_help=False,
    )
    commands = Commands(rednet, "COMMAND", "commands")
    faces.add_commands(commands)
    evaluation.add_commands(commands)
    training.add_commands(commands)
    data.add_commands(commands)
    faces.add_quickstart(commands)
    exporting.add_commands(commands)
    measuring.add_commands(commands)
    general = rednet.add_argument_group("general")
    general.add_argument("-h", "--help", action="help", help="print this text and exit")
    general.add_argument(
        "--version",
        action=_Version,
        nargs=0,
        help="print the versions of rednet_jax and jax and the devices that jax finds, and exit",
    )
    return rednet


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RednetError(f"{message} (see {self.prog} --help)")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(_version())
        parser.exit()


def _version() -> str:
    # Imported here, so that other commands do not wait for JAX.
    import jax

    import rednet_jax

    try:
        kinds = Counter(device.device_kind for device in jax.devices())
        devices = ", ".join(f"{kind} x{count}" for kind, count in kinds.items())
    except RuntimeError as error:
        # The versions help to find out why a platform cannot be used.
        devices = f"none ({' '.join(str(error).split())})"
    return f"rednet_jax {rednet_jax.__version__} (jax {jax.__version__}, devices: {devices})"
