"""A folder of your own images: labels as .pts files, one CSV file, or COCO keypoints."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from numpy.typing import NDArray

from rednet_jax.data.builders.base import (
    RULES,
    Example,
    FaceBuilder,
    face_example,
    files_by_name,
    read_image_file,
    without_ending,
)
from rednet_jax.errors import RednetError
from rednet_jax.fields import check_fields
from rednet_jax.landmarks.builtin import plain_scheme
from rednet_jax.landmarks.pts import read_pts
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.landmarks.table import plain_float
from rednet_jax.media.images import ENDINGS
from rednet_jax.reading import check_size, csv_rows, read_json

SPLITS = ("train", "validation", "test")

BOX_COLUMNS = ("box_x0", "box_y0", "box_x1", "box_y1")

_FARTHEST = 1e6


@dataclass(frozen=True)
class OwnData:
    """How a folder of images is read.

    Attributes:
        scheme: of its landmarks.
        labels: a CSV file or a JSON file of COCO keypoints; None for NAME.pts beside each image.
        lists: (split, file with the names of its images, one a line) pairs; empty to split by
            `shares`.
        shares: of train, validation and test, in faces.
        seed: of the order in which images or people are shared out.
    """

    scheme: Scheme
    labels: Path | None = None
    lists: tuple[tuple[str, Path], ...] = ()
    shares: tuple[float, ...] = (0.8, 0.1, 0.1)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses shares that are none, and splits that are not known or come twice."""
        check_fields(self, "")
        if len(self.shares) != 3 or min(self.shares) < 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise RednetError(f"shares of train, validation and test must sum to 1: {self.shares}")
        splits = [split for split, _ in self.lists]
        if unknown := [split for split in splits if split not in SPLITS]:
            raise RednetError(f"no split '{unknown[0]}'; known: {', '.join(SPLITS)}")
        if len(set(splits)) < len(splits):
            raise RednetError("lists: a split comes twice")

    def recipe(self) -> bytes:
        """Returns what decides the samples besides the files of the folder.

        Raises:
            RednetError: a file that cannot be read.
        """
        digest = hashlib.sha256()
        for path in (self.labels, *(path for _, path in self.lists)):
            if path is not None:
                with _reading(path), path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        splits = [split for split, _ in self.lists]
        told = [plain_scheme(self.scheme), splits, self.shares, self.seed, RULES]
        return f"{json.dumps(told)} {digest.hexdigest()}\n".encode()


class _Label(NamedTuple):
    """A labelled face.

    Attributes:
        file: of the image, relative to the folder.
        landmarks: float32 [L, 2], pixels; nan where not labelled.
        identity: as the labels have it; None without.
        box: float32 [4], or None.
        where: line or entry of the labels, for messages.
    """

    file: str
    landmarks: NDArray[np.float32]
    identity: str | None
    box: NDArray[np.float32] | None
    where: str


class RednetFolder(FaceBuilder):
    """Your own images and labels, of any scheme."""

    name = "rednet_folder"
    splits: ClassVar = SPLITS
    tree: ClassVar = "looked for labelled images"

    def __init__(self, name: str, own: OwnData, **kwargs: Any) -> None:
        """Opens the data set `name`."""
        self._own = own
        self.scheme = own.scheme
        super().__init__(config=tfds.core.BuilderConfig(name=name), **kwargs)

    def list_splits(self) -> dict[str, list[str]]:
        """Returns the names of each split's faces; no person and no image is in two splits."""
        labels = self._labels()
        self._faces: dict[str, _Label] = {}
        for label in labels:
            name, number = without_ending(label.file), 1
            while name in self._faces:
                name, number = f"{without_ending(label.file)}_{number}", number + 1
            self._faces[name] = label
        people = sorted({label.identity for label in labels if label.identity is not None})
        self._people = {person: number for number, person in enumerate(people)}
        owners = self._owners()
        if self._own.lists:
            return self._listed(owners)
        return _shared_out(owners, self._own.shares, self._own.seed)

    def read(self, name: str) -> Example:
        """Returns one face; raises RednetError if its image or its landmarks are bad."""
        label = self._faces[name]
        image = read_image_file(self.inside(label.file))
        landmarks = label.landmarks
        if self._own.labels is None:
            landmarks = _read_points(self.inside(label.where), self.scheme)
        labelled: NDArray[np.bool_] = np.all(np.isfinite(landmarks), axis=1)
        if not labelled.any():
            raise RednetError(f"{label.where}: no landmark is labelled")
        return face_example(
            name,
            image,
            np.nan_to_num(landmarks),
            labelled,
            scheme=self.scheme,
            box=label.box,
            identity=-1 if label.identity is None else self._people[label.identity],
            style="",
            where=label.where,
        )

    def _labels(self) -> list[_Label]:
        labels = self._own.labels
        if labels is None:
            return self._beside_images()
        if labels.suffix.lower() == ".json":
            return _coco_labels(labels, self.scheme)
        return self._with_endings(_csv_labels(labels, self.scheme))

    def _beside_images(self) -> list[_Label]:
        folders = [
            path.relative_to(self.root).as_posix()
            for path in (self.root, *sorted(self.root.rglob("*")))
            if path.is_dir() and not any(part.startswith(".") for part in path.parts)
        ]
        images = files_by_name(self.root, folders, ENDINGS)
        points = files_by_name(self.root, folders, (".pts",))
        nothing = np.full((self.scheme.count, 2), np.nan, np.float32)
        labels = []
        for name, files in sorted(points.items()):
            with self.bad.skipping(self.kind, name):
                self.known.update(files)
                image = self.only_file(name, images.get(name, []), "image")
                file = image.relative_to(self.root).as_posix()
                labels.append(_Label(file, nothing, None, None, files[0]))
        return labels

    def _with_endings(self, labels: list[_Label]) -> list[_Label]:
        """A table may name images without their endings."""
        found: list[_Label] = []
        for label in labels:
            if not _is_file(self.root / label.file):
                endings = [e for e in ENDINGS if _is_file(self.root / f"{label.file}{e}")]
                if endings:
                    label = label._replace(file=f"{label.file}{endings[0]}")
            found.append(label)
        return found

    def _owners(self) -> dict[str, str]:
        """What each face shares with those that must be in the same split."""
        return {
            name: f"image {label.file}" if label.identity is None else f"person {label.identity}"
            for name, label in self._faces.items()
        }

    def _listed(self, owners: Mapping[str, str]) -> dict[str, list[str]]:
        splits: dict[str, list[str]] = {split: [] for split in SPLITS}
        of_owner: dict[str, str] = {}
        faces: dict[str, list[str]] = {}
        for name, label in self._faces.items():
            for known_as in {label.file, without_ending(label.file)}:
                faces.setdefault(known_as, []).append(name)
        for split, path in self._own.lists:
            with _reading(path):
                check_size(path)
                text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
            for line in text.splitlines():
                if not (listed := line.strip()) or listed.startswith("#"):
                    continue
                if listed not in faces:
                    raise RednetError(f"{path}: {listed!r} is no labelled image")
                for name in faces[listed]:
                    before = of_owner.setdefault(owners[name], split)
                    if before != split:
                        raise RednetError(f"{path}: {owners[name]} is in {before} and in {split}")
                    if name not in splits[split]:
                        splits[split].append(name)
        listed_faces = sum(map(len, splits.values()))
        if left := len(self._faces) - listed_faces:
            self.left_out.append(f"{self.root}: {left} labelled faces in no list")
        return splits


def read_labels(
    root: Path, labels: Path | None, count: int | None
) -> list[tuple[Path, NDArray[np.float32]]]:
    """Returns images and their landmarks [L, 2], nan where not labelled, as `RednetFolder` does.

    Args:
        root: the folder of images.
        labels: as in `OwnData`.
        count: L; that of the first face if None.

    Raises:
        RednetError: labels that cannot be read, or none.
    """
    if labels is None:
        found = []
        for path in sorted(root.rglob("*.pts")):
            images = [path.with_suffix(ending) for ending in ENDINGS]
            image = next((one for one in images if one.is_file()), None)
            if image is not None:
                found.append((image, read_pts(path)))
    else:
        listed = (
            _coco_labels(labels, None)
            if labels.suffix.lower() == ".json"
            else _csv_labels(labels, None)
        )
        found = []
        for label in listed:
            names = [label.file, *(f"{label.file}{ending}" for ending in ENDINGS)]
            image = next((root / one for one in names if _is_file(root / one)), None)
            if image is not None:
                found.append((image, label.landmarks))
    if not found:
        raise RednetError(f"{labels or root}: no labelled image")
    count = len(found[0][1]) if count is None else count
    for image, points in found:
        if len(points) != count:
            raise RednetError(f"{image}: {len(points)} landmarks, others have {count}")
    return found


def _is_file(path: Path) -> bool:
    """Whether there is such a file; labels may hold names that no file system takes."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except RednetError:
        raise
    except OSError as error:
        raise RednetError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise RednetError(f"{path}: {error}") from None


def _read_points(path: Path, scheme: Scheme) -> NDArray[np.float32]:
    points = read_pts(path)
    if len(points) != scheme.count:
        raise RednetError(f"{path}: {len(points)} points, scheme {scheme.name} has {scheme.count}")
    return points


def _csv_labels(path: Path, scheme: Scheme | None) -> list[_Label]:
    """Faces of a table `name,x0,y0,...`, with `identity`, `visible0`, ... and `box_x0`, ... ."""
    with _reading(path):
        return _labels_of(path, scheme, csv_rows(path))


def _labels_of(
    path: Path, scheme: Scheme | None, rows: Iterator[tuple[int, list[str]]]
) -> list[_Label]:
    _, first = next(rows, (0, []))
    header = [cell.strip() for cell in first]
    columns = {name: place for place, name in enumerate(header)}
    if len(columns) < len(header):
        raise RednetError(f"{path}: line 1: a column comes twice")
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
            raise RednetError(f"{where}: visible is neither 0 (not labelled), 1 (hidden) nor 2")
        points[[cell == "0" for cell in seen]] = np.nan
        box = _numbers([cells[name] for name in BOX_COLUMNS], where) if has_box else None
        labels.append(
            _Label(cells["name"], points, cells.get("identity") or None, _box(box, where), where)
        )
    return labels


def _coco_labels(path: Path, scheme: Scheme | None) -> list[_Label]:
    """Faces of a file of COCO keypoints: x, y, v each; v of 0 is not labelled."""
    try:
        with _reading(path):
            plain = read_json(path)
        files = {image["id"]: str(image["file_name"]) for image in plain["images"]}
        faces = list(plain["annotations"])
    except (KeyError, TypeError) as error:
        raise RednetError(f"{path}: no COCO keypoints ({type(error).__name__}: {error})") from None
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
        if np.isinf(points).any() or (np.abs(np.nan_to_num(points)) > _FARTHEST).any():
            raise RednetError(f"{where}: a coordinate is no place in an image")
        # People who are labelled elsewhere in the image have boxes, but no keypoints.
        if np.isfinite(points).any():
            labels.append(
                _Label(
                    file,
                    points.astype(np.float32),
                    None if identity is None else str(identity),
                    _box(box, where),
                    where,
                )
            )
    return labels


def _numbers(cells: list[str], where: str) -> NDArray[np.float32]:
    """The numbers of cells; an empty one, or nan, is not labelled."""
    try:
        values = np.array([plain_float(cell) if cell else np.nan for cell in cells])
    except ValueError as error:
        raise RednetError(f"{where}: {error}") from None
    if np.isinf(values).any() or (np.abs(np.nan_to_num(values)) > _FARTHEST).any():
        raise RednetError(f"{where}: a coordinate is no place in an image")
    return values.astype(np.float32)


def _box(box: NDArray[np.float32] | None, where: str) -> NDArray[np.float32] | None:
    if box is None or np.isnan(box).all():
        return None
    if not (box[2] > box[0] and box[3] > box[1]):
        raise RednetError(f"{where}: not a box: x0 < x1 and y0 < y1 are needed")
    return box


def _shared_out(
    owners: Mapping[str, str], shares: tuple[float, ...], seed: int
) -> dict[str, list[str]]:
    """Faces by split: owners in the order of their digests, each to the split that lacks most.

    No split with a share stays empty while there are owners for all.
    """
    faces: dict[str, list[str]] = {}
    for name, owner in owners.items():
        faces.setdefault(owner, []).append(name)

    def digest(owner: str) -> bytes:
        return hashlib.sha256(f"{seed} {owner}".encode("utf-8", "surrogateescape")).digest()

    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    wanted = {split: share for split, share in zip(SPLITS, shares, strict=True) if share}
    for left, owner in zip(range(len(faces), 0, -1), sorted(faces, key=digest), strict=True):
        empty = [split for split in wanted if not splits[split]]
        among = empty if len(empty) >= left else [*wanted]
        lack = {split: wanted[split] * len(owners) - len(splits[split]) for split in among}
        splits[max(among, key=lack.__getitem__)] += faces[owner]
    return {split: sorted(names) for split, names in splits.items()}
