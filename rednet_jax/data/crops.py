"""Cropped faces of a prepared split, cached in the data folder as one array.

The array is uncompressed and memory-mapped, so that reading a training batch is a memory copy;
decoding would occupy one core for every few hundred faces per second. A face of 256 px takes
0.2 MB, 300-W 0.6 GB.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rednet_jax.data.folder import data_folder
from rednet_jax.data.samples import ClipSample, Sample
from rednet_jax.data.sources import Split, holds_clips, read_clips, read_split
from rednet_jax.errors import RednetError
from rednet_jax.files import locked_folder, write_text
from rednet_jax.landmarks.boxes import whole_face_box
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.crops import apply_affine, crop_image, crop_transform, invert_affine
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.reading import read_json

_VERSION = 2
"""Version of the file format and of the cropping; part of the recorded source."""

_IMAGES, _LABELS, _SOURCE = "images.u8", "labels.npz", "source.json"
_FINGERPRINT = "fingerprint.txt"
_LABEL_ARRAYS = (
    "landmarks",
    "labelled",
    "affines",
    "starts",
    "names",
    "styles",
    "identities",
)

_FEWEST_POINTS = 2
"""A face with fewer labelled points is left out, since they do not determine its size; a scheme of
one landmark needs one."""


@dataclass(frozen=True)
class FaceCrops:
    """Cropped faces of one split; the face of an image is a clip of one frame.

    Attributes:
        images: uint8 [N, C, C, 3], crops around the faces, memory-mapped.
        landmarks: float32 [N, L, 2], in pixels of `images`; 0 where not labelled.
        labelled: bool [N, L]; all False for a frame without labels.
        affines: float32 [N, 2, 3], from pixels of `images` to pixels of the original image.
        starts: int64 [M + 1], index of the first face of each of M images or clips, then N.
        names: N names of the samples; those of frames end in the frame's number from 1.
        styles: N labelling conventions of the points.
        identities: int64 [N], number of the person, -1 if unknown.
        scheme: of the landmarks.
        fingerprint: digest of the arrays; empty for faces that are not in the data folder.
    """

    images: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    labelled: NDArray[np.bool_]
    affines: NDArray[np.float32]
    starts: NDArray[np.int64]
    names: NDArray[np.str_]
    styles: NDArray[np.str_]
    identities: NDArray[np.int64]
    scheme: Scheme = IBUG68
    fingerprint: str = ""

    def __len__(self) -> int:
        """Number of faces, N."""
        return len(self.names)


class _Face(NamedTuple):
    """A face to be cropped, of the sample with index `sample`; `decode()` returns its image."""

    sample: int
    name: str
    style: str
    identity: int
    decode: Callable[[], NDArray[np.uint8]]
    landmarks: NDArray[np.float32]
    labelled: NDArray[np.bool_]
    box: NDArray[np.float32]


def face_crops(
    data: str, split: str, *, margin: float, size: int, data_dir: Path | None = None
) -> FaceCrops:
    """Opens the cropped faces of a prepared split; the first call crops them.

    A face with too few labels is left out; an unlabelled frame of a clip is cropped around the face
    of the nearest labelled frame.

    Args:
        data: name of the data set.
        split: of the data set.
        margin: side of the crop in sides of the landmarks' box: the network's margin times the
            room for augmentation.
        size: C, pixels on each side.
        data_dir: as in `rednet_jax.data.folder.data_folder`.

    Raises:
        RednetError: the split cannot be read or has no labelled face, or the data folder cannot be
            written.
    """
    read = read_clips if holds_clips(data) else read_split
    samples: Split[ClipSample] | Split[Sample] = read(data, split, data_dir)
    folder = data_folder(data_dir) / "crops" / f"{data}-{split}-{size}px-{margin:g}"
    source = {"version": _VERSION, "prepared": samples.source}
    try:
        # Checked before locking, since a complete data folder may be read-only.
        if not _made_from(folder, source):
            _write_crops(folder, source, samples, margin, size)
        with np.load(folder / _LABELS, allow_pickle=False) as file:
            labels = {name: file[name] for name in _LABEL_ARRAYS}
        shape = (len(labels["names"]), size, size, 3)
        images = np.memmap(folder / _IMAGES, np.uint8, mode="r", shape=shape)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RednetError(f"{folder}: {error} (delete it to crop the faces again)") from error
    return FaceCrops(
        images,
        **labels,
        scheme=samples.scheme,
        fingerprint=_fingerprint(folder, {**labels, _IMAGES: images}),
    )


def _write_crops(
    folder: Path,
    source: dict[str, object],
    samples: Split[ClipSample] | Split[Sample],
    margin: float,
    size: int,
) -> None:
    """Crops the faces; raises RednetError if the folder cannot be written."""
    try:
        # If several processes start together, one crops and the others wait.
        with locked_folder(folder.with_name(f".{folder.name}.partial"), wait=True) as partial:
            if not _made_from(folder, source):
                _cut(samples, partial / "new", margin, size)
                write_text(partial / "new" / _SOURCE, json.dumps(source))
                if folder.exists():
                    os.replace(folder, partial / "old")
                os.replace(partial / "new", folder)
    except OSError as error:
        raise RednetError(
            f"{folder}: cannot be written ({error}); use a --data-dir that can be written"
        ) from error


def fingerprint_arrays(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Returns the SHA-256 of the names, dtypes, shapes and values of arrays."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _fingerprint(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Returns the digest of a folder's arrays, cached in a file, since it reads all images."""
    path = folder / _FINGERPRINT
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text("ascii").strip()
    fingerprint = fingerprint_arrays(arrays)
    with contextlib.suppress(RednetError):
        write_text(path, f"{fingerprint}\n")
    return fingerprint


def _made_from(folder: Path, source: dict[str, object]) -> bool:
    try:
        return bool(read_json(folder / _SOURCE) == source)
    except (OSError, ValueError):
        return False


def _cut(
    samples: Split[ClipSample] | Split[Sample], folder: Path, margin: float, size: int
) -> None:
    """Crops the faces of `samples` and writes the files of the folder."""

    def cut(face: _Face) -> tuple[_Face, NDArray[np.float64], NDArray[np.uint8]]:
        affine = crop_transform(face.box, margin=margin, size=size)
        return face, affine, crop_image(face.decode(), affine, size)

    folder.mkdir()
    landmarks, labelled, affines, names, styles, identities, owners = [], [], [], [], [], [], []
    faces = _faces(samples)
    title = f"{samples.data} {samples.split}: cutting faces"
    with (
        (folder / _IMAGES).open("wb") as file,
        ThreadPoolExecutor() as pool,
        tqdm(desc=title, unit="face", disable=None, leave=False) as bar,
    ):
        # In chunks, since all images of a data set would not fit into memory.
        while chunk := list(itertools.islice(faces, 64)):
            for face, affine, image in pool.map(cut, chunk):
                file.write(image.tobytes())
                points = apply_affine(invert_affine(affine), face.landmarks)
                landmarks.append(np.where(face.labelled[:, None], points, 0))
                labelled.append(face.labelled)
                affines.append(affine)
                names.append(face.name)
                styles.append(face.style)
                identities.append(face.identity)
                owners.append(face.sample)
            bar.update(len(chunk))
    if not names:
        raise RednetError(f"{samples.data} {samples.split}: no face is labelled")
    starts = np.flatnonzero(np.diff(owners, prepend=-1, append=len(samples)))
    np.savez(
        folder / _LABELS,
        landmarks=np.asarray(landmarks, np.float32),
        labelled=np.asarray(labelled),
        affines=np.asarray(affines, np.float32),
        starts=starts,
        names=np.asarray(names),
        styles=np.asarray(styles),
        identities=np.asarray(identities, np.int64),
    )


def _faces(samples: Split[ClipSample] | Split[Sample]) -> Iterator[_Face]:
    for number in range(len(samples)):
        sample = samples[number]
        if isinstance(sample, ClipSample):
            yield from _frames(number, sample, samples.scheme)
        elif sample.labelled.sum() >= min(_FEWEST_POINTS, samples.scheme.count):
            yield _Face(
                number,
                sample.name,
                sample.style,
                sample.identity,
                functools.partial(getattr, sample, "image"),
                sample.landmarks,
                sample.labelled,
                whole_face_box(
                    sample.landmarks, samples.scheme, sample.labelled, expected=sample.box
                ),
            )


def nearest_labelled(valid: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Returns the nearest labelled frame of each frame [T], or [0] if no frame is labelled."""
    labelled = np.flatnonzero(valid)
    if not len(labelled):
        return labelled
    away = abs(np.arange(len(valid))[:, None] - labelled)
    nearest: NDArray[np.int64] = labelled[np.argmin(away, axis=1)]
    return nearest


def _frames(number: int, clip: ClipSample, scheme: Scheme) -> Iterator[_Face]:
    for frame, nearest in enumerate(nearest_labelled(clip.valid)):
        yield _Face(
            number,
            f"{clip.name}/{frame + 1}",
            clip.style,
            clip.identity,
            functools.partial(clip.images.__getitem__, frame),
            clip.landmarks[frame],
            clip.labelled[frame],
            whole_face_box(
                clip.landmarks[nearest], scheme, clip.labelled[nearest], expected=clip.box[nearest]
            ),
        )
