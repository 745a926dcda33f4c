"""Time per frame of video: each part of tracking separately, and end to end."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rednet_jax.detection.detector import FaceDetector
from rednet_jax.detection.yunet import YuNet
from rednet_jax.evaluate.provenance import provenance
from rednet_jax.inference.search import VIDEO_SEARCH
from rednet_jax.inference.streams import Region, Streams, Variables
from rednet_jax.inference.track_file import track_file
from rednet_jax.inference.tracker import Tracker
from rednet_jax.landmarks.boxes import whole_face_box
from rednet_jax.landmarks.crops import crop_image, crop_transform
from rednet_jax.landmarks.drawing import draw_landmarks
from rednet_jax.media.video import VideoReader, write_video
from rednet_jax.model.config import RedNetConfig
from rednet_jax.quickstart import portrait_clip
from rednet_jax.weights.store import Checkpoint, name_in_command, network_of

SIZE = (640, 480)
"""Width and height of the clip."""

CORNERS = ((32, 0), (352, 0), (32, 240), (352, 240))
"""Corners of the portraits in the clip, of 240 or 480 pixels on each side."""


def bench_track(
    checkpoint: Checkpoint = "compact_video",
    *,
    feedback_steps: int = 1,
    faces: Sequence[int] = (1, 4),
    rounds: int = 3,
) -> dict[str, Any]:
    """Measures tracking on a generated clip of 640 x 480 pixels with a moving portrait.

    Args:
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        feedback_steps: K.
        faces: numbers of faces in the clip to measure, 1 to 4.
        rounds: number of end-to-end runs; their median is reported.

    Returns:
        `size`, `frames`, `feedback_steps`, and `per_clip`, a row for each number of faces: `faces`,
        `found` (mean per frame), ms per frame of `decode`, `detect`, `draw` and `encode` (medians
        over frames, each separately), ms per face of `crop` and `network`, and `frames_per_second`
        of `track_file`, end to end with decoding, drawing and encoding, without compilation.

    Raises:
        RednetError: a checkpoint that cannot be read, or feedback_steps below 1.
    """
    config, variables = network_of(checkpoint)
    detector = YuNet(VIDEO_SEARCH)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in faces:
            frames = moving_portraits(count)
            with write_video(folder / "clip.mp4", 25, SIZE) as write:
                for frame in frames:
                    write(frame)
            rates = [
                track_file(
                    folder / "clip.mp4",
                    checkpoint=(config, variables),
                    faces=count,
                    feedback_steps=feedback_steps,
                    out=folder / "drawn.mp4",
                    landmarks=folder / "points.csv",
                ).frames_per_second
                for _ in range(rounds)
            ]
            rows.append(
                {
                    "faces": count,
                    **_parts(config, variables, feedback_steps, count, frames, folder, detector),
                    "frames_per_second": statistics.median(rates),
                }
            )
    return {
        "size": f"{SIZE[0]}x{SIZE[1]}",
        "frames": len(frames),
        "feedback_steps": feedback_steps,
        "per_clip": rows,
        "provenance": provenance(
            f"rednet bench track --checkpoint {name_in_command(checkpoint)} "
            f"--feedback-steps {feedback_steps}",
            seed=0,
        ),
    }


def moving_portraits(count: int) -> NDArray[np.uint8]:
    """Returns frames uint8 [T, 480, 640, 3] with `count` moving portraits, 1 to 4."""
    clip, _ = portrait_clip()
    # A single portrait is enlarged twice and cropped to 480.
    tile = clip.repeat(2, axis=1).repeat(2, axis=2)[:, 16:496, 16:496] if count == 1 else clip
    side = min(tile.shape[1], SIZE[1] if count == 1 else SIZE[1] // 2)
    frames = np.full((len(clip), SIZE[1], SIZE[0], 3), 128, np.uint8)
    for number, (x, y) in enumerate(CORNERS[:count]):
        # Shifted in time, so that the portraits differ.
        shown = np.roll(tile[:, :side, :side], 12 * number, axis=0)
        frames[:, y : y + side, x : x + side] = shown
    return frames


def _parts(
    config: RedNetConfig,
    variables: Variables,
    feedback_steps: int,
    count: int,
    frames: NDArray[np.uint8],
    folder: Path,
    detector: FaceDetector,
) -> dict[str, float]:
    times: dict[str, list[float]] = defaultdict(list)

    @contextlib.contextmanager
    def timed(part: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        times[part].append(time.perf_counter() - begin)

    with VideoReader(folder / "clip.mp4") as reader:
        stored = iter(reader)
        for _ in frames:
            with timed("decode"):
                next(stored)
    for frame in frames[::8]:
        with timed("detect"):
            detector.detect(frame)
    tracker = Tracker(
        (config, variables), faces=count, feedback_steps=feedback_steps, detector=detector
    )
    tracked = [tracker.update(frame) for frame in frames]
    streams = Streams(config, variables, count, feedback_steps=feedback_steps)
    for frame, found_faces in zip(frames, tracked, strict=True):
        boxes = {
            row: whole_face_box(face.landmarks, face.scheme, expected=face.box)
            for row, face in enumerate(found_faces)
        }
        with timed("crop"):
            for box in boxes.values():
                affine = crop_transform(box, margin=config.input_margin, size=config.input_size)
                crop_image(frame, affine, config.input_size)
        with timed("look"):
            looks = streams.look(frame, {row: Region(box) for row, box in boxes.items()})
        for row, look in looks.items():
            streams.keep(row, look)
    # In a separate loop, since the encoder's threads continue after the call.
    with write_video(folder / "parts.mp4", 25, SIZE) as write:
        for frame, found_faces in zip(frames, tracked, strict=True):
            image = frame
            with timed("draw"):
                for face in found_faces:
                    image = draw_landmarks(image, face.landmarks, face.scheme)
            with timed("encode"):
                write(image)
    ms = {part: 1e3 * statistics.median(seconds) for part, seconds in times.items()}
    faces = float(np.mean([len(found_faces) for found_faces in tracked]))
    return {
        "found": faces,
        "decode_ms": ms["decode"],
        "detect_ms": ms["detect"],
        "crop_ms": ms["crop"] / max(faces, 1),
        "network_ms": (ms["look"] - ms["crop"]) / max(faces, 1),
        "draw_ms": ms["draw"],
        "encode_ms": ms["encode"],
    }
