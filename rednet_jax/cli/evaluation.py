"""Commands that measure landmarks against labels.

The first lines of a docstring are the command's help. Each function imports what it calls: nothing
here may import jax before it is needed, so that `rednet --help` answers at once.
"""

from __future__ import annotations

import argparse

from rednet_jax.cli.output import print_result, progress
from rednet_jax.errors import RednetError


def evaluate(args: argparse.Namespace) -> int:
    """Measure the error of a checkpoint, or of anyone's predictions, on a split of a data set.

    Example: rednet eval compact --data 300w --split validation --data-dir DIR --json result.json

    Predictions are a CSV file, name,x0,y0,x1,y1,..., in pixels of the whole image; a row of nan
    is no answer. --predictions writes such a file.

    Example: rednet eval --predictions-in points.csv --data 300w --split validation

    A data set of clips is followed frame by frame, as `rednet track` does; predictions may be a
    folder with CLIP.csv for each clip, its rows named by the frame's number from 1.

    With --corrupt the frames of short bursts are corrupted, and errors, lost faces and jitter are
    also given within bursts, in the ten frames after one, and outside.

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
    if args.predictions_in is not None:
        of_checkpoints = (
            "checkpoint",
            "feedback_steps",
            "every",
            "boxes",
            "corrupt",
            "predictions",
        )
        given = [name for name in of_checkpoints if getattr(args, name) is not None]
        if given:
            raise RednetError(f"{given[0].replace('_', '-')} has no use beside --predictions-in")
        scheme = None if args.scheme is None else load_scheme(args.scheme)
        result = score_predictions(args.predictions_in, args.data, args.split, scheme=scheme, **how)
    elif args.scheme is not None:
        raise RednetError("--scheme is of --predictions-in: a checkpoint has its own")
    elif args.checkpoint is None:
        raise RednetError("either a CHECKPOINT or --predictions-in is needed (see --help)")
    else:
        clips = holds_clips(args.data)
        if args.every is not None:
            if not clips:
                raise RednetError(f"--every is for clips, and {args.data} holds images")
            how["every"] = args.every
        if args.corrupt is not None:
            if not clips:
                raise RednetError(f"--corrupt is for clips, and {args.data} holds images")
            how["corrupt"] = parse_corruption(args.corrupt)
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


def calibrate(args: argparse.Namespace) -> int:
    """Make a checkpoint's confidence mean what it says: of points said to be right with p, p are.

    DIR gets the weights, whose landmarks stay as they are, reliability.png and calibration.json.

    Example: rednet calibrate runs/compact --data-dir DIR --out calibrated
    """
    from rednet_jax.evaluate.calibration import calibrate

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
