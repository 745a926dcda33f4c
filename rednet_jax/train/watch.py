"""What a run writes for people to watch: figures, TensorBoard's events, images, its machine."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, TextIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rednet_jax.evaluate.protocols import Crops
from rednet_jax.files import write_text, writing
from rednet_jax.landmarks.crops import apply_affine, invert_affine
from rednet_jax.landmarks.drawing import contact_sheet, draw_landmarks, write_image
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.reading import parse_json

METRICS, ENVIRONMENT, IMAGES = "metrics.jsonl", "environment.jsonl", "pictures"
"""Names in a run's folder."""

_EVENTS = "tensorboard"

VALIDATION = "validation_nme"
"""The entry of a row that holds the validation NME after each pass, percent."""

JITTER = "validation_jitter"
"""The same of the jitter in clips."""

COLUMNS = 6
"""Faces in a row of an image: so many of the worst, and below them so many typical ones."""

_TILE = 192

Row = dict[str, Any]
Indices = NDArray[np.intp]


class Face(NamedTuple):
    """A validation face and what the network makes of it.

    Attributes:
        name: of the face.
        image: uint8 [S, S, 3], as the network sees it.
        landmarks: float [L, 2], the network's, pixels of `image`.
        truth: float [L, 2], pixels of `image`.
        labelled: bool [L], which of `truth` are known.
        nme: percent.
        scheme: of the landmarks.
    """

    name: str
    image: NDArray[np.uint8]
    landmarks: NDArray[np.floating]
    truth: NDArray[np.floating]
    labelled: NDArray[np.bool_]
    nme: float
    scheme: Scheme


class RunLog:
    """Everything in a run's folder that is there to be watched; a context manager.

    metrics.jsonl holds a JSON object a line; tensorboard/ the same figures and the images as
    events; pictures/ a PNG for each step that had some; environment.jsonl a line for each start of
    the run: the step it resumed at, and what it ran with.
    """

    def __init__(self, run_dir: Path, kept_until: int, start: Row) -> None:
        """Opens the files; what they hold of later steps, which will be run again, is dropped.

        Args:
            run_dir: the run's folder.
            kept_until: steps done by the state that the run resumes with.
            start: what environment.jsonl records of this start.

        Raises:
            RednetError: a file cannot be written.
        """
        self._images = run_dir / IMAGES
        for path in image_files(run_dir):
            if image_step(path) > kept_until:
                path.unlink()
        with writing(run_dir / _EVENTS):
            self._events = _Events(run_dir / _EVENTS, kept_until)
        # What another process began with at this very step led to nothing that is kept.
        environment = run_dir / ENVIRONMENT
        with writing(environment), _append_to(environment, kept_until - 1) as file:
            file.write(json.dumps({"step": kept_until, **start}) + "\n")
        self._metrics = _append_to(run_dir / METRICS, kept_until)

    def write(self, row: Row) -> None:
        """Adds a row of figures.

        Args:
            row: `step`, and numbers by name; or `validation_nme`, a list of them, one for each
                pass, and of clips `validation_jitter`, too. Numbers go to TensorBoard as
                train/NAME, the lists as validation/nme_passK and validation/jitter_passK.

        Raises:
            RednetError: a file cannot be written.
        """
        with writing(self._metrics.name):
            self._metrics.write(json.dumps(row) + "\n")
            self._metrics.flush()
        figures = {
            f"validation/{short}_pass{number}": value
            for name, short in ((VALIDATION, "nme"), (JITTER, "jitter"))
            for number, value in enumerate(row.get(name, ()), 1)
        }
        figures |= {
            f"train/{name}": value
            for name, value in row.items()
            if name != "step" and isinstance(value, int | float)
        }
        self._events.scalars(row["step"], figures)

    def images(self, step: int, faces: Sequence[Face]) -> None:
        """Writes pictures/step_STEP.png: faces with the network's landmarks, the truth as dots.

        Args:
            step: steps done.
            faces: set out in rows of COLUMNS, as `faces_to_show` has them.

        Raises:
            RednetError: the file cannot be written.
        """
        path = self._images / f"step_{step:08d}.png"
        captions, tiles = [_caption(face) for face in faces], [_tile(face) for face in faces]
        sheet = contact_sheet(captions, [tiles], COLUMNS)
        write_image(path, sheet)
        self._events.image(step, "validation/faces", path.read_bytes(), sheet.shape)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # All was flushed as it was written: what fails here has failed before.
        for file in (self._metrics, self._events):
            with contextlib.suppress(OSError):
                file.close()


def read_rows(path: Path) -> list[Row]:
    """Returns the rows of a file of JSON lines; none where there is no file.

    Half a line, left by a run that was killed while it wrote, or is writing now, is left out.
    """
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    rows = []
    for line in text.splitlines():
        try:
            row = parse_json(line)
        except ValueError:
            continue
        if _is_row(row):
            rows.append(row)
    return rows


def _is_row(row: Any) -> bool:
    """Whether a line was written by a run: it has a step, and a figure for each pass."""
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return False
    passes = [row[name] for name in (VALIDATION, JITTER) if name in row]
    return all(isinstance(one, list) and one and all(map(_is_figure, one)) for one in passes)


def _is_figure(value: Any) -> bool:
    return type(value) in (int, float)


def image_files(run_dir: Path) -> list[Path]:
    """Returns the images of a run, the oldest first."""
    return sorted((run_dir / IMAGES).glob("step_*.png"), key=image_step)


def image_step(path: Path) -> int:
    """Returns the step of a run's image."""
    return int(path.stem.removeprefix("step_"))


def worst_and_typical(errors: NDArray[np.floating], count: int) -> Indices:
    """Returns `count` faces with the largest errors, then as many of the rest near the median.

    Args:
        errors: [N]; a face whose error is nan is not chosen.
        count: of each kind; with few faces there are fewer.

    Returns:
        int [2 * count]: the worst, the largest error first; then the typical, the error nearest
        the median first.
    """
    known = np.flatnonzero(~np.isnan(errors))
    order = known[np.argsort(-errors[known], kind="stable")]
    worst, rest = order[:count], order[count:]
    if not len(rest):
        return worst
    away = np.abs(errors[rest] - np.median(errors[known]))
    return np.concatenate([worst, rest[np.argsort(away, kind="stable")[:count]]])


def faces_to_show(
    crops: Crops, landmarks: NDArray[np.floating], errors: NDArray[np.floating]
) -> list[Face]:
    """Returns the COLUMNS worst and COLUMNS typical faces of a split.

    Args:
        crops: N faces.
        landmarks: [N, L, 2], the network's, crop pixels.
        errors: [N], percent; nan where a face is not measurable.
    """
    return faces_of(crops, landmarks, errors, worst_and_typical(errors, COLUMNS))


def faces_of(
    crops: Crops, landmarks: NDArray[np.floating], errors: NDArray[np.floating], rows: Indices
) -> list[Face]:
    """Returns some faces of N.

    Args:
        crops: N faces.
        landmarks: [N, L, 2], the network's, crop pixels.
        errors: [N], percent.
        rows: int [n], which faces.
    """
    return [
        Face(
            crops.names[row],
            crops.images[row],
            landmarks[row],
            apply_affine(invert_affine(crops.affines[row]), crops.landmarks[row]),
            crops.labelled[row],
            float(errors[row]),
            crops.scheme,
        )
        for row in rows
    ]


class _Events:
    """TensorBoard's events of a run.

    tensorboardX's own SummaryWriter hands events to a thread through a queue of ten: where the
    thread has died of a full disk, the run would wait for it forever. Here a write that fails says
    so, and what was written before a checkpoint is on disk with it.
    """

    def __init__(self, folder: Path, kept_until: int) -> None:
        # Imported late: the rest of training needs none of it.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        self._folder, self._event, self._summary = folder, Event, Summary
        folder.mkdir(parents=True, exist_ok=True)
        # Files are read in the order of their names, which begin with the second of their making.
        self._writer = EventsWriter(str(folder / "events"), f".{kept_until:08d}")
        # TensorBoard forgets, at this event, what it has read of its step and of later ones.
        begin = Event(step=kept_until + 1, session_log=SessionLog(status=SessionLog.START))
        self._write(begin)

    def scalars(self, step: int, figures: dict[str, float]) -> None:
        values = [{"tag": tag, "simple_value": value} for tag, value in figures.items()]
        self._write(self._event(step=step, summary=self._summary(value=values)))

    def image(self, step: int, tag: str, png: bytes, shape: tuple[int, ...]) -> None:
        height, width, channels = shape
        image = self._summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=png
        )
        self._write(
            self._event(step=step, summary=self._summary(value=[{"tag": tag, "image": image}]))
        )

    def close(self) -> None:
        self._writer.close()

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        with writing(self._folder):
            self._writer.write_event(event)
            self._writer.flush()


def _append_to(path: Path, kept_until: int) -> TextIO:
    """Opens a file of JSON lines for more; those of later steps are dropped."""
    kept = [row for row in read_rows(path) if row["step"] <= kept_until]
    write_text(path, "".join(f"{json.dumps(row)}\n" for row in kept))
    return path.open("a", encoding="utf-8")


def _caption(face: Face) -> str:
    return f"{face.name}  {face.nme:.2f} %"


def _tile(face: Face) -> NDArray[np.uint8]:
    scale = _TILE / face.image.shape[0]
    image = Image.fromarray(face.image).resize((_TILE, _TILE), Image.Resampling.BILINEAR)
    drawn = draw_landmarks(np.asarray(image), (face.landmarks + 0.5) * scale - 0.5, face.scheme)
    tile = Image.fromarray(drawn)
    draw = ImageDraw.Draw(tile)
    for x, y in (face.truth[face.labelled] + 0.5) * scale - 0.5:
        draw.circle((float(x), float(y)), 1.2, fill="white", outline="black")
    return np.asarray(tile)
