"""Readers of prepared data sets, with random access to the samples of a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np
import tensorflow_datasets as tfds
from numpy.typing import NDArray

from rednet_jax.data.builders import BUILDERS
from rednet_jax.data.builders.clips_300vw import EncodedFrames
from rednet_jax.data.folder import data_folder
from rednet_jax.data.prepare import find_prepared, own_data
from rednet_jax.data.samples import ClipSample, Sample
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.media.images import open_image, rgb_pixels

S = TypeVar("S")


class Split(Generic[S]):
    """A split of a prepared data set; a sample is read and decoded when it is accessed.

    Several threads may read at the same time.

    Attributes:
        data: name of the data set.
        split: name of the split.
        source: digest of the files or the generator that the data set was prepared from.
        scheme: of its landmarks.
    """

    def __init__(
        self,
        data: str,
        split: str,
        source: str,
        records: Sequence[Any],
        read: Callable[[Any], S],
        scheme: Scheme = IBUG68,
    ) -> None:
        """Wraps `records`; `read` converts a record to a sample."""
        self.data, self.split, self.source, self.scheme = data, split, source, scheme
        self._records, self._read = records, read

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._records)

    def __getitem__(self, index: int) -> S:
        """Returns the sample at an index, in stored order."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self._read(self._records[index])

    def __iter__(self) -> Iterator[S]:
        """Iterates over the samples in stored order."""
        return (self[i] for i in range(len(self)))


def holds_clips(data: str) -> bool:
    """Returns whether the samples of a data set are clips; those of a user's folder are images."""
    return data in BUILDERS and BUILDERS[data].kind == "clip"


def read_split(data: str, split: str, data_dir: Path | None = None) -> Split[Sample]:
    """Opens a split of faces in images.

    Args:
        data: name of the data set, a key of `BUILDERS` or the name of a prepared folder.
        split: of the data set.
        data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.

    Raises:
        RednetError: an unknown name or split, or a data set that has clips or is not prepared.
    """
    if holds_clips(data):
        raise RednetError(f"{data} contains clips, not single images")
    source, records, scheme = _open(data, split, data_dir)
    return Split(data, split, source, records, _sample, scheme)


def read_clips(data: str, split: str, data_dir: Path | None = None) -> Split[ClipSample]:
    """Opens a split of clips; arguments and errors as in `read_split`, for a data set of clips."""
    if not holds_clips(data):
        raise RednetError(f"{data} contains single images, not clips")
    source, records, scheme = _open(data, split, data_dir)
    return Split(data, split, source, records, _clip, scheme)


def _open(data: str, split: str, data_dir: Path | None) -> tuple[str, Sequence[Any], Scheme]:
    prepared = find_prepared(data, data_dir)
    builder = BUILDERS.get(data)
    if builder is not None:
        known = [*builder.splits, *builder.subsets]
    elif prepared is not None:
        known = list(prepared.samples)
    else:
        raise RednetError(
            f"no data set '{data}'; known: {', '.join([*BUILDERS, *own_data(data_dir)])}; "
            f"`rednet data prepare folder --name {data} --from DIR` prepares your images"
        )
    if split not in known:
        raise RednetError(f"{data} has no split '{split}'; known: {', '.join(known)}")
    if prepared is None:
        origin = " --from FOLDER" if builder is not None and builder.needs_source else ""
        raise RednetError(
            f"{data_folder(data_dir)}: {data} is not prepared here; "
            f"run `rednet data prepare {data}{origin}` first"
        )
    if split not in prepared.samples:
        raise RednetError(f"{prepared.folder}: prepared from a folder without {data} {split}")
    clips = holds_clips(data)
    decoders = {"image": EncodedFrames() if clips else tfds.decode.SkipDecoding()}
    whole, chosen = prepared.subsets.get(split, (split, None))
    records = tfds.builder_from_directory(prepared.folder).as_data_source(whole, decoders=decoders)
    if chosen is not None:
        records = _Subset(records, chosen)
    return prepared.source, records, prepared.scheme


def _sample(record: dict[str, Any]) -> Sample:
    return Sample(
        image=decode(record["image"]),
        landmarks=record["landmarks"],
        labelled=record["labelled"],
        box=record["box"],
        **_names(record),
    )


def _clip(record: dict[str, Any]) -> ClipSample:
    return ClipSample(
        images=_LazyImages(record["image"]),
        landmarks=record["landmarks"],
        labelled=record["labelled"],
        box=record["box"],
        valid=record["valid"],
        **_names(record),
    )


def _names(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": record["name"].decode(),
        "identity": int(record["identity"]),
        "style": record["style"].decode(),
    }


def decode(data: bytes) -> NDArray[np.uint8]:
    """Returns an encoded image as RGB uint8 [H, W, 3]; the EXIF orientation is ignored."""
    with open_image(data) as image:
        return rgb_pixels(image, upright=False)


class _Subset(Sequence[Any]):
    """The records of a subset of a split."""

    def __init__(self, records: Sequence[Any], chosen: Sequence[int]) -> None:
        self._records, self._chosen = records, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: Any) -> Any:
        return self._records[self._chosen[index]]


class _LazyImages(Sequence[NDArray[np.uint8]]):
    def __init__(self, encoded: Sequence[bytes]) -> None:
        self._encoded = encoded

    def __len__(self) -> int:
        return len(self._encoded)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> list[NDArray[np.uint8]]: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
        if isinstance(index, slice):
            return [decode(data) for data in self._encoded[index]]
        return decode(self._encoded[index])
