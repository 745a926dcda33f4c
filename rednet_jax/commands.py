"""What each command of `rednet` does: calls one function of the library and prints.

The first lines of a docstring are the command's help. Nothing here may import jax before it is
needed: `rednet --help` answers at once. Each command imports what it calls.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rednet_jax.errors import RednetError


def align(args: argparse.Namespace) -> int:
    """Find faces and their landmarks in images.

    The table has a row for each face: name, face, score of the detector, mean confidence, x0, y0,
    ... in image pixels; a row of nan is an image without a face. Images are turned upright by their
    EXIF orientation. Ctrl-C ends the work early: what was found until then is written.

    Example: rednet align group.jpg --faces all --csv landmarks.csv --overlay drawn
    """
    from rednet_jax.inference.align_files import align_files
    from rednet_jax.inference.face import MIN_CONFIDENCE

    outputs = [args.csv, args.json, args.overlay]
    to_stdout = args.csv == "-" or not any(outputs)
    with _progress("image") as report:
        aligned = align_files(
            args.images,
            checkpoint=args.checkpoint,
            feedback_steps=args.feedback_steps,
            faces=args.faces,
            min_confidence=MIN_CONFIDENCE if args.min_confidence is None else args.min_confidence,
            boxes=args.boxes,
            csv=None if to_stdout else args.csv,
            json=args.json,
            overlay=args.overlay,
            report=report,
        )
    if to_stdout:
        print(aligned.csv(), end="")
    else:
        images, answered = len(aligned.faces), sum(map(bool, aligned.faces.values()))
        count = sum(map(len, aligned.faces.values()))
        faces = "1 face" if count == 1 else f"{count} faces"
        where = " and ".join(path for path in outputs if path is not None)
        print(f"{faces} in {answered} of {images} images: {where}")
    status = failed(aligned.failures)
    return 130 if aligned.interrupted else status


def track(args: argparse.Namespace) -> int:
    """Follow faces through a video, numbered images, or a camera's images until Ctrl-C.

    Ctrl-C ends a video early: what was tracked until then is written.

    Example: rednet track talk.mp4 --out talk_landmarks.mp4 --landmarks talk.csv
    """
    from rednet_jax.inference.track_file import track_file

    with _progress("frame") as report:
        tracked = track_file(
            args.video,
            checkpoint=args.checkpoint,
            faces=args.faces,
            feedback_steps=args.feedback_steps,
            smooth=args.smooth,
            out=args.out,
            landmarks=args.landmarks,
            jsonl=args.jsonl,
            fps=args.fps,
            report=report,
        )
    if tracked.files:
        print(
            f"a face in {tracked.found} of {tracked.frames} frames, "
            f"{tracked.people} people, {tracked.frames_per_second:.0f} frames/s: "
            f"{' and '.join(map(str, tracked.files))}",
            # Standard output is for data where it is asked for.
            file=sys.stderr if "-" in (args.landmarks, args.jsonl) else sys.stdout,
        )
    status = failed(tracked.failures)
    return 130 if tracked.interrupted else status


def evaluate(args: argparse.Namespace) -> int:
    """Measure the error of a checkpoint, or of anyone's predictions, on a split of a data set.

    Example: rednet eval compact --data 300w --split validation --data-dir DIR --json result.json

    Predictions are a CSV file, name,x0,y0,...,x67,y67, in pixels of the whole image; a row of nan
    is no answer. --predictions writes such a file.

    Example: rednet eval --predictions-in points.csv --data 300w --split validation

    A data set of clips is followed frame by frame, as `rednet track` does; predictions may be a
    folder with CLIP.csv for each clip, its rows named by the frame's number from 1.
    """
    from rednet_jax.data.sources import holds_clips
    from rednet_jax.evaluate.figures import figures_text
    from rednet_jax.evaluate.predictions import score_predictions
    from rednet_jax.evaluate.protocols import evaluate_split
    from rednet_jax.evaluate.tracked_clips import evaluate_clips

    how = {"data_dir": args.data_dir, "normaliser": args.normaliser, "plot": args.plot}
    if args.predictions_in is not None:
        of_checkpoints = ("checkpoint", "feedback_steps", "every", "boxes", "predictions")
        given = [name for name in of_checkpoints if getattr(args, name) is not None]
        if given:
            raise RednetError(f"{given[0].replace('_', '-')} has no use beside --predictions-in")
        result = score_predictions(args.predictions_in, args.data, args.split, **how)
    elif args.checkpoint is None:
        raise RednetError("either a CHECKPOINT or --predictions-in is needed (see --help)")
    else:
        clips = holds_clips(args.data)
        if args.every is not None:
            if not clips:
                raise RednetError(f"--every is for clips, and {args.data} holds images")
            how["every"] = args.every
        with _progress("frame" if clips else "face") as report:
            result = (evaluate_clips if clips else evaluate_split)(
                args.checkpoint,
                args.data,
                args.split,
                feedback_steps=args.feedback_steps or ((1,) if clips else (1, 2, 3)),
                boxes=args.boxes or "truth",
                predictions=args.predictions,
                report=report,
                **how,
            )
    _print_result(result, args.json, figures_text)
    return 0


def calibrate(args: argparse.Namespace) -> int:
    """Make a checkpoint's confidence mean what it says: of points said to be right with p, p are.

    DIR gets the weights, whose landmarks stay as they are, reliability.png and calibration.json.

    Example: rednet calibrate runs/compact --data-dir DIR --out calibrated
    """
    from rednet_jax.evaluate.calibration import calibrate

    with _progress("face") as report:
        result = calibrate(
            args.checkpoint,
            args.out,
            data=args.data,
            split=args.split,
            data_dir=args.data_dir,
            feedback_steps=args.feedback_steps,
            report=report,
        )
    print(f"logit -> {result['slope']:.4g} * logit + {result['intercept']:.4g}")
    for score in ("ece", "brier", "log_loss"):
        print(f"{score:8} {result['before'][score]:.4f} -> {result['after'][score]:.4f}")
    print(f"({result['data']} {result['split']}; {result['after_is']})")
    print(args.out / f"{result['name']}.safetensors")
    return 0


def train(args: argparse.Namespace) -> int:
    """Train what an experiment file describes; with the same run folder, go on where it was left.

    Any field of the experiment is an option: --field VALUE, --part.field VALUE.

    Several processes that srun or GKE started join by themselves; see experiments/launch/.

    Example: rednet train experiments/compact_300w.py --data-dir DIR --run-dir RUN --batch 32
    """
    from rednet_jax.train.distributed import joined
    from rednet_jax.train.load import load_experiment
    from rednet_jax.train.loop import train

    with joined(args.coordinator, args.processes, args.process_id):
        train(
            load_experiment(args.experiment, {**args.mesh, **args.fields}),
            args.run_dir or Path("runs") / args.experiment.stem,
            data_dir=args.data_dir,
            steps=args.steps,
            parallel=args.parallel,
            init_from=args.init_from,
            from_step=args.from_step,
            profile=args.profile,
        )
    return 0


def ablate(args: argparse.Namespace) -> int:
    """Train an ablation's arms over its seeds, measure them alike, and decide its claims.

    What is measured already is not trained again, also by another ablation file; what was stopped
    goes on. OUT gets NAME.json, NAME.md and NAME.png. Any field of the experiments is an option,
    as in `rednet train`; then --out must be named.

    Example: rednet ablate experiments/ablation_losses.py --data-dir DIR --jobs 2 --minutes 50
    """
    from rednet_jax.ablate.index import write_index
    from rednet_jax.ablate.run import RUNS, ablate

    if args.index is not None:
        print(write_index(args.index))
    if args.file is None:
        if args.index is None:
            raise RednetError("name an ablation file, or a folder of results by --index")
        return 0
    outcome = ablate(
        args.file,
        runs_dir=args.runs_dir or RUNS,
        data_dir=args.data_dir,
        out=args.out,
        jobs=args.jobs,
        minutes=args.minutes,
        do=args.do,
        changes=args.fields,
        say=lambda line: print(line, flush=True),
    )
    for path in outcome.files:
        print(path)
    return failed(outcome.failures)


def report(args: argparse.Namespace) -> int:
    """Write RUN_DIR/report.html: a run's progress, curves, images and config on one page.

    The page needs nothing beside it, and can be written while the run goes on.

    Example: rednet report runs/compact_300w
    """
    from rednet_jax.train.report import write_report

    print(write_report(args.run_dir))
    return 0


def list_data(args: argparse.Namespace) -> int:
    """Name the data sets that can be prepared, and those that are.

    Example: rednet data list
    """
    from rednet_jax.data.builders import BUILDERS
    from rednet_jax.data.folder import data_folder
    from rednet_jax.data.prepare import find_prepared

    print(f"data folder: {data_folder(args.data_dir)}")
    for name, builder in BUILDERS.items():
        found = find_prepared(name, args.data_dir)
        state = _counts(found.samples) if found else f"not prepared ({builder.tree})"
        print(f"{name:9} {state}")
    return 0


def prepare_data(args: argparse.Namespace) -> int:
    """Build a data set from the folder that its publisher gives out; `synthetic` from none.

    The cards in data/ say where to get each and how its folder lies. Preparing an unchanged folder
    again does nothing.

    Example: rednet data prepare 300w --from ~/300w
    """
    from rednet_jax.data.prepare import prepare

    with _progress("sample") as report:
        prepared = prepare(args.name, args.source, args.data_dir, report)
    for line in prepared.left_out:
        print(f"left out: {line}")
    if prepared.unread:
        of_kinds = ", ".join(f"{count} {kind}" for kind, count in prepared.unread.items())
        print(f"not read: {of_kinds}")
    print(f"{prepared.folder}: {_counts(prepared.samples)}, {len(prepared.skipped)} files skipped")
    if not prepared.built:
        print("unchanged since it was prepared: nothing to do")
        return 0
    return failed(prepared.skipped)


def show_data(args: argparse.Namespace) -> int:
    """Draw landmarks into samples of a prepared data set, side by side in one image.

    Example: rednet data show 300w --split validation --augmented
    """
    from rednet_jax.data.show import show_split

    with _progress("sample") as report:
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


def quickstart(args: argparse.Namespace) -> int:
    """See it work: a portrait tracked at K = 1, 2, 3, and training, stopped and resumed.

    The portrait is moved by code, and training is on generated faces, on a mesh of 4 virtual CPU
    devices: nothing is downloaded or prepared. Takes a minute or two, mostly to compile.

    Example: rednet quickstart --out rednet_quickstart
    """
    from rednet_jax.quickstart import FRAMES, quickstart
    from rednet_jax.train.demonstration import MESH, RESUMED, STOPPED, demonstrate

    with _progress("frame") as report:
        shown = quickstart(args.out, checkpoint=args.checkpoint, report=report)
    print(f"A portrait moved by code, {FRAMES} frames, tracked:\n")
    print(" K   frames with a face   ms a frame   jitter, % of the inter-ocular distance")
    for k, found, milliseconds, jitter in shown.figures:
        print(f" {k}   {found:18d}   {milliseconds:10.1f}   {jitter:6.2f}")
    print(f"\n{shown.overlay}\n{shown.video} (K = 1, 2, 3 side by side)\n{shown.landmarks}")
    mesh = ",".join(f"{axis}={size}" for axis, size in MESH.items())
    print(f"\nTraining on 4 virtual CPU devices, --mesh {mesh}; most of it is compiling ...")
    sys.stdout.flush()
    failures = []
    try:
        trained = demonstrate(args.out)
    except RednetError as error:
        failures.append(str(error))
    else:
        print("\n step   loss   validation NME, %")
        for step, loss, nme in zip((STOPPED, RESUMED), trained.losses, trained.nmes, strict=True):
            print(f" {step:4d}   {loss:4.2f}   {nme:5.2f}")
        print(
            f"\nstopped and saved at step {STOPPED}; resumed at step {trained.resumed_at} from disk"
            f"\n{trained.run_dir}: report.html, metrics, checkpoints"
            f"\n\nTo its end, on one device:"
            f"\nrednet train {trained.experiment} --run-dir {trained.run_dir}"
        )
    print("\nNext:\nrednet align YOUR_PICTURE.jpg --overlay drawn\nrednet track YOUR_VIDEO.mp4")
    return failed(failures)


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


def bench_scan(args: argparse.Namespace) -> int:
    """The nested scans against the same loops unrolled, and the time of one frame.

    Example: rednet bench scan --json scan.json
    """
    from rednet_jax.bench.scan import bench_scan

    _print_result(bench_scan(), args.json)
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
    _print_result({**bench_startup(), "provenance": origin}, args.json)
    return 0


def bench_input(args: argparse.Namespace) -> int:
    """Reading and augmenting faces, alone and in front of training steps.

    Example: rednet bench input --json input.json
    """
    from rednet_jax.bench.input import bench_input

    _print_result(bench_input(), args.json)
    return 0


def bench_scaling(args: argparse.Namespace) -> int:
    """What a training step computes and sends on 1, 8, 64 and 256 devices; takes minutes.

    It is counted in the compiled program; its time on H100 and TPU v5p is an estimate.

    Example: rednet bench scaling --json scaling.json
    """
    from rednet_jax.bench.scaling import bench_scaling

    with _progress("mesh") as report:
        result = bench_scaling(report)
    _print_result(result, args.json)
    return 0


def bench_track(args: argparse.Namespace) -> int:
    """A frame of video: decoding, detection, network, encoding, and all of it end to end.

    The clip is drawn by code: a portrait, several times, moving.

    Example: rednet bench track --json track.json
    """
    from rednet_jax.bench.track import bench_track

    _print_result(bench_track(args.checkpoint, feedback_steps=args.feedback_steps), args.json)
    return 0


def bench_detect(args: argparse.Namespace) -> int:
    """Faces found and aligned, rolled, small and dark; false alarms; milliseconds an image.

    Composites are made of the validation images of 300-W.

    Example: rednet bench detect --data-dir DIR --json detect.json
    """
    from rednet_jax.bench.detect import bench_detect

    with _progress("image") as report:
        result = bench_detect(
            data_dir=args.data_dir,
            infants=args.infants,
            without_faces=args.without_faces,
            images=args.images,
            report=report,
        )
    _print_result(result, args.json)
    return 0


def bench_exports(args: argparse.Namespace) -> int:
    """A frame's time in every form that a checkpoint is exported to, and in JAX itself.

    Exports what does not lie in the folder yet, which takes minutes each.

    Example: rednet bench exports --out exported --json exports.json
    """
    from rednet_jax.bench.exports import bench_exports

    with _progress("row") as report:
        result = bench_exports(
            args.checkpoint,
            out=args.out,
            feedback_steps=args.feedback_steps,
            data_dir=args.data_dir,
            report=report,
        )
    _print_result(result, args.json)
    return 0


def bench_steadiness(args: argparse.Namespace) -> int:
    """Error and jitter in labelled clips: each frame alone, and with what the network carries.

    Example: rednet bench steadiness --data-dir DIR --json steadiness.json
    """
    from rednet_jax.bench.steadiness import bench_steadiness

    with _progress("frame") as report:
        result = bench_steadiness(
            args.checkpoint,
            args.data,
            args.split,
            data_dir=args.data_dir,
            feedback_steps=args.feedback_steps,
            report=report,
        )
    _print_result(result, args.json)
    return 0


@contextlib.contextmanager
def _progress(unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on a terminal, as a function of (done, in all); nothing elsewhere."""
    from tqdm import tqdm

    with tqdm(unit=unit, disable=None, leave=False) as bar:

        def report(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield report


def _print_result(
    result: dict[str, Any],
    path: str | None,
    as_text: Callable[[dict[str, Any]], str] | None = None,
) -> None:
    """Prints numbers and rows of numbers, or all of it as JSON where the path is '-'."""
    from rednet_jax.files import write_text

    text = json.dumps(result, indent=2) + "\n"
    if path == "-":
        print(text, end="")
        return
    print((as_text or _rows_text)(result))
    if path is not None:
        write_text(path, text)


def _rows_text(result: dict[str, Any]) -> str:
    lines = []
    for name, value in result.items():
        for row in value if isinstance(value, list) else [{name: value}]:
            if isinstance(row, dict):
                lines.append("  ".join(f"{key} {_short(item)}" for key, item in row.items()))
    return "\n".join(lines)


def _counts(samples: dict[str, int]) -> str:
    return ", ".join(f"{split} {count}" for split, count in samples.items())


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def failed(failures: Sequence[str]) -> int:
    for failure in failures:
        print(f"rednet: {' '.join(failure.splitlines())}", file=sys.stderr)
    return 1 if failures else 0
