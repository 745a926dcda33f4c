"""Readers of the labels of a user's images: .pts files, a CSV table, or COCO keypoints."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.builders.examples import FARTHEST
from rednet_jax.data.builders.trees import files_below, first_image, image_finder
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.pts import read_pts
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.landmarks.table import plain_float
from rednet_jax.media.images import ENDINGS
from rednet_jax.reading import csv_rows, read_json

BOX_COLUMNS = ("box_x0", "box_y0", "box_x1", "box_y1")


class Label(NamedTuple):
    """A labelled face.

    Attributes:
        file: the image, relative to the folder.
        landmarks: float32 [L, 2], pixels; nan where not labelled.
        identity: name of the person, or None.
        box: float32 [4], or None.
        where: line or entry of the label file, for messages.
    """

    file: str
    landmarks: NDArray[np.float32]
    identity: str | None
    box: NDArray[np.float32] | None
    where: str


def read_labels(
    root: Path, labels: Path | None, count: int | None
) -> list[tuple[Path, NDArray[np.float32]]]:
    """Returns pairs of an image and its landmarks [L, 2], nan where not labelled.

    Args:
        root: the folder of images.
        labels: as in `own_folder.OwnData`.
        count: L; that of the first face if None.

    Raises:
        RednetError: the labels cannot be read, or no image is labelled.
    """
    if not root.is_dir():
        raise RednetError(f"{root}: no such folder")
    if labels is None:
        images = files_below(root, ENDINGS)
        pairs = [
            (root / image, read_pts(root / files[0]))
            for name, files in sorted(files_below(root, (".pts",)).items())
            if (image := first_image(images.get(name, []))) is not None
        ]
    else:
        listed = (
            coco_labels(labels, None)
            if labels.suffix.lower() == ".json"
            else csv_labels(labels, None)
        )
        find = image_finder(root)
        pairs = [
            (root / image, label.landmarks)
            for label in listed
            if (image := find(label.file)) is not None
        ]
    if not pairs:
        raise RednetError(f"{labels or root}: no labelled image")
    count = len(pairs[0][1]) if count is None else count
    for path, points in pairs:
        if len(points) != count:
            raise RednetError(f"{path}: {len(points)} landmarks, others have {count}")
    return pairs


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Context that converts errors of reading a file to RednetErrors that name the file."""
    try:
        yield
    except RednetError:
        raise
    except OSError as error:
        raise RednetError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise RednetError(f"{path}: {error}") from None


def read_points(path: Path, scheme: Scheme) -> NDArray[np.float32]:
    """Returns the landmarks of a .pts file, float32 [L, 2]; raises RednetError for another L."""
    points = read_pts(path)
    if len(points) != scheme.count:
        raise RednetError(f"{path}: {len(points)} points, scheme {scheme.name} has {scheme.count}")
    return points


def csv_labels(path: Path, scheme: Scheme | None) -> list[Label]:
    """Returns the faces of a table `name,x0,y0,...`, with optional identity, visible and box.

    Args:
        path: of the CSV file.
        scheme: of the landmarks; if None, the header determines their number.

    Raises:
        RednetError: the file cannot be read, or one of its lines is invalid.
    """
    with reading(path):
        return _table_labels(path, scheme, csv_rows(path))


def _table_labels(
    path: Path, scheme: Scheme | None, rows: Iterator[tuple[int, list[str]]]
) -> list[Label]:
    _, first = next(rows, (0, []))
    header = [cell.strip() for cell in first]
    columns = {name: place for place, name in enumerate(header)}
    if len(columns) < len(header):
        raise RednetError(f"{path}: line 1: a column appears twice")
    count = scheme.count if scheme is not None else sum(name[:1] == "x" for name in header)
    coordinates = [f"{axis}{i}" for i in range(count) for axis in "xy"]
    optional = ["identity", *BOX_COLUMNS, *(f"visible{i}" for i in range(count))]
    if missing := [name for name in ("name", *coordinates) if name not in columns]:
        raise RednetError(f"{path}: line 1: no column '{missing[0]}'")
    if unknown := [name for name in header if name not in ("name", *coordinates, *optional)]:
        raise RednetError(f"{path}: line 1: unknown column '{unknown[0]}'")
    has_box, visible = BOX_COLUMNS[0] in columns, [f"visible{i}" for i in range(count)]
    if has_box and (missing := [name for name in BOX_COLUMNS if name not in columns]):
        raise RednetError(f"{path}: line 1: no column '{missing[0]}'")
    labels = []
    for number, row in rows:
        where = f"{path}: line {number}"
        if len(row) != len(header):
            raise RednetError(f"{where}: {len(row)} columns instead of {len(header)}")
        cells = {name: row[place].strip() for name, place in columns.items()}
        points = _numbers([cells[name] for name in coordinates], where).reshape(count, 2)
        seen = [cells.get(name, "1") for name in visible]
        if not {*seen} <= {"0", "1", "2"}:
            raise RednetError(f"{where}: visible must be 0 (not labelled), 1 (hidden) or 2")
        points[[cell == "0" for cell in seen]] = np.nan
        box = _numbers([cells[name] for name in BOX_COLUMNS], where) if has_box else None
        labels.append(
            Label(cells["name"], points, cells.get("identity") or None, _box(box, where), where)
        )
    return labels


def coco_labels(path: Path, scheme: Scheme | None) -> list[Label]:
    """Returns the faces of a file of COCO keypoints (x, y, v); those with v = 0 are not labelled.

    Arguments and errors are those of `csv_labels`.
    """
    try:
        with reading(path):
            plain = read_json(path)
        files = {image["id"]: str(image["file_name"]) for image in plain["images"]}
        faces = list(plain["annotations"])
    except (KeyError, TypeError) as error:
        raise RednetError(f"{path}: not COCO keypoints ({type(error).__name__}: {error})") from None
    labels = []
    for number, face in enumerate(faces):
        where = f"{path}: annotation {number}"
        try:
            keypoints, file = face["keypoints"], files[face["image_id"]]
            values = np.array(keypoints, np.float64).reshape(-1, 3)
            corner = face.get("bbox")
            box = None
            if corner is not None:
                x, y, width, height = np.array(corner, np.float64)
                box = np.array([x, y, x + width, y + height], np.float32)
            identity = face.get("identity")
        except (KeyError, ValueError, TypeError) as error:
            raise RednetError(f"{where}: {type(error).__name__}: {error}") from None
        if scheme is not None and len(values) != scheme.count:
            raise RednetError(
                f"{where}: {len(values)} keypoints, scheme {scheme.name} has {scheme.count}"
            )
        points = np.where(values[:, 2:] > 0, values[:, :2], np.nan)
        if np.isinf(points).any() or (np.abs(np.nan_to_num(points)) > FARTHEST).any():
            raise RednetError(f"{where}: a coordinate is out of range")
        # COCO also has annotations with a box but without keypoints.
        if np.isfinite(points).any():
            labels.append(
                Label(
                    file,
                    points.astype(np.float32),
                    None if identity is None else str(identity),
                    _box(box, where),
                    where,
                )
            )
    return labels


def _numbers(cells: list[str], where: str) -> NDArray[np.float32]:
    """Returns the numbers in some cells; nan for empty cells, which are not labelled."""
    try:
        values = np.array([plain_float(cell) if cell else np.nan for cell in cells])
    except ValueError as error:
        raise RednetError(f"{where}: {error}") from None
    if np.isinf(values).any() or (np.abs(np.nan_to_num(values)) > FARTHEST).any():
        raise RednetError(f"{where}: a coordinate is out of range")
    return values.astype(np.float32)


def _box(box: NDArray[np.float32] | None, where: str) -> NDArray[np.float32] | None:
    if box is None or np.isnan(box).all():
        return None
    if not (box[2] > box[0] and box[3] > box[1]):
        raise RednetError(f"{where}: not a box: needs x0 < x1 and y0 < y1")
    return box
