"""The base of all builders: it writes records from a folder and reports what it leaves out."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from rednet_jax.data.builders.examples import Example, face_features
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.schemes import Scheme

LARGEST_BAD_SHARE = 0.05
"""With a larger share of bad files the folder is refused as a broken copy."""

RULES = 2
"""Version of the code that reads images and labels; data of another version is rebuilt."""


class BadFiles:
    """Files that were read and files that were skipped, by kind (`face`, `clip`, `annotation`).

    A file counts once, even if several splits hold it.
    """

    def __init__(self) -> None:
        """Creates an empty record."""
        self._tried: defaultdict[str, set[str]] = defaultdict(set)
        self._bad: defaultdict[str, dict[str, str]] = defaultdict(dict)

    @property
    def lines(self) -> list[str]:
        """One line for each file skipped."""
        return [line for bad in self._bad.values() for line in bad.values()]

    @contextlib.contextmanager
    def skipping(self, kind: str, name: str) -> Iterator[None]:
        """Context in which a file is read: counts it, and records a RednetError and ends it."""
        self._tried[kind].add(name)
        try:
            yield
        except RednetError as cause:
            self._bad[kind][name] = str(cause)

    def check(self) -> None:
        """Raises RednetError if more than `LARGEST_BAD_SHARE` of one kind is bad."""
        for kind, bad in self._bad.items():
            if len(bad) > LARGEST_BAD_SHARE * len(self._tried[kind]):
                shown = "; ".join([*bad.values()][:3])
                raise RednetError(
                    f"{len(bad)} of {len(self._tried[kind])} {kind}s are bad, more than "
                    f"{LARGEST_BAD_SHARE:.0%}: {shown}{'; ...' if len(bad) > 3 else ''}"
                )


class FaceBuilder(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]
    """Builds a data set from a folder with the publisher's layout.

    Attributes:
        splits: names of all splits.
        scheme: of its landmarks.
        subsets: names of subsets of its splits.
        needs_source: False for a generated data set, which has no source folder.
        source: the source folder; None to read prepared data.
        left_out: one line for each part that `source` lacks, or that has no labels.
        bad: files read and files skipped.
        known: files of `source` that were read, or that `left_out` accounts for; paths relative to
            it, with `/`.
    """

    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded; TFDS would look for a list of URLs beside this file.
    url_infos: ClassVar[dict[str, object]] = {}
    splits: ClassVar[tuple[str, ...]]
    subsets: ClassVar[tuple[str, ...]] = ()
    kind: ClassVar[str] = "face"
    scheme: Scheme = IBUG68
    # The layout that was looked for, for the error message.
    tree: ClassVar[str]
    needs_source: ClassVar[bool] = True

    def __init__(
        self,
        *,
        source: Path | None = None,
        report: Callable[[int, int | None], None] | None = None,
        **kwargs: Any,
    ) -> None:
        """Opens the data set; `report` is called with (done, total) after each sample."""
        self.source = source
        self.left_out: list[str] = []
        self.bad = BadFiles()
        self.known: set[str] = set()
        self._report = report or (lambda done, total: None)
        self._written: dict[str, list[str]] = {}
        super().__init__(file_format="array_record", **kwargs)

    @property
    def root(self) -> Path:
        """The folder to build from.

        Raises:
            RednetError: `source` is None or not a folder.
        """
        if self.source is None:
            raise RednetError(f"{self.name} is built from a folder")
        if not self.source.is_dir():
            raise RednetError(f"{self.source}: no such folder")
        return self.source

    @classmethod
    def recipe(cls) -> bytes:
        """Returns the inputs of the build other than `source`: split lists, and `RULES`."""
        lists = resources.files("rednet_jax.data").joinpath("splits")
        files = sorted(lists.iterdir(), key=lambda file: file.name)
        return b"".join(file.read_bytes() for file in files) + f"rules {RULES}\n".encode()

    @abstractmethod
    def list_splits(self) -> dict[str, list[str]]:
        """Returns the names of each split's samples, in the order in which they are stored."""

    @abstractmethod
    def read(self, name: str) -> Example:
        """Returns one sample.

        Raises:
            RednetError: one of its files is bad.
        """

    def members(self, subset: str) -> tuple[str, set[str]]:
        """Returns the split that contains a subset, and the names of the subset's samples."""
        raise NotImplementedError(subset)

    def subset_places(self) -> dict[str, tuple[str, list[int]]]:
        """Returns for each subset its split, and the indices of its samples in that split."""
        places = {}
        for subset in self.subsets:
            split, names = self.members(subset)
            written = self._written.get(split, [])
            chosen = [number for number, name in enumerate(written) if name in names]
            if chosen:
                places[subset] = split, chosen
        return places

    def inside(self, relative: str) -> Path:
        """Returns the path of a file below `root`.

        Raises:
            RednetError: the path or a link in it leads outside `root`, or there is no such file.
        """
        path = self.root / relative
        self.known.add(Path(relative).as_posix())
        try:
            real = path.resolve()
            if not real.is_relative_to(self.root.resolve()):
                raise RednetError(f"{path}: leads outside {self.root}")
            if not real.is_file():
                raise RednetError(f"{path}: no such file")
        except (OSError, RuntimeError) as error:
            raise RednetError(f"{path}: cannot be resolved ({error})") from error
        return path

    def only_file(self, name: str, files: Sequence[str], what: str) -> Path:
        """Returns the path of the one file of a kind that a sample must have.

        Args:
            name: of the sample.
            files: candidates, paths relative to `root`, as `files_by_name` returns them.
            what: kind of file, for the message.

        Raises:
            RednetError: there is not exactly one candidate, or as `inside` does.
        """
        self.known.update(files)
        if not files:
            raise RednetError(f"{self.root / name}: has no {what}")
        if len(files) > 1:
            endings = " and ".join(Path(file).suffix for file in files)
            raise RednetError(
                f"{self.root / name}: has {len(files)} files ({endings}) for its {what}"
            )
        return self.inside(files[0])

    def _features(self) -> tfds.features.FeaturesDict:
        return face_features(self.scheme.count)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self, features=self._features(), disable_shuffling=True
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator[tuple[str, Example]]]:
        names = self.list_splits()
        self._done, self._total = 0, sum(map(len, names.values()))
        if not self._total:
            raise RednetError(f"{self.root}: contains no part of the data set ({self.tree})")
        generators: dict[str, Iterator[tuple[str, Example]]] = {}
        for split, listed in names.items():
            samples = self._generate_examples(listed)
            # The writer refuses a split without samples.
            first = next(samples, None)
            if first is not None:
                generators[split] = chain([first], samples)
        if not generators:
            self.bad.check()
        return generators

    def _generate_examples(self, names: list[str]) -> Iterator[tuple[str, Example]]:
        for name in names:
            self._done += 1
            self._report(self._done, self._total)
            sample = None
            with self.bad.skipping(self.kind, name):
                if not name.isprintable():
                    raise RednetError(f"{name!r}: the name is not UTF-8, or not printable")
                sample = self.read(name)
            if sample is not None:
                yield name, sample

    def _generate_splits(self, dl_manager: object, download_config: object) -> list[Any]:
        """Writes each split while it is read.

        TFDS's implementation collects a split to shuffle it, and needs TensorFlow above 1 GB.
        """
        generators = self._split_generators(dl_manager)
        return [self._write_split(split, samples) for split, samples in generators.items()]

    def _write_split(self, split: str, samples: Iterator[tuple[str, Example]]) -> Any:
        features = self.info.features
        serializer = tfds.core.ExampleSerializer(features.get_serialized_info())
        template = self._get_filename_template(split_name=split)
        path = template.sharded_filepath(shard_index=0, num_shards=1)
        count = 0

        def records() -> Iterator[tuple[str, bytes]]:
            nonlocal count
            for name, sample in samples:
                count += 1
                self._written.setdefault(split, []).append(name)
                yield name, serializer.serialize_example(features.encode_example(sample))

        try:
            self._example_writer().write(path, records())
        except RuntimeError as error:
            # array_record reports errors of the system this way, such as a full disk.
            if str(path) not in str(error):
                raise
            raise OSError("; ".join(str(error).split("; ")[:2])) from error
        return tfds.core.SplitInfo(
            name=split,
            shard_lengths=[count],
            num_bytes=path.stat().length,
            filename_template=template,
        )

    def _download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        super()._download_and_prepare(*args, **kwargs)
        # Checked while the data set has its temporary name, under which it is deleted on an error.
        self.bad.check()
