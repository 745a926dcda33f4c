"""Landmarks in picture files: what `rednet align` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rednet_jax.detection.dlib import FaceDetector, by_prominence
from rednet_jax.errors import RednetError
from rednet_jax.inference.answers import align_crops
from rednet_jax.landmarks.crops import apply_affine, crop_transform, cut_crop
from rednet_jax.landmarks.drawing import draw_landmarks, write_picture
from rednet_jax.landmarks.table import read_boxes_csv, write_landmarks_csv
from rednet_jax.media.images import ENDINGS, read_image
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.store import load

BATCH = 8


class Aligned(NamedTuple):
    """What `align_files` found.

    Attributes:
        names: N pictures in the order of the table.
        landmarks: float32 [N, L, 2], pixels of the upright picture; nan where there is no answer.
        failures: one line for each picture without an answer.
    """

    names: list[str]
    landmarks: NDArray[np.float32]
    failures: list[str]


def align_files(
    paths: Sequence[str | os.PathLike[str]],
    *,
    checkpoint: str | tuple[RedNetConfig, dict[str, Any]] = "compact",
    feedback_steps: int = 3,
    boxes: str | os.PathLike[str] | None = None,
    csv: str | os.PathLike[str] | None = None,
    overlay: str | os.PathLike[str] | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Aligned:
    """Finds the landmarks of the most prominent face of each picture.

    Args:
        paths: picture files, and folders, which stand for all pictures below them.
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        feedback_steps: K, passes of the network.
        boxes: CSV file name,x0,y0,x1,y1 of landmark boxes, instead of the detector.
        csv: CSV file for the landmarks.
        overlay: folder for a PNG of each picture with its landmarks drawn.
        report: called with the number of pictures done and in all.

    Raises:
        RednetError: not one picture can be read, a bad checkpoint or boxes file, feedback_steps
            below 1, or an output that cannot be written.
    """
    if feedback_steps < 1:
        raise RednetError(f"feedback steps must be 1 or more, not {feedback_steps}")
    files = _named(paths)
    names = list(files)
    drawings = {} if overlay is None else {n: Path(overlay) / f"{n}.png" for n in names}
    if replaced := {p.resolve() for p in files.values()} & {p.resolve() for p in drawings.values()}:
        raise RednetError(f"{min(replaced)}: a picture that an overlay would replace")
    box_of = None if boxes is None else read_boxes_csv(boxes)
    config, variables = load(checkpoint) if isinstance(checkpoint, str) else checkpoint
    detector = FaceDetector()
    landmarks = np.full((len(names), config.landmarks, 2), np.nan, np.float32)
    failures: list[str] = []
    readable = 0
    batch = min(BATCH, len(names))
    for start in range(0, len(names), batch):
        faces: list[_Face] = []
        for row, name in enumerate(names[start : start + batch], start):
            try:
                image = read_image(files[name], upright=True)
                readable += 1
                box = _face_box(name, image, detector, box_of)
            except RednetError as error:
                failures.append(str(error))
            else:
                affine = crop_transform(box, margin=config.picture_margin, size=config.picture_size)
                faces.append(_Face(row, image, affine))
            report(row + 1, len(names))
        if not faces:
            continue
        crops = np.stack([cut_crop(face.image, face.affine, config.picture_size) for face in faces])
        points = align_crops(config, variables, crops, feedback_steps, batch)[-1]
        for face, crop_points in zip(faces, points, strict=True):
            landmarks[face.row] = apply_affine(face.affine, crop_points)
            if drawings:
                drawn = draw_landmarks(face.image, landmarks[face.row])
                write_picture(drawings[names[face.row]], drawn)
    if not readable:
        rest = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise RednetError(failures[0] + rest)
    if csv is not None:
        write_landmarks_csv(csv, names, landmarks)
    return Aligned(names, landmarks, failures)


class _Face(NamedTuple):
    row: int
    image: NDArray[np.uint8]
    affine: NDArray[np.float64]


def _face_box(
    name: str,
    image: NDArray[np.uint8],
    detector: FaceDetector,
    box_of: dict[str, NDArray[np.float32]] | None,
) -> NDArray[np.float32]:
    if box_of is not None:
        if name not in box_of:
            raise RednetError(f"{name}: has no row in the boxes file")
        return box_of[name]
    faces = by_prominence(detector.detect(image))
    if not faces:
        raise RednetError(f"{name}: no face found")
    return faces[0].box


def _named(paths: Sequence[str | os.PathLike[str]]) -> dict[str, Path]:
    """Pictures by name: the path below the folder they have in common, without extension."""
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in ENDINGS]
            if not inside:
                raise RednetError(f"{path}: no picture in this folder")
            files += inside
        else:
            files.append(path)
    folders = [p if p.is_dir() else p.parent for p in (Path(path).absolute() for path in paths)]
    root = os.path.commonpath(folders)
    named: dict[str, Path] = {}
    for file in files:
        name = file.absolute().relative_to(root).with_suffix("").as_posix()
        if named.setdefault(name, file) != file:
            raise RednetError(f"{file}: has the same name as {named[name]} but for its ending")
    return named
