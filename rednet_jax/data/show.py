"""Contact sheets of prepared data: samples as training crops and augments them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rednet_jax.data.augment import Augmentation, Drift, augment, augment_clips
from rednet_jax.data.crops import nearest_labelled
from rednet_jax.data.samples import ClipSample, Sample
from rednet_jax.data.sources import Split, holds_clips, read_clips, read_split
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.boxes import whole_face_box
from rednet_jax.landmarks.crops import apply_affine, crop_image, crop_transform, invert_affine
from rednet_jax.landmarks.drawing import contact_sheet, draw_landmarks, write_image
from rednet_jax.landmarks.schemes import Scheme

MARGIN, COVER, SIZE = 1.25, 1.6, 128
"""The network's margin, the room around its crop, and its size in pixels: experiments' defaults."""

TILE = 256
"""Pixels on each side of a tile, and of the cached face that augmentation resamples."""

COLUMNS, FACES, CLIPS, DRAWS = 8, 16, 4, 2
"""Tiles per row, default numbers of faces and of clips, and augmented draws of each."""

LONGEST = 50
"""Largest number of rows of samples: the sheet is then up to 40,000 pixels high, about the limit of
image viewers."""

_BLANK = np.full((TILE, TILE, 3), 40, np.uint8)

S = TypeVar("S")
Pixels = NDArray[np.uint8]
Report = Callable[[int, int | None], None]


class _Cut(NamedTuple):
    """A cropped face.

    Attributes:
        name: of the face.
        image: uint8 [TILE, TILE, 3].
        landmarks: float32 [L, 2], pixels of `image`.
        labelled: bool [L].
        affine: float32 [2, 3], pixels of `image` -> pixels of the original image.
    """

    name: str
    image: Pixels
    landmarks: NDArray[np.float32]
    labelled: NDArray[np.bool_]
    affine: NDArray[np.float32]


def show_split(
    data: str,
    split: str,
    *,
    count: int | None = None,
    augmented: bool = False,
    out: str | os.PathLike[str] | None = None,
    data_dir: Path | None = None,
    report: Report | None = None,
) -> Path:
    """Writes a sheet of samples with their labelled landmarks; returns its path.

    The samples are evenly spaced over the split, and the frames of a clip over the clip.

    Args:
        data: name of a prepared data set.
        split: of the data set.
        count: largest number of samples; None for 16 faces or 4 clips.
        augmented: adds two augmented draws below each tile. The frames of a clip are then every
            second frame around its middle, with a stride as in training.
        out: the PNG; None for DATA_SPLIT.png in the current folder.
        data_dir: as in `rednet_jax.data.folder.data_folder`.
        report: called with (done, total) after each sample.

    Raises:
        RednetError: a split that cannot be read, a count out of range, or `out` cannot be written.
    """
    most = LONGEST if holds_clips(data) else LONGEST * COLUMNS
    if count is not None and not 1 <= count <= most:
        raise RednetError(f"a sheet of {data} has 1 to {most} samples, not {count}")
    if holds_clips(data):
        clips = read_clips(data, split, data_dir)
        scheme = clips.scheme
        shown = _spread(clips, count or CLIPS, report)
        cuts = [cut for clip in shown for cut in _cut_clip(clip, scheme, near=augmented)]
        draw = _draw_clips
    else:
        faces = read_split(data, split, data_dir)
        scheme = faces.scheme
        cuts = [_cut_face(face, scheme) for face in _spread(faces, count or FACES, report)]
        draw = _draw_faces
    rows = [[draw_landmarks(cut.image, cut.landmarks, scheme, cut.labelled) for cut in cuts]]
    if augmented:
        rows += draw(cuts, scheme)
    path = Path(f"{data}_{split}.png" if out is None else out)
    write_image(path, contact_sheet([_caption(cut) for cut in cuts], rows, COLUMNS))
    return path


def _spread(samples: Split[S], count: int, report: Report | None) -> Iterator[S]:
    count = min(count, len(samples))
    for done, index in enumerate(_evenly(0, len(samples) - 1, count), 1):
        yield samples[index]
        if report is not None:
            report(done, count)


def _evenly(first: int, last: int, count: int) -> list[int]:
    return [int(place) for place in np.linspace(first, last, count).round()]


def _cut_face(face: Sample, scheme: Scheme) -> _Cut:
    """Returns the crop of a face; without labelled points, of the whole image, its box."""
    box, margin = face.box, 1.0
    if face.labelled.any():
        box = whole_face_box(face.landmarks, scheme, face.labelled, expected=face.box)
        margin = COVER * MARGIN
    return _cut(face.name, face.image, face.landmarks, face.labelled, box, margin)


def _cut_clip(clip: ClipSample, scheme: Scheme, *, near: bool) -> list[_Cut]:
    """Returns the crops of COLUMNS frames, each around the points of the nearest labelled frame."""
    last = len(clip.images) - 1
    span = min(2 * (COLUMNS - 1), last) if near else last
    first = (last - span) // 2
    nearest_to = nearest_labelled(clip.valid)
    cuts = []
    for frame in _evenly(first, first + span, COLUMNS):
        nearest = nearest_to[frame]
        box = whole_face_box(
            clip.landmarks[nearest], scheme, clip.labelled[nearest], expected=clip.box[nearest]
        )
        name, image = f"{clip.name}/{frame + 1}", clip.images[frame]
        points, labelled = clip.landmarks[frame], clip.labelled[frame]
        cuts.append(_cut(name, image, points, labelled, box, COVER * MARGIN))
    return cuts


def _cut(
    name: str,
    whole: Pixels,
    landmarks: NDArray[np.float32],
    labelled: NDArray[np.bool_],
    box: NDArray[np.float32],
    margin: float,
) -> _Cut:
    affine = crop_transform(box, margin=margin, size=TILE)
    points = apply_affine(invert_affine(affine), landmarks).astype(np.float32)
    image = crop_image(whole, affine, TILE)
    return _Cut(name, image, points, labelled, affine.astype(np.float32))


def _draw_faces(cuts: Sequence[_Cut], scheme: Scheme) -> list[list[Pixels]]:
    """Returns DRAWS rows of augmented crops; blank for faces that training leaves out."""
    draw = jax.jit(
        functools.partial(
            augment, Augmentation(), scheme=scheme, cover=COVER, margin=MARGIN, size=SIZE
        )
    )
    _, images, landmarks, labelled, _ = map(np.stack, zip(*cuts, strict=True))
    rows = []
    for seed in range(DRAWS):
        keys = jax.random.split(jax.random.key(seed), len(cuts))
        tiles = _tiles(scheme, *draw(keys, images, landmarks, labelled))
        pairs = zip(tiles, cuts, strict=True)
        rows.append([tile if cut.labelled.any() else _BLANK for tile, cut in pairs])
    return rows


def _draw_clips(cuts: Sequence[_Cut], scheme: Scheme) -> list[list[Pixels]]:
    """Returns DRAWS rows of augmented crops; each COLUMNS of them are one clip."""
    draw = jax.jit(
        functools.partial(
            augment_clips,
            Augmentation(),
            Drift(),
            scheme=scheme,
            cover=COVER,
            margin=MARGIN,
            size=SIZE,
        )
    )
    _, *arrays = map(np.stack, zip(*cuts, strict=True))
    arrays = [array.reshape(-1, COLUMNS, *array.shape[1:]) for array in arrays]
    rows = []
    for seed in range(DRAWS):
        keys = jax.random.split(jax.random.key(seed), len(arrays[0]))
        drawn = draw(keys, *arrays)[:3]
        rows.append(_tiles(scheme, *(array.reshape(-1, *array.shape[2:]) for array in drawn)))
    return rows


def _tiles(
    scheme: Scheme, images: jax.Array, landmarks: jax.Array, labelled: jax.Array
) -> list[Pixels]:
    """Returns N tiles: the images [N, SIZE, SIZE, 3], enlarged and with landmarks."""
    scale = TILE / SIZE
    tiles = []
    for image, points, known in zip(*map(np.asarray, (images, landmarks, labelled)), strict=True):
        small = Image.fromarray(np.rint(255 * image).astype(np.uint8))
        large = np.asarray(small.resize((TILE, TILE), Image.Resampling.BILINEAR))
        tiles.append(draw_landmarks(large, (points + 0.5) * scale - 0.5, scheme, known))
    return tiles


def _caption(cut: _Cut) -> str:
    """Returns a face's name, with the number of labelled points if not all are labelled."""
    count, total = int(cut.labelled.sum()), len(cut.labelled)
    return cut.name if count == total else f"{cut.name} ({count} of {total})"
