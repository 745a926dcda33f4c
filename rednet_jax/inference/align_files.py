"""Landmarks in image files: what `rednet align` does."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rednet_jax.detection.detector import FaceDetector
from rednet_jax.errors import RednetError
from rednet_jax.fields import shown
from rednet_jax.files import check_writable, write_text
from rednet_jax.inference.aligner import Aligner
from rednet_jax.inference.face import MIN_CONFIDENCE, Face
from rednet_jax.landmarks.drawing import draw_landmarks, write_image
from rednet_jax.landmarks.table import FACE_COLUMNS, landmarks_csv, read_boxes_csv
from rednet_jax.media.folders import files_in
from rednet_jax.media.images import ENDINGS, read_image
from rednet_jax.weights.store import Checkpoint

_NOT_IMAGES_NAMED = 3


class Aligned(NamedTuple):
    """The result of `align_files`.

    Attributes:
        faces: the faces of each image by the image's name, in the order of the table.
        numbers: the numbers of these faces from 0; with a boxes file, those of their boxes among
            the image's rows, without the boxes that have no confident face.
        landmarks: L, landmarks of a face.
        failures: one line for each image or box without a face, for skipped files and folders that
            cannot be read, for overlays that cannot be written, and after Ctrl-C.
        interrupted: True after Ctrl-C: the remaining images are missing.
    """

    faces: dict[str, list[Face]]
    numbers: dict[str, list[int]]
    landmarks: int
    failures: list[str]
    interrupted: bool

    def csv(self) -> str:
        """Returns the table: a row for each face, and a row of nan for an image without one.

        Columns are `name`, `FACE_COLUMNS` and x0, y0, ... in image pixels.
        """
        names: list[str] = []
        points: list[NDArray[np.floating]] = []
        columns: dict[str, list[str]] = {column: [] for column in FACE_COLUMNS}
        blank = np.full((self.landmarks, 2), np.nan)
        for name, faces in self.faces.items():
            rows = [
                (number, face.landmarks, face.score, float(face.confidence.mean()))
                for number, face in zip(self.numbers[name], faces, strict=True)
            ] or [(0, blank, None, np.nan)]
            for number, landmarks, score, confidence in rows:
                names.append(name)
                points.append(landmarks)
                cells = (
                    str(number),
                    f"{np.nan if score is None else score:.3f}",
                    f"{confidence:.3f}",
                )
                for column, text in zip(FACE_COLUMNS, cells, strict=True):
                    columns[column].append(text)
        return landmarks_csv(names, np.reshape(points, (-1, self.landmarks, 2)), columns)

    def json(self) -> str:
        """Returns `{"images": [{"name", "faces": [...]}]}` as text.

        A face has `box` [4], `score` (null where the boxes come from a file), `confidence` (the
        mean over landmarks), `landmarks` [L, 2] and `landmark_confidence` [L].
        """
        images = [
            {"name": name, "faces": [face_json(face) for face in faces]}
            for name, faces in self.faces.items()
        ]
        return json.dumps({"images": images}) + "\n"


def face_json(face: Face) -> dict[str, Any]:
    """Returns the JSON object of a face, which `Aligned.json` describes."""
    return {
        "box": rounded(face.box),
        "score": None if face.score is None else rounded(face.score),
        "confidence": rounded(np.mean(face.confidence)),
        "landmarks": rounded(face.landmarks),
        "landmark_confidence": rounded(face.confidence),
    }


def rounded(values: Any) -> Any:
    """Returns numbers or arrays for JSON, rounded to three decimals."""
    return np.round(np.asarray(values, np.float64), 3).tolist()


def align_files(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    checkpoint: Checkpoint = "compact",
    feedback_steps: int = 3,
    faces: int | None = 1,
    min_confidence: float = MIN_CONFIDENCE,
    detector: FaceDetector | None = None,
    boxes: str | os.PathLike[str] | None = None,
    csv: str | os.PathLike[str] | None = None,
    json: str | os.PathLike[str] | None = None,
    overlay: str | os.PathLike[str] | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Aligned:
    """Finds the landmarks of the most prominent faces of each image.

    After Ctrl-C, the results so far are written; without any, nothing is.

    Args:
        paths: one or several image files and folders. A folder stands for all images below it, also
            in linked folders.
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        feedback_steps: K, passes of the network.
        faces: maximum number of faces per image; None for all.
        min_confidence: a face with a lower mean confidence counts as not found, 0 to 1.
        detector: finds the faces; `YuNet()` if None.
        boxes: CSV file name,x0,y0,x1,y1 of the landmarks' bounding boxes, used instead of the
            detector. It has a row for each face; `name` has the file extension or not.
        csv: CSV file for `Aligned.csv`.
        json: JSON file for `Aligned.json`.
        overlay: folder for a PNG of each image with its landmarks drawn. If it lies below a folder
            of `paths`, its images are not read.
        report: called with the number of images done and the total.

    Raises:
        KeyboardInterrupt: on Ctrl-C before the first result.
        RednetError: no image can be read, the checkpoint or the boxes file is invalid, an option is
            out of range, or an output cannot be written. The other outputs are still written.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    files, skipped = _named(given, overlay)
    drawings = {} if overlay is None else {n: Path(overlay) / f"{n}.png" for n in files}
    if replaced := {p.resolve() for p in files.values()} & {p.resolve() for p in drawings.values()}:
        raise RednetError(f"{min(replaced)}: an image that an overlay would replace")
    for output in (csv, json, *drawings.values()):
        if output is not None:
            check_writable(output)
    box_of = None if boxes is None else read_boxes_csv(boxes)
    aligner = Aligner(
        checkpoint,
        feedback_steps=feedback_steps,
        faces=faces,
        detector=detector,
        min_confidence=min_confidence,
    )
    results: dict[str, list[Face]] = {}
    numbers: dict[str, list[int]] = {}
    failures: list[str] = []
    readable = 0
    interrupted = False
    try:
        for name, path in files.items():
            found: list[Face] = []
            found_numbers: list[int] = []
            try:
                image = read_image(path, upright=True)
                readable += 1
                image_boxes = None if box_of is None else _boxes(name, path, box_of)
                found = aligner.align([image], None if image_boxes is None else [image_boxes])[0]
            except RednetError as error:
                has_path = str(path) in str(error)
                failures.append(str(error) if has_path else f"{name}: {error}")
            else:
                if image_boxes is not None:
                    found_numbers, lost_boxes = _numbers(found, image_boxes, faces)
                    failures += [f"{name}: no confident face in {box}" for box in lost_boxes]
                else:
                    found_numbers = list(range(len(found)))
                    failures += [] if found else [f"{name}: no face found"]
                if drawings:
                    for face in found:
                        image = draw_landmarks(image, face.landmarks, face.scheme)
                    try:
                        write_image(drawings[name], image)
                    except RednetError as error:
                        failures.append(str(error))
            # An image that Ctrl-C interrupts must not count as one without a face.
            results[name], numbers[name] = found, found_numbers
            report(len(results), len(files))
    except KeyboardInterrupt:
        if not results:
            raise
        interrupted = True
        failures.append(
            f"interrupted; the results of {len(results)} of {len(files)} images are kept"
        )
    if not (readable or interrupted):
        rest = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise RednetError(failures[0] + rest)
    landmarks = aligner.config.scheme.count
    aligned = Aligned(results, numbers, landmarks, failures + skipped, interrupted)
    lost = []
    for output, text in ((csv, aligned.csv), (json, aligned.json)):
        if output is not None:
            try:
                write_text(output, text())
            except RednetError as error:
                lost.append(str(error))
    if lost:
        raise RednetError("; ".join(lost))
    return aligned


def _boxes(
    name: str, path: Path, box_of: Mapping[str, list[NDArray[np.float32]]]
) -> list[NDArray[np.float32]]:
    for key in (name, f"{name}{path.suffix}"):
        if key in box_of:
            return box_of[key]
    raise RednetError("has no row in the boxes file")


def _numbers(
    found: Sequence[Face], boxes: Sequence[NDArray[np.float32]], limit: int | None
) -> tuple[list[int], list[str]]:
    """Returns the numbers of the faces' boxes, and a text for each box without a face.

    Faces and boxes have the same order. Boxes after `limit` faces were not used.
    """
    numbers: list[int] = []
    lost: list[str] = []
    for number, box in enumerate(boxes):
        if len(numbers) == limit:
            break
        if len(numbers) < len(found) and np.array_equal(found[len(numbers)].box, box):
            numbers.append(number)
        else:
            lost.append(f"box {number} ({','.join(f'{edge:g}' for edge in box)})")
    return numbers, lost


def _named(
    paths: Sequence[str | os.PathLike[str]], overlay: str | os.PathLike[str] | None = None
) -> tuple[dict[str, Path], list[str]]:
    """Returns the image files by name, and a line for each folder with skipped files.

    A name is the path relative to the common parent folder, without the file extension unless this
    would be the name of another file, too. Images in the overlay folder below a path are left out.
    """
    files: list[Path] = []
    skipped: list[str] = []
    if not paths:
        raise RednetError("no image and no folder is given")
    for path in paths:
        # Path("") is the current folder.
        if not isinstance(path, str | os.PathLike) or not os.fspath(path):
            raise RednetError(f"{shown(path)}: not the name of an image or a folder")
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        inside, unreadable = files_in(path, overlay)
        images = [p for p in inside if p.suffix.lower() in ENDINGS]
        if not images:
            raise RednetError(unreadable[0] if unreadable else f"{path}: no image in this folder")
        files += images
        skipped += unreadable
        if others := [p for p in inside if p.suffix.lower() not in ENDINGS]:
            listed = ", ".join(p.name for p in others[:_NOT_IMAGES_NAMED])
            more = len(others) - _NOT_IMAGES_NAMED
            rest = f" and {more} more" if more > 0 else ""
            skipped.append(f"{path}: skipped files without an image extension: {listed}{rest}")
    # abspath removes `..`: a name with it would lie outside the overlay folder.
    by_path = {os.path.abspath(file): file for file in files}
    arguments = [Path(os.path.abspath(path)) for path in paths]
    root = os.path.commonpath([path if path.is_dir() else path.parent for path in arguments])
    below = [Path(path).relative_to(root) for path in by_path]
    full_names = [path.as_posix() for path in below]
    stems = [path.with_suffix("").as_posix() for path in below]
    # A stem may be another file's full name: x.jpg.webp beside x.jpg.
    counts = Counter(stems + full_names)
    names = [
        stem if counts[stem] == 1 else name for stem, name in zip(stems, full_names, strict=True)
    ]
    return dict(zip(names, by_path.values(), strict=True)), skipped
