"""Preparing data sets: from a publisher's folder, or a generator, to records in the data folder."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import tensorflow_datasets as tfds

from rednet_jax.data.builders import BUILDERS
from rednet_jax.data.builders.base import FaceBuilder
from rednet_jax.data.builders.tree_300w import MIRRORED
from rednet_jax.data.folder import data_folder
from rednet_jax.errors import RednetError
from rednet_jax.files import locked_folder, write_text

SUMMARY = "rednet.json"


@dataclass(frozen=True)
class Prepared:
    """A data set in the data folder.

    Attributes:
        folder: what `tfds.builder_from_directory` reads.
        source: digest of what it was made from.
        samples: how many each split has.
        left_out: one line for each part that the source did not have or had no labels for.
        skipped: one line for each bad file.
        unread: how many files of the source were not looked at, by what they are: their ending,
            'mirrored copies' or 'hidden files'.
        built: False if it was there already, made from the same files or generator.
    """

    folder: Path
    source: str
    samples: dict[str, int]
    left_out: tuple[str, ...]
    skipped: tuple[str, ...]
    unread: dict[str, int]
    built: bool


def find_prepared(name: str, data_dir: Path | None = None) -> Prepared | None:
    """Returns a data set that was prepared, or None.

    Args:
        name: the data set's, a key of `BUILDERS`.
        data_dir: as in `data_folder`.
    """
    folder = data_folder(data_dir) / _place(BUILDERS[name])
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        splits = tfds.builder_from_directory(folder).info.splits
    except (OSError, ValueError):
        return None
    return Prepared(
        folder=folder,
        source=summary["source"],
        samples={split: info.num_examples for split, info in splits.items()},
        left_out=tuple(summary["left_out"]),
        skipped=tuple(summary["skipped"]),
        # Of data prepared before there was a count, nothing is known.
        unread=summary.get("unread", {}),
        built=False,
    )


def prepare(
    name: str,
    source: Path | None = None,
    data_dir: Path | None = None,
    report: Callable[[int, int | None], None] | None = None,
) -> Prepared:
    """Builds a data set, unless it is there already and its source has not changed.

    It appears in the data folder whole, in the place of an older one, or not at all.

    Args:
        name: a key of `BUILDERS`.
        source: the publisher's folder; None for a data set that is generated.
        data_dir: as in `data_folder`.
        report: called with (done, in all) after each sample tried.

    Raises:
        RednetError: an unknown name, no folder given or one that is not wanted, a folder with no
            known part of the data set, one where more than 5 % are bad, or a data folder that
            cannot be written.
    """
    if name not in BUILDERS:
        raise RednetError(f"no data set '{name}'; known: {', '.join(BUILDERS)}")
    if BUILDERS[name].needs_source:
        if source is None:
            raise RednetError(f"{name} is prepared from the publisher's folder: give --from FOLDER")
        if not source.is_dir():
            raise RednetError(f"{source}: no such folder")
    elif source is not None:
        raise RednetError(f"{name} is generated, from no folder: leave out --from {source}")
    root = data_folder(data_dir)
    fingerprint = _fingerprint(BUILDERS[name], source, besides=root)
    place = root / _place(BUILDERS[name])

    def unchanged() -> Prepared | None:
        found = find_prepared(name, root)
        return found if found is not None and found.source == fingerprint else None

    try:
        # Looked at first, without the lock: nothing is written where there is nothing to do.
        if found := unchanged():
            return found
        with locked_folder(root / f".{name}.partial") as partial:
            if found := unchanged():
                return found
            builder = BUILDERS[name](source=source, data_dir=partial, report=report)
            _build(builder)
            unread = {} if source is None else _unread(builder, source, besides=root)
            summary = {
                "source": fingerprint,
                "left_out": builder.left_out,
                "skipped": builder.bad.lines,
                "unread": unread,
            }
            write_text(Path(builder.data_dir) / SUMMARY, json.dumps(summary, indent=2) + "\n")
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists():
                # Moved, then deleted: half deleted in its place, it would look whole.
                os.replace(place, partial / "replaced")
            os.replace(builder.data_dir, place)
    except OSError as error:
        raise RednetError(f"{name} cannot be prepared: {error}") from error
    samples = {split: info.num_examples for split, info in builder.info.splits.items()}
    return Prepared(
        folder=place,
        source=fingerprint,
        samples=samples,
        left_out=tuple(builder.left_out),
        skipped=tuple(builder.bad.lines),
        unread=unread,
        built=True,
    )


def _place(builder: type[FaceBuilder]) -> Path:
    """Where TFDS puts a data set below the data folder."""
    return Path(builder.name) / str(builder.VERSION)


def _build(builder: FaceBuilder) -> None:
    tfds.disable_progress_bar()
    # What TFDS says on standard output is no answer to a command.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )


def _fingerprint(builder: type[FaceBuilder], source: Path | None, besides: Path) -> str:
    """Returns a digest of the builder's recipe and of all files of `source`.

    What lies below `besides` does not count: a data folder may lie inside the source.
    """
    digest = hashlib.sha256(f"{builder.name} {builder.VERSION}\n".encode() + builder.recipe())
    if source is not None:
        for path in _files(source, besides):
            state = path.lstat()
            line = f"{path.relative_to(source)} {state.st_size} {state.st_mtime_ns}\n"
            digest.update(os.fsencode(line))
    return digest.hexdigest()


def _unread(builder: FaceBuilder, source: Path, besides: Path) -> dict[str, int]:
    """Returns how many files of `source` the builder has not looked at, by what they are."""
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
    """Yields the files of `source`, in an order of their own; without those below `besides`."""
    for folder, folders, files in os.walk(source):
        if Path(folder).resolve() == besides.resolve() != source.resolve():
            folders.clear()
            continue
        folders.sort()
        yield from (Path(folder, name) for name in sorted(files))
