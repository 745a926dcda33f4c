"""Endless training batches of cropped faces: shuffled, mixed by weight, sharded over processes.

The content of a batch is a function of the seed and the batch's number only. Process p of P reads
the rows p, p + P, ... of each batch. A reader resumes from a saved state.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import grain
import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.crops import FaceCrops
from rednet_jax.errors import RednetError
from rednet_jax.fields import check_fields
from rednet_jax.landmarks.convert import convert, convert_labelled
from rednet_jax.landmarks.schemes import Scheme


@dataclass(frozen=True)
class ClipConfig:
    """How clips of T frames are drawn from longer clips; a single image is repeated T times.

    Attributes:
        frames: T.
        largest_stride: the stride is uniform from 1 to this.
        reverse: probability that a clip is reversed.
    """

    frames: int = 10
    largest_stride: int = 2
    reverse: float = 0.5

    def __post_init__(self) -> None:
        """Raises RednetError for values out of range."""
        check_fields(self, "clips.")
        if self.frames < 1 or self.largest_stride < 1 or not 0 <= self.reverse <= 1:
            raise RednetError(
                "clips need frames and largest_stride of at least 1, and reverse in [0, 1], "
                f"not {self.frames}, {self.largest_stride} and {self.reverse}"
            )


class Batch(NamedTuple):
    """The faces of one step, a pytree. For clips, every array but `row` has an axis T after B.

    Attributes:
        images: uint8 [B, C, C, 3], crops around the faces.
        landmarks: float32 [B, L, 2], pixels of `images`; 0 where not labelled.
        labelled: bool [B, L].
        affines: float32 [B, 2, 3], from pixels of `images` to pixels of the original image.
        identity: int32 [B], class of the person, -1 if unknown.
        face: int32 [B], index among all faces of the reader.
        row: int32 [B], index in the global batch, from which random keys are derived.
    """

    images: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    labelled: NDArray[np.bool_]
    affines: NDArray[np.float32]
    identity: NDArray[np.int32]
    face: NDArray[np.int32]
    row: NDArray[np.int32]


class Reader(Iterator[Batch]):
    """An endless iterator of batches; its position can be saved as JSON."""

    def __init__(self, batches: Any, names: NDArray[np.str_]) -> None:
        """Wraps a Grain iterator; `names` are those of all faces, indexed by `Batch.face`."""
        self._batches = batches
        self._names = names

    def __next__(self) -> Batch:
        """Returns the next batch."""
        batch: Batch = next(self._batches)
        return batch

    def names(self, batch: Batch) -> list[str]:
        """Returns the names of a batch's faces; for clips, those of their first frames."""
        first = batch.face.reshape(len(batch.row), -1)[:, 0]
        return list(map(str, self._names[first]))

    def get_state(self) -> dict[str, Any]:
        """Returns the position after the last returned batch."""
        return dict(self._batches.get_state())

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from a position that `get_state` returned."""
        self._batches.set_state(state)


def read_batches(
    sources: Sequence[tuple[FaceCrops, float]],
    *,
    batch: int,
    scheme: Scheme,
    seed: int,
    styles: Sequence[str] = ("300w",),
    people: NDArray[np.int64] | None = None,
    clips: ClipConfig | None = None,
    process: int = 0,
    processes: int = 1,
    threads: int = 2,
) -> Reader:
    """Opens a reader.

    Each source is reshuffled in every epoch. Sources are interleaved in proportion to their
    weights. Without `clips`, the frames of clips are read as single faces.

    Args:
        sources: faces and their weight, above 0.
        batch: B, the global batch size.
        scheme: that the faces' landmarks are converted to.
        seed: of shuffling and of the frames drawn from clips.
        styles: points in another labelling style count as not labelled, except those with no style;
            faces without labelled points are left out.
        people: numbers of the persons; the index of a person is its class. None for all persons of
            the sources in ascending order.
        clips: how clips are drawn; None to read single faces.
        process: index of this process.
        processes: number of processes.
        threads: number of threads that read ahead.

    Raises:
        RednetError: a batch that is not divisible by the number of processes, a weight of 0, a
            source without a labelled face or clip, or landmarks that cannot be converted to the
            scheme.
    """
    if batch % processes:
        raise RednetError(f"a batch of {batch} is not divisible by {processes} processes")
    if not sources or min(weight for _, weight in sources) <= 0:
        raise RednetError("every source of training data needs a weight above 0")
    people = known_people(crops for crops, _ in sources) if people is None else people
    parts, offset = [], 0
    for number, (crops, _) in enumerate(sources):
        labelled = convert_labelled(crops.labelled, crops.scheme, scheme)
        labelled = labelled & np.isin(crops.styles, [*styles, ""])[:, None]
        landmarks = convert(crops.landmarks, crops.scheme, scheme)
        faces = _Faces(crops, landmarks, labelled, _classes(crops.identities, people), offset)
        places = _labelled_faces(faces) if clips is None else _windows(faces, clips.frames)
        if not len(places):
            what = "face" if clips is None else f"clip of {clips.frames} frames"
            raise RednetError(f"{crops.names[0]}, ...: no labelled {what} in these {len(crops)}")
        order = np.random.default_rng([seed, number]).integers(2**32)
        part = grain.MapDataset.source(places).seed(int(order)).shuffle().repeat()
        if clips is not None:
            part = part.random_map(functools.partial(_draw_frames, clips, crops.starts))
        parts.append(part.map(faces.at))
        offset += len(crops)
    mixed = grain.MapDataset.mix(parts, [weight for _, weight in sources])
    rows = mixed.map_with_index(functools.partial(_numbered, batch))
    batches = rows[process::processes].batch(batch // processes, drop_remainder=True)
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    names = np.concatenate([crops.names for crops, _ in sources])
    return Reader(iter(batches.to_iter_dataset(ahead)), names)


def known_people(crops: Iterable[FaceCrops]) -> NDArray[np.int64]:
    """Returns the numbers of all persons in some faces, in ascending order."""
    numbers = np.unique(np.concatenate([faces.identities for faces in crops]))
    return numbers[numbers >= 0]


def _classes(identities: NDArray[np.int64], people: NDArray[np.int64]) -> NDArray[np.int32]:
    """Returns the index of each identity in `people`, -1 for others."""
    places = np.searchsorted(people, identities)
    listed = np.append(people, -1)[places] == identities
    return np.where(listed & (identities >= 0), places, -1).astype(np.int32)


class _Faces(NamedTuple):
    """A source with converted landmarks and classes; `offset` is the index of its first face."""

    crops: FaceCrops
    landmarks: NDArray[np.float32]
    labelled: NDArray[np.bool_]
    identities: NDArray[np.int32]
    offset: int

    def at(self, places: Any) -> Batch:
        """Returns the face at an index, or the faces at indices [T], as one row of a batch."""
        return Batch(
            self.crops.images[places],
            np.where(self.labelled[places][..., None], self.landmarks[places], 0),
            self.labelled[places],
            self.crops.affines[places],
            self.identities[places],
            np.asarray(self.offset + places, np.int32),
            np.array(0, np.int32),
        )


def _numbered(batch: int, place: int, row: Batch) -> Batch:
    return row._replace(row=np.array(place % batch, np.int32))


def _labelled_faces(faces: _Faces) -> NDArray[np.int64]:
    return np.flatnonzero(faces.labelled.any(axis=1))


def _windows(faces: _Faces, frames: int) -> NDArray[np.int64]:
    """Returns [W, 2], clip and first frame, of the windows of T frames with a labelled frame.

    A single image is one window.
    """
    known: NDArray[np.bool_] = np.any(faces.labelled, axis=1)
    windows = [
        (clip, begin - start)
        for clip, (start, end) in enumerate(itertools.pairwise(faces.crops.starts))
        for begin in range(start, end if end - start == 1 else end - frames + 1, frames)
        if known[begin : min(begin + frames, end)].any()
    ]
    return np.array(windows, np.int64).reshape(-1, 2)


def _draw_frames(
    config: ClipConfig,
    starts: NDArray[np.int64],
    window: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Returns the indices [T] of a random clip that starts in a window, as far as it has room."""
    clip, begin = window
    length = starts[clip + 1] - starts[clip]
    if length == 1:
        return np.repeat(starts[clip], config.frames)
    longest = (length - 1) // max(config.frames - 1, 1)
    stride = rng.integers(1, min(config.largest_stride, longest) + 1) if longest > 1 else 1
    last = length - 1 - stride * (config.frames - 1)
    first = min(begin + rng.integers(config.frames), last)
    frames = first + stride * np.arange(config.frames)
    places: NDArray[np.int64] = starts[clip] + frames
    return places[::-1] if rng.random() < config.reverse else places
