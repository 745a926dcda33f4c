"""The command `rednet`: parses, calls one function of the library, prints.

Exit status: 0 done; 1 done but for the failures named on standard error, a line each; 2 what was asked for cannot be
done, said in one line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg, subcommand

from rednet_jax.errors import RednetError

# Nothing here may import jax: `--help` answers at once. Each `run` imports what it calls.

Checkpoint = Annotated[str, arg(metavar="C")]
OptionalPath = Annotated[str | None, arg(metavar="PATH")]


@dataclasses.dataclass(frozen=True)
class Align:
    """Find the landmarks of the most prominent face in each picture.

    Example: rednet align portrait.jpg --csv landmarks.csv --overlay drawn
    """

    images: Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGE ...")]
    """Picture files, or folders of them."""
    checkpoint: Checkpoint = "compact"
    """A released name, a safetensors file, or a run folder."""
    feedback_steps: Annotated[int, arg(metavar="K")] = 3
    """Passes of the network over each face."""
    boxes: OptionalPath = None
    """CSV file name,x0,y0,x1,y1 of face boxes, instead of the detector."""
    csv: OptionalPath = None
    """Where the landmarks go, in pixels of the picture; - is standard output, also without --overlay."""
    overlay: Annotated[str | None, arg(metavar="DIR")] = None
    """Folder for pictures with the landmarks drawn."""

    def run(self) -> int:
        """Aligns, and prints where the results are."""
        from rednet_jax.tracking.align import align_files

        to_stdout = self.csv == "-" or (self.csv is None and self.overlay is None)
        with _progress("picture") as report:
            aligned = align_files(
                self.images,
                checkpoint=self.checkpoint,
                feedback_steps=self.feedback_steps,
                boxes=self.boxes,
                csv=None if to_stdout else self.csv,
                overlay=self.overlay,
                report=report,
            )
        if to_stdout:
            print(aligned.csv, end="")
        else:
            answered = len(aligned.names) - len(aligned.failures)
            where = " and ".join(path for path in (self.csv, self.overlay) if path is not None)
            print(f"{answered} of {len(aligned.names)} pictures: {where}")
        return _failed(aligned.failures)


@dataclasses.dataclass(frozen=True)
class Track:
    """Follow the most prominent face through a video.

    Example: rednet track talk.mp4 --out talk_landmarks.mp4 --landmarks talk.csv
    """

    video: Annotated[Positional[str], arg(metavar="VIDEO")]
    """A video file."""
    checkpoint: Checkpoint = "compact"
    """A released name, a safetensors file, or a run folder."""
    feedback_steps: Annotated[int, arg(metavar="K")] = 1
    """Passes of the network over each frame."""
    out: OptionalPath = None
    """MP4 file for the video with landmarks drawn; VIDEO_landmarks.mp4 here if neither file is named."""
    landmarks: OptionalPath = None
    """CSV file for the landmarks, a row a frame; VIDEO_landmarks.csv here if neither file is named."""

    def run(self) -> int:
        """Tracks, and prints where the results are and how fast it was."""
        from rednet_jax.tracking.track_file import track_file

        out, landmarks = self.out, self.landmarks
        if out is None and landmarks is None:
            stem = Path(self.video).stem
            out, landmarks = f"{stem}_landmarks.mp4", f"{stem}_landmarks.csv"
        with _progress("frame") as report:
            tracked = track_file(
                self.video,
                checkpoint=self.checkpoint,
                feedback_steps=self.feedback_steps,
                out=out,
                landmarks=landmarks,
                report=report,
            )
        found = int((tracked.confidence > 0).sum())
        where = " and ".join(path for path in (out, landmarks) if path is not None)
        print(
            f"a face in {found} of {len(tracked.confidence)} frames, "
            f"{tracked.frames_per_second:.0f} frames/s: {where}"
        )
        return _failed(tracked.failures)


@dataclasses.dataclass(frozen=True)
class Eval:
    """Measure the error of a checkpoint on a split of a data set.

    Example: rednet eval compact --data 300w --split validation --data-dir DIR --json result.json
    """

    checkpoint: Annotated[Positional[str], arg(metavar="CHECKPOINT")]
    """A released name, a safetensors file, or a run folder."""
    data: Annotated[str, arg(metavar="NAME")]
    """The data set, such as 300w."""
    split: Annotated[str, arg(metavar="S")]
    """Its split, such as validation."""
    data_dir: Annotated[str | None, arg(metavar="DIR")] = None
    """Where the data sets lie; $REDNET_JAX_DATA if not given."""
    feedback_steps: Annotated[str, arg(metavar="K,K,...")] = "1,2,3"
    """Every K to measure."""
    boxes: Literal["truth", "detector", "jitter"] = "truth"
    """Where crops are cut: around the labels, the detector's boxes, or the labels' displaced at random."""
    json: OptionalPath = None
    """Where the figures go as JSON; - is standard output."""
    predictions: OptionalPath = None
    """CSV file for the landmarks at the largest K."""

    def run(self) -> int:
        """Evaluates, and prints a row for each K."""
        steps = _whole_numbers("--feedback-steps", self.feedback_steps)
        from rednet_jax.evaluate.protocols import evaluate_split

        result = evaluate_split(
            self.checkpoint,
            self.data,
            self.split,
            data_dir=None if self.data_dir is None else Path(self.data_dir),
            feedback_steps=steps,
            boxes=self.boxes,
            predictions=None if self.predictions is None else Path(self.predictions),
        )
        if self.json != "-":
            head = "images", "normaliser", "boxes", "crop_margin"
            print(", ".join(f"{name} {result[name]}" for name in head if name in result))
            for row in result["per_step"]:
                print("  ".join(f"{name} {_short(value)}" for name, value in row.items()))
        _write_json(self.json, result)
        return 0


@dataclasses.dataclass(frozen=True)
class Train:
    """Train what an experiment file describes; started again with the same run folder, it goes on.

    Any field of the experiment is an option: --field value, --part.field value.

    Example: rednet train experiments/compact_300w.py --run-dir runs/compact --data-dir DIR --batch 32
    """

    experiment: Annotated[Positional[str], arg(metavar="EXPERIMENT")]
    """A Python file that builds one Experiment."""
    run_dir: Annotated[str | None, arg(metavar="DIR")] = None
    """The run's folder; runs/EXPERIMENT here if not given."""
    steps: Annotated[int | None, arg(metavar="N")] = None
    """Stop after so many steps in total and save there; changes no schedule."""
    data_dir: Annotated[str | None, arg(metavar="DIR")] = None
    """Where the data sets lie; $REDNET_JAX_DATA if not given."""
    fields: tyro.conf.Suppress[tuple[tuple[str, str], ...]] = ()

    def run(self) -> int:
        """Trains; the loop prints its own progress."""
        from rednet_jax.train.experiment import load_experiment
        from rednet_jax.train.loop import train

        run_dir = self.run_dir or Path("runs") / Path(self.experiment).stem
        train(
            load_experiment(self.experiment, dict(self.fields)),
            Path(run_dir),
            data_root=None if self.data_dir is None else Path(self.data_dir),
            steps=self.steps,
        )
        return 0


@dataclasses.dataclass(frozen=True)
class Quickstart:
    """See it work: a portrait moved by code, tracked at K = 1, 2, 3, in under a minute, without network.

    Example: rednet quickstart --out rednet_quickstart
    """

    out: Annotated[str, arg(metavar="DIR")] = "rednet_quickstart"
    """Folder for overlay.png, track.mp4 and landmarks.csv."""
    checkpoint: Checkpoint = "compact"
    """A released name, a safetensors file, or a run folder."""

    def run(self) -> int:
        """Runs it, and prints the figures, the files and what to try next."""
        from rednet_jax.tracking.quickstart import FRAMES, quickstart

        with _progress("frame") as report:
            shown = quickstart(self.out, checkpoint=self.checkpoint, report=report)
        print(f"A portrait moved by code ({FRAMES} frames), tracked; % of the inter-ocular distance:")
        print("  K   frames with a face   ms a frame   jitter %   drift %")
        for row in shown.figures:
            print(
                f"  {row.feedback_steps}   {row.found:18d}   {row.milliseconds:10.1f}"
                f"   {row.jitter:8.2f}   {row.drift:7.2f}"
            )
        print("jitter: mean |p(t+1) - 2 p(t) + p(t-1)|, the clip's own motion included")
        print("drift:  mean distance from a fixed place on the face, the known motion taken out")
        print(f"\n  {shown.overlay}\n  {shown.video}\n  {shown.landmarks}\n")
        print("Next:\n  rednet align YOUR_PICTURE.jpg --overlay drawn\n  rednet track YOUR_VIDEO.mp4")
        return 0


@dataclasses.dataclass(frozen=True)
class Bench:
    """Measure the library on this machine.

    Example: rednet bench scan --json scan.json
    """

    what: Annotated[Positional[Literal["scan"]], arg(metavar="scan")]
    """scan: the nested scans against the same loops unrolled, and the time of one frame."""
    json: OptionalPath = None
    """Where the figures go as JSON; - is standard output."""

    def run(self) -> int:
        """Measures, and prints the figures."""
        from rednet_jax.bench.scan import bench_scan

        result = bench_scan()
        if self.json != "-":
            for name, value in result.items():
                print(f"{name}: {_short(value)}")
        _write_json(self.json, result)
        return 0


Command = Align | Track | Eval | Train | Quickstart | Bench

COMMANDS = (
    Annotated[Align, subcommand("align")]
    | Annotated[Track, subcommand("track")]
    | Annotated[Eval, subcommand("eval")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Quickstart, subcommand("quickstart")]
    | Annotated[Bench, subcommand("bench")]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line (without the program's name) and returns its exit status."""
    _hush()
    try:
        command = parse(sys.argv[1:] if argv is None else argv)
        return 0 if command is None else command.run()
    except RednetError as error:
        print(f"rednet: {_one_line(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("rednet: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has enough; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def parse(argv: Sequence[str]) -> Command | None:
    """The command of a command line, None where help was asked for and printed.

    Raises: RednetError, in one line, for what tyro would answer with a box.
    """
    training = list(argv[:1]) == ["train"]
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed: Any = tyro.cli(
                COMMANDS,  # type: ignore[arg-type]
                prog="rednet",
                description="Facial landmarks by a network with two feedback loops.",
                args=list(argv),
                return_unknown_args=training,
            )
    except SystemExit as stop:
        if not stop.code:
            return None
        raise RednetError(_sentence(complaint.getvalue())) from None
    if not training:
        return parsed  # type: ignore[no-any-return]
    command, rest = parsed
    return dataclasses.replace(command, fields=_fields(rest))


def _fields(rest: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of ['--field', 'value', '--part.field=value', ...]."""
    pairs = []
    words = [part for word in rest for part in (word.split("=", 1) if word[:2] == "--" else [word])]
    for name, value in zip(words[::2], [*words[1::2], None][: len(words[::2])], strict=True):
        if not name.startswith("--") or value is None:
            raise RednetError(f"{name}: experiment fields are given as --field value")
        pairs.append((name[2:].replace("-", "_"), value))
    return tuple(pairs)


def _sentence(box: str) -> str:
    """What a box of tyro's says, in one line: its first paragraph, and what there is to choose from."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip("│ \t") for line in box.splitlines()]
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if re.match(r"[╭╰]", line):
            continue
        if re.fullmatch(r"─+", line):
            paragraphs.append([])
        elif line:
            paragraphs[-1].append(line)
    told = [" ".join(p) for p in paragraphs if p]
    kept = told[:1] + [text for text in told[1:] if text.startswith(("Available", "Perhaps"))]
    return "; ".join(kept) or "cannot be understood; see rednet --help"


def _hush() -> None:
    """Keeps what JAX says at its start off standard error: a line there is an error of ours."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("jax", "absl", "orbax"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextlib.contextmanager
def _progress(unit: str) -> Any:
    """A progress bar on a terminal, as a function of (done, in all); nothing elsewhere."""
    from tqdm import tqdm

    with tqdm(unit=unit, disable=None, leave=False) as bar:

        def report(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield report


def _failed(failures: Sequence[str]) -> int:
    for failure in failures:
        print(f"rednet: {_one_line(failure)}", file=sys.stderr)
    return 1 if failures else 0


def _one_line(text: str) -> str:
    return " ".join(text.split("\n"))


def _whole_numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError as error:
        raise RednetError(f"{option}: {text!r} is not whole numbers like 1,2,3") from error


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _write_json(path: str | None, result: dict[str, Any]) -> None:
    if path is None:
        return
    text = json.dumps(result, indent=2) + "\n"
    if path == "-":
        print(text, end="")
    else:
        from rednet_jax.landmarks.table import write_text

        write_text(path, text)


if __name__ == "__main__":
    sys.exit(main())
