"""Commands that find faces in images and videos.

The docstring of a command's function is its help. Imports are inside the functions, so that
`rednet --help` does not wait for JAX.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from rednet_jax.cli import shared, values
from rednet_jax.cli.output import drop_unwritten, failed, progress
from rednet_jax.errors import RednetError


def add_commands(commands: shared.Commands) -> None:
    """Adds `align` and `track`."""
    with commands.add("align", align) as command:
        command.add_argument("images", nargs="+", metavar="IMAGE", help="image files or folders")
        shared.add_network(command, feedback_steps=3)
        of_faces = command.add_argument_group("faces")
        of_faces.add_argument(
            "--faces",
            type=values.face_count,
            # None is `all`.
            default=argparse.SUPPRESS,
            metavar="N|all",
            help="maximum number of faces per image, the most prominent first, or in the order of "
            "--boxes (default: 1; with --boxes all)",
        )
        of_faces.add_argument(
            "--min-confidence",
            type=float,
            metavar="P",
            help="leave out faces whose mean confidence over the landmarks is lower (default: 0.1)",
        )
        of_faces.add_argument(
            "--boxes",
            metavar="FILE",
            help="CSV file of face boxes, name,x0,y0,x1,y1, one row per face, in place of the "
            "detector (default: detect faces)",
        )
        output = command.add_argument_group("output")
        output.add_argument(
            "--csv",
            metavar="OUT",
            help="table of landmarks in image pixels; - is standard output "
            "(default: - if there is no other output)",
        )
        output.add_argument(
            "--json",
            metavar="OUT",
            help="landmarks, confidences, boxes and scores as JSON; - is standard output "
            "(default: not written)",
        )
        output.add_argument(
            "--overlay",
            metavar="DIR",
            help="folder for copies of the images with landmarks drawn, which are not read if it "
            "lies in an input folder (default: not written)",
        )
    with commands.add("track", track) as command:
        command.add_argument(
            "video",
            type=values.video,
            metavar="VIDEO",
            help="a video file, a folder of images, numbered images such as frame_%%04d.png, or "
            "the number of a camera, such as 0",
        )
        command.add_argument_group("input").add_argument(
            "--fps",
            type=float,
            metavar="F",
            help="frames per second of a folder or of numbered images (default: 25)",
        )
        shared.add_network(command, feedback_steps=1, checkpoint="compact_video")
        tracking = command.add_argument_group("tracking")
        tracking.add_argument(
            "--faces",
            type=int,
            default=1,
            metavar="N",
            help="maximum number of faces to track (default: %(default)s)",
        )
        shared.add_carry(tracking)
        tracking.add_argument(
            "--smooth",
            action=argparse.BooleanOptionalAction,
            help="smooth the landmarks with a one-euro filter (default: on, unless the network was "
            "trained on clips and carries all state)",
        )
        output = command.add_argument_group(
            "output",
            "Without any of these, the video and the table are written to the current folder.",
        )
        output.add_argument(
            "--out", metavar="OUT.mp4", help="the video with landmarks drawn (default: see above)"
        )
        output.add_argument(
            "--landmarks",
            metavar="OUT.csv",
            help="table of the face with the longest track, a row for each frame; - is standard "
            "output (default: see above)",
        )
        output.add_argument(
            "--jsonl",
            metavar="OUT",
            help="all faces as JSON, one line per frame; - is standard output "
            "(default: not written)",
        )


def add_quickstart(commands: shared.Commands) -> None:
    """Adds `quickstart`."""
    with commands.add("quickstart", quickstart) as command:
        shared.add_checkpoint(command.add_argument_group("network"))
        command.add_argument_group("output").add_argument(
            "--out",
            default="rednet_quickstart",
            metavar="DIR",
            help="folder for all files (default: %(default)s)",
        )


def align(args: argparse.Namespace) -> int:
    """Find faces and their landmarks in images.

    The table has one row per face: name of the image, number of the face (from 0; with --boxes that
    of its box among the image's rows), score of the detector, mean confidence, and the landmarks
    x0, y0, ... in image pixels. An image without a face has a row of nan. EXIF orientation is
    applied. Ctrl-C or SIGTERM stops early and writes the results so far.

    Example: rednet align group.jpg --faces all --csv landmarks.csv --overlay drawn
    """
    from rednet_jax.inference.align_files import align_files
    from rednet_jax.inference.face import MIN_CONFIDENCE
    from rednet_jax.media.images import ENDINGS

    if args.csv == args.json == "-":
        raise RednetError("--csv and --json cannot both go to standard output")
    sources = [file for path in args.images for file in shared.files_of(path, ENDINGS)]
    shared.check_outputs(
        [("--csv", args.csv), ("--json", args.json)],
        [*sources, args.boxes, shared.weights_file(args.checkpoint)],
        folders=[("--overlay", args.overlay)],
    )
    outputs = [args.csv, args.json, args.overlay]
    print_csv, print_json = args.csv == "-" or not any(outputs), args.json == "-"
    with progress("image") as report:
        aligned = align_files(
            args.images,
            checkpoint=args.checkpoint,
            feedback_steps=args.feedback_steps,
            faces=args.faces if "faces" in args else 1 if args.boxes is None else None,
            min_confidence=MIN_CONFIDENCE if args.min_confidence is None else args.min_confidence,
            boxes=args.boxes,
            csv=None if print_csv else args.csv,
            json=None if print_json else args.json,
            overlay=args.overlay,
            report=report,
        )
    if print_csv:
        print(aligned.csv(), end="")
    elif print_json:
        print(aligned.json(), end="")
    else:
        images, with_face = len(aligned.faces), sum(map(bool, aligned.faces.values()))
        count = sum(map(len, aligned.faces.values()))
        faces = "1 face" if count == 1 else f"{count} faces"
        where = " and ".join(path for path in outputs if path is not None)
        print(f"{faces} in {with_face} of {images} images: {where}")
    status = failed(aligned.failures)
    return 130 if aligned.interrupted else status


def track(args: argparse.Namespace) -> int:
    """Track faces through a video, numbered images, or the frames of a camera.

    Ctrl-C or SIGTERM stops a camera or a file, and writes the frames so far.

    Example: rednet track talk.mp4 --out talk_landmarks.mp4 --landmarks talk.csv
    """
    from rednet_jax.inference.track_file import track_file

    shared.check_outputs(
        [("--out", args.out), ("--landmarks", args.landmarks), ("--jsonl", args.jsonl)],
        [*_frames(args.video), shared.weights_file(args.checkpoint)],
    )
    try:
        with progress("frame") as report:
            tracked = track_file(
                args.video,
                checkpoint=args.checkpoint,
                faces=args.faces,
                feedback_steps=args.feedback_steps,
                carry=args.carry,
                smooth=args.smooth,
                out=args.out,
                landmarks=args.landmarks,
                jsonl=args.jsonl,
                fps=args.fps,
                report=report,
            )
    finally:
        drop_unwritten()
    if tracked.files:
        people = "1 person" if tracked.people == 1 else f"{tracked.people} people"
        print(
            f"a face in {tracked.found} of {tracked.frames} frames, "
            f"{people}, {tracked.frames_per_second:.0f} frames/s: "
            f"{' and '.join(map(str, tracked.files))}",
            # Where an output is "-", standard output is for its data only.
            file=sys.stderr if "-" in (args.landmarks, args.jsonl) else sys.stdout,
        )
    status = failed(tracked.failures)
    return 130 if tracked.interrupted else status


def _frames(video: str | int) -> list[Path]:
    """Returns the files that a video is read from."""
    from rednet_jax.media.images import ENDINGS

    if isinstance(video, int):
        return []
    path = Path(video)
    before, number, after = re.split(r"(%0?\d*d|$)", path.name, maxsplit=1)
    if not number or path.exists() or not path.parent.is_dir():
        return shared.files_of(path, ENDINGS)
    frame = re.compile(rf"{re.escape(before)}\d+{re.escape(after)}")
    return [file for file in path.parent.iterdir() if frame.fullmatch(file.name)]


def quickstart(args: argparse.Namespace) -> int:
    """Demonstrate tracking with 1, 2 and 3 feedback passes, and sharded training.

    Tracks a generated video of a moving portrait. Then trains a small network on generated faces
    over a 2x2 mesh of virtual CPU devices, stops, and resumes from the checkpoint. Needs no
    download and no prepared data. Takes a minute or two, mostly for compilation.

    Example: rednet quickstart --out rednet_quickstart
    """
    from rednet_jax.quickstart import FRAMES, quickstart
    from rednet_jax.train.demonstration import MESH, RESUMED, STOPPED, demonstrate

    shared.check_outputs([], folders=[("--out", args.out)])
    with progress("frame") as report:
        result = quickstart(args.out, checkpoint=args.checkpoint, report=report)
    print(f"Tracking a generated video of a moving portrait, {FRAMES} frames:\n")
    print(" K   frames with a face   ms a frame   jitter, % of the inter-ocular distance")
    for k, found, milliseconds, jitter in result.figures:
        print(f" {k}   {found:18d}   {milliseconds:10.1f}   {jitter:6.2f}")
    print(
        f"\n{result.overlay}\n{result.video} (K = 1, 2, 3 side by side)\n"
        f"{result.animation}\n{result.landmarks}"
    )
    mesh = ",".join(f"{axis}={size}" for axis, size in MESH.items())
    print(f"\nTraining on 4 virtual CPU devices, --mesh {mesh}; compilation takes most of the time")
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
            f"\n\nTo train the remaining steps on one device:"
            f"\nrednet train {trained.experiment} --run-dir {trained.run_dir}"
        )
    print("\nNext:\nrednet align YOUR_IMAGE.jpg --overlay drawn\nrednet track YOUR_VIDEO.mp4")
    return failed(failures)
