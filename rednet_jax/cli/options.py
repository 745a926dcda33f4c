"""Options of every command of `rednet`; each parsed line names the function that runs it."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rednet_jax.cli import data, evaluation, exporting, faces, measuring, training
from rednet_jax.errors import RednetError

CHECKPOINT = "a released name, a safetensors file, or a run folder"


def parser() -> argparse.ArgumentParser:
    """Returns the parser; `run` in what it parses is the command's function."""
    rednet = _Parser("rednet", description="Facial landmarks by a network with feedback loops.")
    subparsers = rednet.add_subparsers(metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], among: Any = subparsers
    ) -> argparse.ArgumentParser:
        text = inspect.getdoc(run) or ""
        one: argparse.ArgumentParser = among.add_parser(
            name,
            help=text.splitlines()[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            # A shortened option could be meant as a field of an experiment.
            allow_abbrev=False,
        )
        one.add_argument(
            "--no-compilation-cache",
            dest="compilation_cache",
            action="store_false",
            help="compile everything again, and keep nothing of it for the next time",
        )
        one.set_defaults(run=run)
        return one

    one = command("align", faces.align)
    one.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or folders of them")
    _add_network(one, feedback_steps=3)
    one.add_argument(
        "--faces",
        type=_faces,
        default=1,
        metavar="N",
        help="answered at most in an image, the most prominent first; or all (default: 1)",
    )
    one.add_argument(
        "--min-confidence",
        type=float,
        metavar="P",
        help="a face whose mean confidence is lower counts as not found (default: 0.1)",
    )
    one.add_argument(
        "--boxes", metavar="FILE", help="face boxes as CSV, name,x0,y0,x1,y1, a row for each face"
    )
    one.add_argument("--csv", metavar="OUT", help="landmarks, in image pixels; - (default): here")
    one.add_argument("--json", metavar="OUT", help="all of each face as JSON")
    one.add_argument("--overlay", metavar="DIR", help="folder for images with landmarks drawn")

    one = command("track", faces.track)
    one.add_argument(
        "video",
        type=_video,
        metavar="VIDEO",
        help="a video file, a folder of images, image files as frame_%%04d.png, or a camera's "
        "number, such as 0",
    )
    _add_network(one, feedback_steps=1, checkpoint="compact_video")
    one.add_argument(
        "--faces", type=int, default=1, metavar="N", help="followed at most (default: %(default)s)"
    )
    one.add_argument(
        "--smooth",
        action=argparse.BooleanOptionalAction,
        help="one-euro filter over the landmarks (default: where the network has no memory)",
    )
    one.add_argument("--out", metavar="OUT.mp4", help="the video with landmarks drawn")
    one.add_argument(
        "--landmarks",
        metavar="OUT.csv",
        help="landmarks, a row for each frame; - is standard output; if no file is named, video "
        "and landmarks are written to the current folder",
    )
    one.add_argument(
        "--jsonl", metavar="OUT", help="all faces, a line for each frame; - is standard output"
    )
    one.add_argument(
        "--fps", type=float, metavar="F", help="frames a second of images (default: 25)"
    )

    one = command("eval", evaluation.evaluate)
    one.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help=CHECKPOINT)
    one.add_argument("--predictions-in", type=Path, metavar="FILE", help="landmarks to score")
    one.add_argument(
        "--scheme",
        metavar="S",
        help="of --predictions-in: a built-in scheme or a JSON file (default: the data set's, or a "
        "built-in one with as many landmarks)",
    )
    one.add_argument("--data", required=True, metavar="NAME", help="the data set, such as 300w")
    one.add_argument("--split", required=True, metavar="S", help="its split, such as validation")
    _add_data_dir(one)
    _add_all_steps(one, "measure", default=None)
    one.add_argument(
        "--every",
        type=int,
        metavar="N",
        help="of clips see one frame in N: heads move N times as fast (default: 1)",
    )
    one.add_argument(
        "--boxes",
        choices=("truth", "detector", "jitter", "jitter-hard"),
        help="crops around the labels (default), what the detector finds, or labels displaced at "
        "random",
    )
    one.add_argument(
        "--normaliser",
        choices=("inter-ocular", "inter-pupil", "box", "box-diagonal"),
        help="what errors are in percent of (default: what the landmarks' scheme names)",
    )
    one.add_argument(
        "--corrupt",
        metavar="KIND[:STRENGTH[:SEED]]",
        help="of clips, corrupt bursts of 5 to 15 frames: occluder, motion-blur, dark, "
        "low-resolution, dropped, mixed, or clean to compare with (default strength: 1, seed: 0)",
    )
    _add_json(one)
    one.add_argument(
        "--predictions",
        type=Path,
        metavar="OUT.csv",
        help="landmarks at largest K; of clips also a folder",
    )
    one.add_argument(
        "--plot", type=Path, metavar="OUT.png", help="the cumulative distribution of the errors"
    )

    one = command("calibrate", evaluation.calibrate)
    one.add_argument("checkpoint", metavar="CHECKPOINT", help=CHECKPOINT)
    one.add_argument(
        "--out",
        type=Path,
        default=Path("calibrated"),
        metavar="DIR",
        help="folder for the files (default: %(default)s)",
    )
    one.add_argument(
        "--data", default="300w", metavar="NAME", help="the data set (default: %(default)s)"
    )
    one.add_argument(
        "--split", default="validation", metavar="S", help="its split (default: %(default)s)"
    )
    _add_data_dir(one)
    _add_all_steps(one, "calibrate for")

    one = command("train", training.train)
    one.add_argument("experiment", type=Path, metavar="EXPERIMENT", help="builds one Experiment")
    one.add_argument("--run-dir", type=Path, metavar="DIR", help="(default: runs/EXPERIMENT)")
    one.add_argument("--steps", type=int, metavar="N", help="stop after N steps in total")
    one.add_argument(
        "--mesh",
        type=_mesh,
        default={},
        metavar="data=N,fsdp=M",
        help="devices: parts of a batch, and of these as many hold parts of large parameters",
    )
    one.add_argument(
        "--parallel",
        choices=("jit", "pmap"),
        default="jit",
        help="one program over the mesh (default), or one a device",
    )
    one.add_argument("--init-from", metavar="C", help=f"weights to begin with: {CHECKPOINT}")
    one.add_argument(
        "--fresh",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="PART,PART",
        help="parts of the network that begin afresh beside --init-from, such as "
        "detection,regression (a network of other landmarks needs this)",
    )
    one.add_argument(
        "--from-step",
        type=int,
        metavar="N",
        help="go back to the checkpoint of step N, once (default: the newest intact one)",
    )
    one.add_argument("--profile", type=int, default=0, metavar="N", help="trace N steps")
    one.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="where process 0 of several listens; auto: what SLURM, Open MPI or a TPU says",
    )
    one.add_argument("--processes", type=int, metavar="N", help="how many train together")
    one.add_argument("--process-id", type=int, metavar="I", help="this one's number, from 0")
    _add_data_dir(one)
    one.set_defaults(fields={})

    one = command("ablate", training.ablate)
    one.add_argument("file", type=Path, nargs="?", metavar="FILE", help="builds one Ablation")
    one.add_argument(
        "--runs-dir", type=Path, metavar="DIR", help="a folder a run (default: runs/ablations)"
    )
    one.add_argument(
        "--out", type=Path, metavar="DIR", help="of the results (default: experiments/results)"
    )
    one.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="runs at a time (default: %(default)s)"
    )
    one.add_argument("--minutes", type=float, metavar="M", help="begin no run after M minutes")
    part = one.add_mutually_exclusive_group()
    part.add_argument("--train-only", dest="do", action="store_const", const=("train",))
    part.add_argument("--table-only", dest="do", action="store_const", const=("table",))
    one.add_argument(
        "--index",
        type=Path,
        metavar="DIR",
        help="write DIR/README.md of all results that lie there",
    )
    _add_data_dir(one)
    one.set_defaults(fields={}, do=("train", "table"))

    one = command("report", training.report)
    one.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="the folder of a run")

    text = "List and prepare data sets."
    one = subparsers.add_parser("data", help=text, description=text)
    verbs = one.add_subparsers(metavar="VERB", required=True)
    _add_data_dir(command("list", data.list_data, verbs))
    one = command("prepare", data.prepare_data, verbs)
    one.add_argument(
        "data",
        metavar="DATA",
        help="a data set as `rednet data list` has it, or `folder` for your own images",
    )
    one.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FOLDER",
        help="the publisher's folder, or that of your images",
    )
    own = one.add_argument_group("your own images (DATA is `folder`)")
    own.add_argument("--name", metavar="NAME", help="of the data set that is made")
    own.add_argument(
        "--scheme", metavar="S", help="of the landmarks: a built-in one or a JSON file"
    )
    own.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="CSV (name,x0,y0,...) or COCO keypoints (default: NAME.pts beside each image)",
    )
    own.add_argument(
        "--split-list",
        action="append",
        type=_split_list,
        metavar="SPLIT=FILE",
        help="names of the images of a split, one a line; once for each split",
    )
    own.add_argument(
        "--shares",
        type=_shares,
        metavar="T,V,E",
        help="parts of train, validation and test (default: 0.8,0.1,0.1); no person is in two",
    )
    own.add_argument("--seed", type=int, metavar="N", help="of the random splits (default: 0)")
    _add_data_dir(one)
    one = command("scheme", data.propose, verbs)
    one.add_argument("source", type=Path, metavar="DIR", help="the folder of images")
    one.add_argument("--name", required=True, metavar="NAME", help="of the scheme")
    one.add_argument("--labels", type=Path, metavar="FILE", help="as of `rednet data prepare`")
    one.add_argument("--out", type=Path, metavar="OUT.json", help="(default: NAME.json)")
    one.add_argument("--sheet", type=Path, metavar="OUT.png", help="(default: NAME.png)")
    one = command("show", data.show_data, verbs)
    one.add_argument("name", metavar="NAME", help="of the data set, as `rednet data list` has it")
    one.add_argument("--split", default="train", metavar="S", help="(default: %(default)s)")
    one.add_argument("--count", type=int, metavar="N", help="samples (default: 16; clips: 4)")
    one.add_argument("--augmented", action="store_true", help="two augmented draws below each")
    one.add_argument("--out", metavar="OUT.png", help="(default: NAME_SPLIT.png)")
    _add_data_dir(one)

    one = command("quickstart", faces.quickstart)
    one.add_argument(
        "--out", default="rednet_quickstart", metavar="DIR", help="(default: %(default)s)"
    )
    one.add_argument("--checkpoint", default="compact", metavar="C", help=CHECKPOINT)

    one = command("export", exporting.export)
    one.add_argument("checkpoint", metavar="CHECKPOINT", help=CHECKPOINT)
    one.add_argument(
        "--to",
        dest="target",
        required=True,
        choices=("safetensors", "stablehlo", "torch", "onnx", "savedmodel", "litert", "web"),
        help="the form; stablehlo: jax.export, images and streams; "
        "torch: a Python module that needs no JAX, and its weights; "
        "onnx: a graph of images and one of streams; savedmodel: TensorFlow's; "
        "litert: .tflite, for one face; web: a page that runs the ONNX graphs",
    )
    one.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the files")
    one.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="kernels")
    one.add_argument(
        "--feedback-steps",
        type=int,
        metavar="K",
        help="passes of the network over each face (default: as it was trained)",
    )
    one.add_argument(
        "--runtime", type=Path, metavar="FOLDER", help="for web: npm's folder onnxruntime-web"
    )
    _add_data_dir(one)

    one = command("import", exporting.import_)
    one.add_argument("file", metavar="FILE", help="a .safetensors file of ours, or a .pth")
    one.add_argument("--out", required=True, type=Path, metavar="FILE.safetensors")

    measured = subparsers.add_parser("bench", help="Measure the library on this machine.")
    what = measured.add_subparsers(metavar="WHAT", required=True)
    _add_json(command("scan", measuring.bench_scan, what))
    one = command("startup", measuring.bench_startup, what)
    # Times of compiling are measured; the processes that it starts have caches of their own.
    one.set_defaults(compilation_cache=False)
    _add_json(one)
    _add_json(command("input", measuring.bench_input, what))
    _add_json(command("scaling", measuring.bench_scaling, what))
    one = command("track", measuring.bench_track, what)
    _add_network(one, feedback_steps=1, checkpoint="compact_video")
    _add_json(one)
    one = command("detect", measuring.bench_detect, what)
    one.add_argument(
        "--infants",
        type=Path,
        metavar="DIR",
        help="labelled photographs of infants: NAME.jpg, NAME.pts and groups.csv",
    )
    one.add_argument(
        "--without-faces",
        type=Path,
        metavar="DIR",
        help="images that show no face, beside 200 generated ones",
    )
    one.add_argument("--images", type=int, metavar="N", help="of each set (default: all)")
    _add_data_dir(one)
    _add_json(one)
    one = command("exports", measuring.bench_exports, what)
    one.add_argument("--checkpoint", default="compact", metavar="C", help=CHECKPOINT)
    one.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder of the exports; what lies there from before is timed as it is",
    )
    one.add_argument(
        "--feedback-steps",
        type=_whole_numbers,
        default=(1, 3),
        metavar="K,K",
        help="every K to measure (default: 1,3)",
    )
    _add_data_dir(one)
    _add_json(one)
    one = command("steadiness", measuring.bench_steadiness, what)
    _add_network(one, feedback_steps=1, checkpoint="compact_video")
    one.add_argument("--data", default="300vw", metavar="NAME", help="(default: %(default)s)")
    one.add_argument("--split", default="validation", metavar="S", help="(default: %(default)s)")
    _add_data_dir(one)
    _add_json(one)
    one = command("layers", measuring.bench_layers, what)
    one.add_argument(
        "--checkpoint", default="compact", metavar="C", help=f"{CHECKPOINT} (default: %(default)s)"
    )
    _add_batch(one)
    _add_json(one)
    one = command("torch", measuring.bench_torch, what)
    one.add_argument(
        "--checkpoint", default="compact", metavar="C", help=f"{CHECKPOINT} (default: %(default)s)"
    )
    _add_batch(one)
    _add_all_steps(one, "measure")
    _add_json(one)
    return rednet


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RednetError(f"{message} (see {self.prog} --help)")


def _faces(text: str) -> int | None:
    return None if text == "all" else int(text)


def _add_network(
    one: argparse.ArgumentParser, feedback_steps: int, checkpoint: str = "compact"
) -> None:
    one.add_argument(
        "--checkpoint", default=checkpoint, metavar="C", help=f"{CHECKPOINT} (default: %(default)s)"
    )
    one.add_argument(
        "--feedback-steps",
        type=int,
        default=feedback_steps,
        metavar="K",
        help="passes of the network over each face (default: %(default)s)",
    )


def _add_all_steps(
    one: argparse.ArgumentParser, verb: str, default: tuple[int, ...] | None = (1, 2, 3)
) -> None:
    one.add_argument(
        "--feedback-steps",
        type=_whole_numbers,
        default=default,
        metavar="K,K",
        help=f"every K to {verb} (default: 1,2,3)",
    )


def _add_batch(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--batch",
        type=_whole_numbers,
        default=(1, 32),
        metavar="B,B",
        help="every batch size to measure (default: 1,32)",
    )


def _add_data_dir(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="folder of prepared data (default: $REDNET_JAX_DATA or ~/.cache/rednet_jax)",
    )


def _add_json(one: argparse.ArgumentParser) -> None:
    one.add_argument("--json", metavar="OUT", help="figures as JSON; - is standard output")


def _mesh(text: str) -> dict[str, str]:
    axes = dict(part.partition("=")[::2] for part in text.split(","))
    if not set(axes) <= {"data", "fsdp"} or not all(size.isdecimal() for size in axes.values()):
        raise argparse.ArgumentTypeError(f"{text!r} is not like data=4,fsdp=2")
    return {f"mesh.{axis}": size for axis, size in axes.items()}


def _video(text: str) -> str | int:
    number = text.isascii() and text.isdecimal() and not Path(text).exists()
    return int(text) if number else text


def _split_list(text: str) -> tuple[str, Path]:
    split, equals, path = text.partition("=")
    if not (split and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not like train=names.txt")
    return split, Path(path)


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers like 0.8,0.1,0.1") from None


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not whole numbers like 1,2,3") from None


def fields_of(words: Sequence[str]) -> dict[str, str]:
    """Returns {'field': 'value', ...} of ['--field', 'value', '--part.field=value', ...]."""
    fields = {}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        given = value if equals else next(rest, None)
        if not name.startswith("--") or given is None:
            raise RednetError(f"{word}: fields of an experiment are given as --field VALUE")
        fields[name[2:].replace("-", "_")] = given
    return fields
