"""Preparation of data sets: a publisher's folder, or a generator, to records in the data folder."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from rednet_jax.data.builders import BUILDERS
from rednet_jax.data.builders.base import FaceBuilder
from rednet_jax.data.builders.own_folder import OwnData, RednetFolder
from rednet_jax.data.builders.tree_300w import MIRRORED
from rednet_jax.data.folder import data_folder
from rednet_jax.errors import RednetError
from rednet_jax.files import locked_folder, write_text
from rednet_jax.landmarks.builtin import plain_scheme, scheme_of
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.reading import read_json

SUMMARY = "rednet.json"


@dataclass(frozen=True)
class Prepared:
    """A data set in the data folder.

    Attributes:
        folder: that `tfds.builder_from_directory` reads.
        source: digest of the source files or the generator.
        samples: number of samples of each split and subset.
        left_out: one line for each part that the source lacks or has no labels for.
        skipped: one line for each bad file.
        unread: number of files of the source that were not read, by kind: their extension,
            'mirrored copies' or 'hidden files'.
        scheme: of the landmarks.
        subsets: for each subset its split, and the indices of its samples in that split.
        built: False if it existed already with the same source.
    """

    folder: Path
    source: str
    samples: dict[str, int]
    left_out: tuple[str, ...]
    skipped: tuple[str, ...]
    unread: dict[str, int]
    scheme: Scheme
    subsets: dict[str, tuple[str, list[int]]]
    built: bool


def find_prepared(name: str, data_dir: Path | None = None) -> Prepared | None:
    """Returns a prepared data set, or None if it is not prepared.

    Args:
        name: of the data set, a key of `BUILDERS` or the name of a prepared folder.
        data_dir: as in `data_folder`.
    """
    folder = data_folder(data_dir) / _place(name)
    try:
        summary = read_json(folder / SUMMARY)
        splits = tfds.builder_from_directory(folder).info.splits
    except (OSError, ValueError):
        return None
    if not isinstance(summary, dict) or not summary.keys() >= {"source", "left_out", "skipped"}:
        return None
    subsets = {
        name: (split, chosen) for name, (split, chosen) in summary.get("subsets", {}).items()
    }
    return Prepared(
        folder=folder,
        source=summary["source"],
        samples=_sizes(splits, subsets),
        # Older versions had one scheme only, and did not record it.
        scheme=scheme_of(summary.get("scheme", "ibug68")),
        subsets=subsets,
        left_out=tuple(summary["left_out"]),
        skipped=tuple(summary["skipped"]),
        # Older versions did not record this.
        unread=summary.get("unread", {}),
        built=False,
    )


def prepare(
    name: str,
    source: Path | None = None,
    data_dir: Path | None = None,
    report: Callable[[int, int | None], None] | None = None,
    *,
    own: OwnData | None = None,
) -> Prepared:
    """Builds a data set, unless it exists and its source has not changed.

    The data set appears in the data folder whole, and replaces an older one, or not at all.

    Args:
        name: a key of `BUILDERS`, or with `own` any other name.
        source: the publisher's folder, or with `own` the folder of images; None for a generated
            data set.
        data_dir: as in `data_folder`.
        report: called with (done, total) after each sample.
        own: describes the images and labels of a user's folder.

    Raises:
        RednetError: an unknown name, a missing or superfluous `source`, a folder without any part
            of the data set, more than 5 % bad files, or a data folder that cannot be written.
    """
    if own is not None:
        check_own_name(name)
    elif name not in BUILDERS:
        raise RednetError(f"no data set '{name}'; known: folder, {', '.join(BUILDERS)}")
    if own is not None or BUILDERS[name].needs_source:
        if source is None:
            origin = "a folder of images" if own is not None else "the publisher's folder"
            raise RednetError(f"{name} is prepared from {origin}: give --from FOLDER")
        if not source.is_dir():
            raise RednetError(f"{source}: no such folder")
    elif source is not None:
        raise RednetError(f"{name} is generated, without a folder: leave out --from {source}")
    root = data_folder(data_dir)
    make = BUILDERS[name] if own is None else functools.partial(RednetFolder, name, own)
    recipe = BUILDERS[name].recipe() if own is None else own.recipe()
    place = root / _place(name)
    fingerprint = _fingerprint(place.relative_to(root), recipe, source, besides=root)

    def unchanged() -> Prepared | None:
        prepared = find_prepared(name, root)
        return prepared if prepared is not None and prepared.source == fingerprint else None

    try:
        # Checked before locking, since the lock writes a file.
        if prepared := unchanged():
            return prepared
        with locked_folder(root / f".{name}.partial") as partial:
            if prepared := unchanged():
                return prepared
            builder = make(source=source, data_dir=partial, report=report)
            _build(builder)
            subsets = builder.subset_places()
            unread = {} if source is None else _unread(builder, source, besides=root)
            summary = {
                "source": fingerprint,
                "left_out": builder.left_out,
                "skipped": builder.bad.lines,
                "unread": unread,
                "scheme": plain_scheme(builder.scheme),
                "subsets": subsets,
            }
            write_text(Path(builder.data_dir) / SUMMARY, json.dumps(summary, indent=2) + "\n")
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists():
                # Moved before it is deleted, so that a partly deleted data set is never used.
                os.replace(place, partial / "replaced")
            os.replace(builder.data_dir, place)
    except OSError as error:
        raise RednetError(f"{name} cannot be prepared: {error}") from error
    return Prepared(
        folder=place,
        source=fingerprint,
        samples=_sizes(builder.info.splits, subsets),
        scheme=builder.scheme,
        subsets=subsets,
        left_out=tuple(builder.left_out),
        skipped=tuple(builder.bad.lines),
        unread=unread,
        built=True,
    )


def own_data(data_dir: Path | None = None) -> list[str]:
    """Returns the names of the prepared folders of images.

    Args:
        data_dir: as in `data_folder`.
    """
    summaries = (data_folder(data_dir) / RednetFolder.name).glob(f"*/*/{SUMMARY}")
    return sorted({path.parent.parent.name for path in summaries})


def check_own_name(name: str) -> None:
    """Raises RednetError if a folder of images cannot have this name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise RednetError(f"name: {name!r} may contain letters, digits, _ and - only")
    if name in (*BUILDERS, "folder"):
        raise RednetError(f"name: '{name}' is the name of another data set")


def _place(name: str) -> Path:
    """Returns where TFDS stores a data set, relative to the data folder."""
    if name in BUILDERS:
        return Path(BUILDERS[name].name) / str(BUILDERS[name].VERSION)
    return Path(RednetFolder.name) / name / str(RednetFolder.VERSION)


def _sizes(
    splits: Mapping[str, Any], subsets: Mapping[str, tuple[str, Sequence[int]]]
) -> dict[str, int]:
    sizes = {split: int(info.num_examples) for split, info in splits.items()}
    return sizes | {name: len(chosen) for name, (_, chosen) in subsets.items()}


def _build(builder: FaceBuilder) -> None:
    tfds.disable_progress_bar()
    # TFDS prints to standard output, which is reserved for the results of commands.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )


def _fingerprint(place: Path, recipe: bytes, source: Path | None, besides: Path) -> str:
    """Returns a digest of the data set's path, its builder's recipe and all files of `source`.

    Files below `besides` are ignored, since a data folder may be inside the source.
    """
    name, version = place.parent.as_posix(), place.name
    digest = hashlib.sha256(f"{name} {version}\n".encode() + recipe)
    if source is not None:
        for path in _files(source, besides):
            state = path.lstat()
            line = f"{path.relative_to(source)} {state.st_size} {state.st_mtime_ns}\n"
            digest.update(os.fsencode(line))
    return digest.hexdigest()


def _unread(builder: FaceBuilder, source: Path, besides: Path) -> dict[str, int]:
    """Returns the number of files of `source` that the builder has not read, by kind."""
    counts: Counter[str] = Counter()
    for path in _files(source, besides):
        if path.relative_to(source).as_posix() in builder.known:
            continue
        if path.name.startswith("."):
            counts["hidden files"] += 1
        elif path.stem.endswith(MIRRORED):
            counts["mirrored copies"] += 1
        else:
            counts[path.suffix or "without ending"] += 1
    return dict(counts.most_common())


def _files(source: Path, besides: Path) -> Iterator[Path]:
    """Yields the files of `source` in a fixed order, without those below `besides`."""
    for folder, folders, files in os.walk(source):
        if Path(folder).resolve() == besides.resolve() != source.resolve():
            folders.clear()
            continue
        folders.sort()
        yield from (Path(folder, name) for name in sorted(files))
