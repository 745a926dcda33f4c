"""What the builders share: the features of a sample, images as stored, and what is left out."""

from __future__ import annotations

import contextlib
import io
import re
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from numpy.typing import NDArray
from PIL import Image

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.boxes import landmark_box, whole_face_box
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.media.images import image_errors, open_image, read_bytes, rgb_pixels

LARGEST_BAD_SHARE = 0.05
"""A tree with a larger part of bad files is taken for a broken copy."""

RULES = 2
"""How images and labels are read; data prepared under another number is rebuilt."""

FEWEST_INSIDE = 0.5
"""Share of a face's labelled points that must lie in its image. In 16,484 faces of six data sets,
points that machines guess beside the image included, the least is 0.75."""

FARTHEST_OUTSIDE = 0.5
"""Longer sides of the image that a labelled point may lie outside it; those faces have at most
0.24."""

_FLAT = 0.05
"""Sides of a face's box: points of the mean shape that spread by less lie on a line."""

SMALLEST_FACE = 4.0
"""Pixels of the larger side of a face's box. In those faces it is 29 or more."""

Example = dict[str, Any]


class BadFiles:
    """What was tried and what had to be skipped, by kind (`face`, `clip`, `annotation`).

    A file counts once, though several splits may hold it.
    """

    def __init__(self) -> None:
        """Nothing tried yet."""
        self._tried: defaultdict[str, set[str]] = defaultdict(set)
        self._bad: defaultdict[str, dict[str, str]] = defaultdict(dict)

    @property
    def lines(self) -> list[str]:
        """One line for each file skipped."""
        return [line for bad in self._bad.values() for line in bad.values()]

    @contextlib.contextmanager
    def skipping(self, kind: str, name: str) -> Iterator[None]:
        """Counts one that is tried inside the block; a RednetError ends the block and is noted."""
        self._tried[kind].add(name)
        try:
            yield
        except RednetError as cause:
            self._bad[kind][name] = str(cause)

    def check(self) -> None:
        """Raises RednetError if more than `LARGEST_BAD_SHARE` of a kind is bad."""
        for kind, bad in self._bad.items():
            if len(bad) > LARGEST_BAD_SHARE * len(self._tried[kind]):
                shown = "; ".join([*bad.values()][:3])
                raise RednetError(
                    f"{len(bad)} of {len(self._tried[kind])} {kind}s are bad, more than "
                    f"{LARGEST_BAD_SHARE:.0%}: {shown}{'; ...' if len(bad) > 3 else ''}"
                )


class FaceBuilder(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]
    """Builds a data set from a folder of the publisher's form.

    Attributes:
        splits: the splits that it knows.
        scheme: of its landmarks.
        subsets: names of parts of its splits.
        needs_source: False for one that is generated, from no folder.
        source: the folder; None to read what was prepared.
        left_out: one line for each part that `source` does not have, or that has no labels.
        bad: files tried and skipped.
        known: files of `source` that were read, or that a line of `left_out` tells of; paths below
            it with `/`.
    """

    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded; TFDS would look for a list of addresses beside this file.
    url_infos: ClassVar[dict[str, object]] = {}
    splits: ClassVar[tuple[str, ...]]
    subsets: ClassVar[tuple[str, ...]] = ()
    kind: ClassVar[str] = "face"
    scheme: Scheme = IBUG68
    # What makes a folder one of this data set, for the message where nothing of it is found.
    tree: ClassVar[str]
    needs_source: ClassVar[bool] = True

    def __init__(
        self,
        *,
        source: Path | None = None,
        report: Callable[[int, int | None], None] | None = None,
        **kwargs: Any,
    ) -> None:
        """Opens the data set; `report` gets (done, in all) after each sample tried."""
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
            RednetError: none was given, or it is no folder.
        """
        if self.source is None:
            raise RednetError(f"{self.name} is built from a folder")
        if not self.source.is_dir():
            raise RednetError(f"{self.source}: no such folder")
        return self.source

    @classmethod
    def recipe(cls) -> bytes:
        """Returns what decides the samples besides the files of `source`.

        Those are the split lists, and the rules by which images and labels are read.
        """
        lists = resources.files("rednet_jax.data").joinpath("splits")
        files = sorted(lists.iterdir(), key=lambda file: file.name)
        return b"".join(file.read_bytes() for file in files) + f"rules {RULES}\n".encode()

    @abstractmethod
    def list_splits(self) -> dict[str, list[str]]:
        """Returns the names of each split's samples, in the order they are stored in."""

    @abstractmethod
    def read(self, name: str) -> Example:
        """Returns one sample.

        Raises:
            RednetError: one of its files is bad.
        """

    def members(self, subset: str) -> tuple[str, set[str]]:
        """Returns the split that a subset is a part of, and the names of its samples."""
        raise NotImplementedError(subset)

    def subset_places(self) -> dict[str, tuple[str, list[int]]]:
        """Returns for each subset its split, and the numbers of its samples there."""
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
            RednetError: the path or a link in it leads out of `root`, or there is no such file.
        """
        path = self.root / relative
        self.known.add(Path(relative).as_posix())
        try:
            real = path.resolve()
            if not real.is_relative_to(self.root.resolve()):
                raise RednetError(f"{path}: leads out of {self.root}")
            if not real.is_file():
                raise RednetError(f"{path}: no such file")
        except (OSError, RuntimeError) as error:
            raise RednetError(f"{path}: leads nowhere ({error})") from error
        return path

    def only_file(self, name: str, files: Sequence[str], what: str) -> Path:
        """Returns the path of a sample's one file of a kind.

        Args:
            name: of the sample.
            files: all that could be it, paths below `root`, as `files_by_name` gives them.
            what: it is, for the message.

        Raises:
            RednetError: there is none or more than one, or as in `inside`.
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
            raise RednetError(f"{self.root}: no known part of the data set here ({self.tree})")
        generators: dict[str, Iterator[tuple[str, Example]]] = {}
        for split, listed in names.items():
            samples = self._generate_examples(listed)
            # The writer takes no split without samples.
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
                    raise RednetError(f"{name!r}: its name is not UTF-8, or not printable")
                sample = self.read(name)
            if sample is not None:
                yield name, sample

    def _generate_splits(self, dl_manager: object, download_config: object) -> list[Any]:
        """Writes each split as it is read.

        TFDS's own way gathers a split to shuffle it, and needs TensorFlow for one beyond 1 GB.
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
            # So array_record says what the system said, such as that the disk is full.
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
        # Here the data set still has its temporary name, under which it goes away.
        self.bad.check()


def face_features(landmarks: int) -> tfds.features.FeaturesDict:
    """Returns the features of a face of L landmarks in one image, those of `Sample`."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "landmarks": tfds.features.Tensor(shape=(landmarks, 2), dtype=np.float32),
            "labelled": tfds.features.Tensor(shape=(landmarks,), dtype=np.bool_),
            "box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
            **_name_features(),
        }
    )


def clip_features(landmarks: int) -> tfds.features.FeaturesDict:
    """Returns the features of a face of L landmarks in T frames: a leading T, and `valid` [T]."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Sequence(tfds.features.Image(shape=(None, None, 3))),
            "landmarks": tfds.features.Tensor(shape=(None, landmarks, 2), dtype=np.float32),
            "labelled": tfds.features.Tensor(shape=(None, landmarks), dtype=np.bool_),
            "box": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
            "valid": tfds.features.Tensor(shape=(None,), dtype=np.bool_),
            **_name_features(),
        }
    )


def _name_features() -> dict[str, Any]:
    return {
        "name": tfds.features.Text(),
        "identity": tfds.features.Scalar(np.int64),
        "style": tfds.features.Text(),
    }


class StoredImage(NamedTuple):
    """An image as it is stored.

    Attributes:
        data: JPEG or PNG, RGB with 8 bits.
        size: width and height in pixels.
    """

    data: bytes
    size: tuple[int, int]


def read_image_file(path: Path) -> StoredImage:
    """Returns an image's own bytes; in another mode or format than RGB JPEG or PNG, as RGB PNG.

    Images are not turned by their EXIF data: labels are in pixels as stored.

    Raises:
        RednetError: as `rednet_jax.media.images.read_image` does.
    """
    with image_errors(path):
        data = read_bytes(path)
        with open_image(data) as image:
            plain = image.mode == "RGB" and "transparency" not in image.info
            if plain and image.format in ("JPEG", "PNG"):
                image.load()
                return StoredImage(data, image.size)
            pixels = Image.fromarray(rgb_pixels(image, upright=False))
    file = io.BytesIO()
    pixels.save(file, "PNG")
    return StoredImage(file.getvalue(), pixels.size)


def face_example(
    name: str,
    image: StoredImage,
    landmarks: NDArray[np.float32],
    labelled: NDArray[np.bool_],
    *,
    scheme: Scheme = IBUG68,
    box: NDArray[np.floating] | None = None,
    identity: int = -1,
    style: str = "300w",
    where: object = None,
) -> Example:
    """Returns a sample with the features of `face_features`.

    Args:
        name: path below the source folder, without extension.
        image: the face's.
        landmarks: float32 [L, 2] in pixels of `image`.
        labelled: bool [L]; the others become 0. A face without any has the whole image as box.
        scheme: of the landmarks.
        box: [4] of the face, where the data set has one; that of the landmarks if None.
        identity: number of the person.
        style: whose labelling convention the points follow.
        where: the file of the labels, for messages; the name where it is None.

    Raises:
        RednetError: as `check_face` does.
    """
    check_face(where or name, landmarks, labelled, image.size, scheme, box)
    if box is None:
        box = np.array([0, 0, image.size[0] - 1, image.size[1] - 1], np.float32)
        if labelled.any():
            box = landmark_box(landmarks, labelled)
    return {
        "image": image.data,
        "landmarks": np.where(labelled[:, None], landmarks, 0).astype(np.float32),
        "labelled": labelled,
        "box": np.asarray(box, np.float32),
        "name": name,
        "identity": identity,
        "style": style,
    }


def check_face(
    where: object,
    landmarks: NDArray[np.floating],
    labelled: NDArray[np.bool_],
    size: tuple[int, int],
    scheme: Scheme = IBUG68,
    box: NDArray[np.floating] | None = None,
) -> None:
    """Refuses labels that are not of this image: of another scale, of another frame of pixels.

    Args:
        where: the face's name or file, for the message.
        landmarks: [L, 2], pixels of the image.
        labelled: bool [L]; a face without any passes.
        size: width and height of the image in pixels.
        scheme: of the landmarks.
        box: [4] of the face; None where it is not known.

    Raises:
        RednetError: too few points in the image, one far outside, a face of hardly any size, all
            points on one line, or one labelled point and no box.
    """
    if not labelled.any():
        return
    points = landmarks[labelled].astype(np.float64)
    spread = points.max(0) - points.min(0)
    # Landmarks that lie on one line in every face, such as those of a nose's ridge, may.
    expected = scheme.shape[labelled].max(0) - scheme.shape[labelled].min(0)
    if not spread.all() and (expected > _FLAT).all():
        raise RednetError(f"{where}: all points on one line, no face")
    if not spread.any() and box is None:
        raise RednetError(f"{where}: one labelled point and no box: the face has no size")
    image = f"the image of {size[0]} x {size[1]} pixels"
    # An image ends half a pixel beyond the centres of its last pixels.
    outside = np.maximum(-0.5 - points, points - (np.array(size) - 0.5)).max(axis=1)
    inside = int((outside <= 0).sum())
    if inside < FEWEST_INSIDE * len(points):
        raise RednetError(f"{where}: {inside} of {len(points)} points lie in {image}")
    if outside.max() > FARTHEST_OUTSIDE * max(size):
        raise RednetError(f"{where}: a point lies {outside.max():.0f} pixels outside {image}")
    box = whole_face_box(landmarks, scheme, labelled, expected=box)
    side = float((box[2:] - box[:2]).max())
    if side < SMALLEST_FACE:
        raise RednetError(f"{where}: the face is {side:.2g} pixels large")


def files_by_name(
    root: Path, folders: Iterable[str], endings: Iterable[str]
) -> dict[str, list[str]]:
    """Returns the files that lie in some folders, by name: the path below `root` without ending.

    Args:
        root: the source folder.
        folders: below it, without those inside them; one that is not there holds no file.
        endings: lower-case; files may have them in any case. Hidden files do not count.

    Returns:
        Paths below `root` with `/`; several where only their endings differ. In the order of the
        folders, in each by file name.
    """
    taken = tuple(endings)
    found: dict[str, list[str]] = {}
    for folder in folders:
        files = sorted((root / folder).iterdir()) if (root / folder).is_dir() else []
        for path in files:
            if path.suffix.lower() in taken and not path.name.startswith("."):
                relative = path.relative_to(root)
                found.setdefault(relative.with_suffix("").as_posix(), []).append(
                    relative.as_posix()
                )
    return found


def without_ending(file: str) -> str:
    """Returns the name of an image's face: its path without extension."""
    return re.sub(r"\.\w+$", "", file)


def read_list(name: str) -> tuple[str, ...]:
    """Returns the lines of a split list of the package, without its comments."""
    text = resources.files("rednet_jax.data").joinpath(f"splits/{name}.txt").read_text()
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))
