"""The logs of a run: metrics, TensorBoard events, images, and a record of each start."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
from collections.abc import Mapping, Sequence
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

METRICS, ENVIRONMENT, IMAGES = "metrics.jsonl", "environment.jsonl", "images"
"""Names in a run's folder."""

_EVENTS = "tensorboard"
_FORMER_IMAGES = "pictures"
"""Name of the folder of images in runs of earlier versions."""

_IMAGE_NAME = re.compile(r"step_\d+\.png")

VALIDATION = "validation_nme"
"""Key of a row's validation NME after each pass, percent."""

JITTER = "validation_jitter"
"""Key of a row's validation jitter in clips after each pass, percent."""

COLUMNS = 6
"""Number of faces in each row of an image: the worst, and typical ones."""

_TILE = 192

Row = dict[str, Any]
Indices = NDArray[np.intp]


class Face(NamedTuple):
    """A validation face with its landmarks.

    Attributes:
        name: of the face.
        image: uint8 [S, S, 3], the network's input image.
        landmarks: float [L, 2], the network's, pixels of `image`.
        truth: float [L, 2], pixels of `image`.
        labelled: bool [L], mask of `truth`.
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
    """The logs in a run's folder; a context manager.

    metrics.jsonl has a JSON object per line, tensorboard/ the same metrics and the images as
    events, images/ a PNG for each validation, and environment.jsonl a line for each start of the
    run, with the step that it resumed at.
    """

    def __init__(self, run_dir: Path, kept_until: int, start: Row) -> None:
        """Opens the files and drops records of later steps, which will be run again.

        Args:
            run_dir: the run's folder.
            kept_until: steps done by the state that the run resumes with.
            start: record of this start for environment.jsonl.

        Raises:
            RednetError: a file cannot be written.
        """
        self._images = run_dir / IMAGES
        for path in image_files(run_dir):
            if image_step(path) > kept_until:
                path.unlink()
        with writing(run_dir / _EVENTS):
            self._events = _Events(run_dir / _EVENTS, kept_until)
        # An earlier start at the same step has no steps that are kept.
        environment = run_dir / ENVIRONMENT
        with writing(environment), _append_to(environment, kept_until - 1) as file:
            file.write(_line({"step": kept_until, **start}))
        self._metrics = _append_to(run_dir / METRICS, kept_until)

    def write(self, row: Row) -> None:
        """Adds a row of metrics.

        Args:
            row: `step`, and numbers by name; or `step` and `validation_nme`, a list with a number
                for each pass, for clips also `validation_jitter`. In TensorBoard numbers are
                train/NAME, and lists are validation/nme_passK and validation/jitter_passK. Values
                that are not finite, such as the NME of a batch without labels, are null in the
                file.

        Raises:
            RednetError: a file cannot be written.
        """
        with writing(self._metrics.name):
            self._metrics.write(_line(row))
            self._metrics.flush()
        scalars = {
            f"validation/{short}_pass{number}": value
            for name, short in ((VALIDATION, "nme"), (JITTER, "jitter"))
            for number, value in enumerate(row.get(name, ()), 1)
        }
        scalars |= {
            f"train/{name}": value
            for name, value in row.items()
            if name != "step" and isinstance(value, int | float)
        }
        self._events.scalars(row["step"], scalars)

    def images(self, step: int, faces: Sequence[Face]) -> None:
        """Writes images/step_STEP.png: faces with the network's landmarks, and dots of the truth.

        Args:
            step: steps done.
            faces: to show in rows of COLUMNS, such as those of `faces_to_show`.

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
        # Every write was flushed, so an error here has been raised before.
        for file in (self._metrics, self._events):
            with contextlib.suppress(OSError):
                file.close()


def read_rows(path: Path) -> list[Row]:
    """Returns the rows of a file of JSON lines; none if there is no file.

    Incomplete lines, of a run that was killed or is writing now, are skipped.
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


def comparable_after(stages: Sequence[Mapping[str, Any]], number: int) -> int:
    """Returns the step after which validation errors up to a stage are of the same faces.

    The best weights are chosen by the errors after this step.

    Args:
        stages: of `Experiment.to_json`.
        number: of the stage, from 0.
    """

    def faces(stage: Mapping[str, Any]) -> Any:
        data = stage["data"]
        return data if "faces" in data else data["validation"]

    while number and faces(stages[number - 1]) == faces(stages[number]):
        number -= 1
    return sum(stage["steps"] for stage in stages[:number])


def best_of(rows: Sequence[Row], stages: Sequence[Mapping[str, Any]]) -> tuple[float, int] | None:
    """Returns the smallest validation NME of the last pass, percent, and its step.

    Args:
        rows: of metrics.jsonl; errors of other faces than those of the newest do not count.
        stages: of `Experiment.to_json`.

    Returns:
        None if there is no validation NME.
    """
    measured = [(row[VALIDATION][-1], row["step"]) for row in rows if VALIDATION in row]
    if not measured:
        return None
    *begins, _ = itertools.accumulate((stage["steps"] for stage in stages), initial=0)
    started = (number for number, begin in enumerate(begins) if begin < measured[-1][1])
    after = comparable_after(stages, max(started, default=0))
    return min((pair for pair in measured if pair[1] > after), default=None)


def _is_row(row: Any) -> bool:
    """Returns whether a line is a valid row: it has a step, and a number for each pass.

    The jitter can be null: clips of fewer than three frames have none.
    """
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return False
    kinds = {VALIDATION: (int, float), JITTER: (int, float, type(None))}
    return all(
        isinstance(row[name], list)
        and row[name]
        and all(type(num) in kinds[name] for num in row[name])
        for name in kinds.keys() & row.keys()
    )


def image_files(run_dir: Path) -> list[Path]:
    """Returns the images of a run, the oldest first."""
    paths = [
        path
        for folder in (IMAGES, _FORMER_IMAGES)
        for path in (run_dir / folder).glob("step_*.png")
        if _IMAGE_NAME.fullmatch(path.name)
    ]
    return sorted(paths, key=image_step)


def image_step(path: Path) -> int:
    """Returns the step of a run's image."""
    return int(path.stem.removeprefix("step_"))


def worst_and_typical(errors: NDArray[np.floating], count: int) -> Indices:
    """Returns the faces with the largest errors, then others with errors near the median.

    Args:
        errors: [N]; faces with error nan are not chosen.
        count: number of each kind; there are fewer if N is small.

    Returns:
        int [2 * count]: the worst, by decreasing error; then the typical, by increasing distance of
        the error from the median.
    """
    known = np.flatnonzero(~np.isnan(errors))
    order = known[np.argsort(-errors[known], kind="stable")]
    worst, rest = order[:count], order[count:]
    if not len(rest):
        return worst
    distance = np.abs(errors[rest] - np.median(errors[known]))
    return np.concatenate([worst, rest[np.argsort(distance, kind="stable")[:count]]])


def faces_to_show(
    crops: Crops, landmarks: NDArray[np.floating], errors: NDArray[np.floating]
) -> list[Face]:
    """Returns the COLUMNS worst and COLUMNS typical faces of a split.

    Args:
        crops: N faces.
        landmarks: [N, L, 2], the network's, crop pixels.
        errors: [N], percent; nan if a face is not measurable.
    """
    return faces_of(crops, landmarks, errors, worst_and_typical(errors, COLUMNS))


def faces_of(
    crops: Crops, landmarks: NDArray[np.floating], errors: NDArray[np.floating], rows: Indices
) -> list[Face]:
    """Returns a selection of faces.

    Args:
        crops: N faces.
        landmarks: [N, L, 2], the network's, crop pixels.
        errors: [N], percent.
        rows: int [n], indices of the faces.
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
    """TensorBoard events of a run.

    tensorboardX's SummaryWriter passes events to a thread through a queue of ten: if the thread has
    died of a full disk, the run would wait forever. Here failed writes raise an error, and events
    before a checkpoint are on disk when the checkpoint is.
    """

    def __init__(self, folder: Path, kept_until: int) -> None:
        # Imported here, because the readers of logs do not need it.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        self._folder, self._event, self._summary = folder, Event, Summary
        folder.mkdir(parents=True, exist_ok=True)
        # Files are read in the order of their names, which begin with the time of creation.
        self._writer = EventsWriter(str(folder / "events"), f".{kept_until:08d}")
        # At this event, TensorBoard discards the events of its step and of later ones.
        start = Event(step=kept_until + 1, session_log=SessionLog(status=SessionLog.START))
        self._write(start)

    def scalars(self, step: int, scalars: dict[str, float]) -> None:
        values = [{"tag": tag, "simple_value": value} for tag, value in scalars.items()]
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
    """Opens a file of JSON lines for appending, after dropping the lines of later steps."""
    kept = [row for row in read_rows(path) if row["step"] <= kept_until]
    write_text(path, "".join(map(_line, kept)))
    return path.open("a", encoding="utf-8")


def _line(row: Row) -> str:
    """Returns a row as a line of JSON, which has no nan and inf: they are null."""
    finite = json.loads(json.dumps(row), parse_constant=lambda _: None)
    return f"{json.dumps(finite)}\n"


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
