"""Commands that find faces in images and videos.

The first lines of a docstring are the command's help. Each function imports what it calls: nothing
here may import jax before it is needed, so that `rednet --help` answers at once.
"""

from __future__ import annotations

import argparse
import sys

from rednet_jax.cli.output import failed, progress
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
    with progress("image") as report:
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

    with progress("frame") as report:
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


def quickstart(args: argparse.Namespace) -> int:
    """See it work: a portrait tracked at K = 1, 2, 3, and training, stopped and resumed.

    The portrait is moved by code, and training is on generated faces, on a mesh of 4 virtual CPU
    devices: nothing is downloaded or prepared. Takes a minute or two, mostly to compile.

    Example: rednet quickstart --out rednet_quickstart
    """
    from rednet_jax.quickstart import FRAMES, quickstart
    from rednet_jax.train.demonstration import MESH, RESUMED, STOPPED, demonstrate

    with progress("frame") as report:
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
