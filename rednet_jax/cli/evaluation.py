"""Commands that measure landmarks against labels.

The docstring of a command's function is its help. Imports are inside the functions, so that
`rednet --help` does not wait for JAX.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rednet_jax.cli import shared
from rednet_jax.cli.output import print_result, progress
from rednet_jax.errors import RednetError


def add_commands(commands: shared.Commands) -> None:
    """Adds `eval` and `calibrate`."""
    with commands.add("eval", evaluate) as command:
        command.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help=shared.CHECKPOINT)
        data = command.add_argument_group("data")
        data.add_argument(
            "--data",
            required=True,
            metavar="NAME",
            help="a prepared data set, such as 300w (required)",
        )
        data.add_argument(
            "--split", required=True, metavar="S", help="its split, such as validation (required)"
        )
        shared.add_data_dir(data)
        network = command.add_argument_group("network (with CHECKPOINT)")
        shared.add_all_steps(network, "measure", default=None)
        network.add_argument(
            "--boxes",
            choices=("truth", "detector", "jitter", "jitter-hard"),
            help="where faces are cropped: around the labels, in the box of the detector, or "
            "in the labels' box with a random centre and size, with standard deviations of 6 %% "
            "and 10 %% of its side (jitter) or 12 %% and 20 %% (jitter-hard) (default: truth)",
        )
        network.add_argument(
            "--every",
            type=int,
            metavar="N",
            help="for clips: track only every Nth frame, as if heads moved faster (default: 1)",
        )
        shared.add_carry(network, "for clips: ", default=None)
        network.add_argument(
            "--corrupt",
            metavar="KIND[:STRENGTH[:SEED]]",
            help="for clips: corrupt bursts of 5 to 15 frames; KIND is occluder, motion-blur, "
            "dark, low-resolution, dropped or mixed; clean gives the same figures without "
            "corruption (default: no bursts; default strength 1, seed 0)",
        )
        predictions = command.add_argument_group("predictions (in place of CHECKPOINT)")
        predictions.add_argument(
            "--predictions-in",
            type=Path,
            metavar="FILE",
            help="CSV file of landmarks to score (default: those of CHECKPOINT)",
        )
        predictions.add_argument(
            "--scheme",
            metavar="S",
            help="landmark scheme of the file: a built-in name or a JSON file (default: that of "
            "the data set, else the built-in one with as many landmarks)",
        )
        metric = command.add_argument_group("metric")
        metric.add_argument(
            "--normaliser",
            choices=("inter-ocular", "inter-pupil", "box", "box-diagonal"),
            help="length that errors are divided by (default: that of the landmark scheme)",
        )
        output = command.add_argument_group("output")
        shared.add_json_option(output)
        output.add_argument(
            "--predictions",
            type=Path,
            metavar="OUT.csv",
            help="landmarks after the largest K; for clips a CSV file, or a folder with one for "
            "each clip (default: not written)",
        )
        output.add_argument(
            "--plot",
            type=Path,
            metavar="OUT.png",
            help="cumulative distribution of the errors (default: not written)",
        )
    with commands.add("calibrate", calibrate) as command:
        command.add_argument("checkpoint", metavar="CHECKPOINT", help=shared.CHECKPOINT)
        data = command.add_argument_group("data")
        data.add_argument(
            "--data",
            default="300w",
            metavar="NAME",
            help="a prepared data set (default: %(default)s)",
        )
        data.add_argument(
            "--split", default="validation", metavar="S", help="its split (default: %(default)s)"
        )
        shared.add_data_dir(data)
        shared.add_all_steps(command.add_argument_group("network"), "calibrate for")
        command.add_argument_group("output").add_argument(
            "--out",
            type=Path,
            default=Path("calibrated"),
            metavar="DIR",
            help="folder for the calibrated weights, reliability.png and calibration.json "
            "(default: %(default)s)",
        )


def evaluate(args: argparse.Namespace) -> int:
    """Measure the error of a checkpoint, or of landmarks in a file, on a split of a data set.

    Example: rednet eval compact --data 300w --split validation --data-dir DIR --json result.json

    Predictions are a CSV file, name,x0,y0,x1,y1,..., in 0-based pixels of the whole image. A row of
    nan is a missed face. --predictions writes such a file.

    Example: rednet eval --predictions-in points.csv --data 300w --split validation

    Clips are tracked frame by frame, as `rednet track` does. Predictions of clips may be a folder
    with one CLIP.csv per clip; the name of a row is the number of the frame, from 1.

    With --corrupt, bursts of frames are corrupted. Error, lost faces and jitter are also given
    within the bursts, in the ten frames after each, and outside.

    Example: rednet eval compact_video --data 300vw --split validation --corrupt occluder
    """
    from rednet_jax.data.sources import holds_clips
    from rednet_jax.evaluate.corrupt import parse_corruption
    from rednet_jax.evaluate.figures import figures_text
    from rednet_jax.evaluate.predictions import score_predictions
    from rednet_jax.evaluate.protocols import evaluate_split
    from rednet_jax.evaluate.tracked_clips import evaluate_clips
    from rednet_jax.landmarks.builtin import load_scheme

    how = {"data_dir": args.data_dir, "normaliser": args.normaliser, "plot": args.plot}
    clips = holds_clips(args.data)
    if args.predictions_in is not None:
        for name, option in (
            ("checkpoint", "CHECKPOINT"),
            ("feedback_steps", "--feedback-steps"),
            ("every", "--every"),
            ("carry", "--carry"),
            ("boxes", "--boxes"),
            ("corrupt", "--corrupt"),
            ("predictions", "--predictions"),
        ):
            if getattr(args, name) is not None:
                raise RednetError(f"{option} cannot be used with --predictions-in")
        _check_outputs(args, clips)
        scheme = None if args.scheme is None else load_scheme(args.scheme)
        result = score_predictions(args.predictions_in, args.data, args.split, scheme=scheme, **how)
    elif args.scheme is not None:
        raise RednetError("--scheme needs --predictions-in: a checkpoint has its own scheme")
    elif args.checkpoint is None:
        raise RednetError("either CHECKPOINT or --predictions-in is required (see --help)")
    else:
        _check_outputs(args, clips)
        of_clips = {"every": args.every, "carry": args.carry, "corrupt": args.corrupt}
        for name, value in of_clips.items():
            if value is None:
                continue
            if not clips:
                raise RednetError(f"--{name} is only for clips: {args.data} has images")
            how[name] = parse_corruption(value) if name == "corrupt" else value
        with progress("frame" if clips else "face") as report:
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
    print_result(result, args.json, figures_text)
    return 0


def _check_outputs(args: argparse.Namespace, clips: bool) -> None:
    read = args.predictions_in
    predictions = [("--predictions", args.predictions)]
    in_folder = clips and args.predictions is not None and args.predictions.suffix != ".csv"
    shared.check_outputs(
        [("--json", args.json), ("--plot", args.plot), *([] if in_folder else predictions)],
        [
            *([] if read is None else shared.files_of(read, (".csv",))),
            args.scheme,
            shared.weights_file(args.checkpoint),
            shared.prepared_folder(args.data, args.data_dir),
        ],
        folders=predictions if in_folder else [],
    )
    shared.check_png("--plot", args.plot)


def calibrate(args: argparse.Namespace) -> int:
    """Calibrate the confidence of a checkpoint by Platt scaling on a validation split.

    Afterwards, confidence p means that the landmark's error is at most 5 % of the inter-ocular
    distance with probability p. The scaling is folded into the weights; the landmarks do not
    change.

    Example: rednet calibrate runs/compact --data-dir DIR --out calibrated
    """
    from rednet_jax.evaluate.calibration import calibrate
    from rednet_jax.weights.store import checkpoint_name

    names = (f"{checkpoint_name(args.checkpoint)}.safetensors", "reliability.png")
    weights = shared.weights_file(args.checkpoint)
    shared.check_outputs(
        [("--out", args.out / name) for name in (*names, "calibration.json")],
        [weights, shared.prepared_folder(args.data, args.data_dir)],
    )
    with progress("face") as report:
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
