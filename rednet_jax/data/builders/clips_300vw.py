"""300-VW from its published folders: NAME/vid.EXT and NAME/annot/000001.pts, ..."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
import tensorflow_datasets as tfds
from numpy.typing import NDArray
from PIL import Image

from rednet_jax.data.builders.base import FaceBuilder
from rednet_jax.data.builders.examples import Example, check_face, clip_features
from rednet_jax.data.builders.trees import read_list
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.pts import read_pts

POINTS = 68


class Rednet300VW(FaceBuilder):
    """300-VW: 68 points on one face in each frame of a video.

    A sample is a whole clip of T frames; `image` is read as a list of T images, with the decoder
    `EncodedFrames` as a list of their JPEG data.
    """

    name = "rednet_300vw"
    splits: ClassVar = ("train", "validation", "a", "b", "c")
    kind: ClassVar = "clip"
    tree: ClassVar = "looked for NAME/vid.EXT with NAME/annot/000001.pts"

    def list_splits(self) -> dict[str, list[str]]:
        """Returns the clips of each split; clips in no list belong to `train`."""
        listed = {
            name: split
            for split in self.splits
            if split != "train"
            for name in read_list(f"300vw_{split}")
        }
        names: dict[str, list[str]] = {split: [] for split in self.splits}
        for folder in sorted(path for path in self.root.iterdir() if path.is_dir()):
            if _annotation_folders(folder) or _videos(folder):
                names[listed.get(folder.name, "train")].append(folder.name)
        self.left_out += [f"{self.root}: no clip of {split}" for split in names if not names[split]]
        return names

    def read(self, name: str) -> Example:
        """Returns one clip; the frame of a bad annotation is unlabelled, and `bad` records it.

        Raises:
            RednetError: not exactly one video, a video that does not decode, no valid annotation,
                or an annotation past the last frame.
        """
        files = self._annotation_files(name)
        folder = self.root / name
        videos = [f"{name}/{path.name}" for path in _videos(folder)]
        video = self.only_file(name, videos, "video vid.EXT")
        if not files:
            raise RednetError(f"{folder}: no labelled frame")
        frames = list(_jpeg_frames(video))
        numbers = [number for number, _ in files]
        first = _first_number(video, numbers, len(frames))
        if min(numbers) > 1 and max(numbers) < len(frames):
            self.left_out.append(
                f"{folder}: annotated from {min(numbers)} to {max(numbers)} of {len(frames)} "
                "frames: numbers are assumed to start at 1"
            )
        with Image.open(io.BytesIO(frames[0])) as image:
            size = image.size
        points = np.zeros((len(frames), POINTS, 2), np.float32)
        boxes = np.zeros((len(frames), 4), np.float32)
        valid = np.zeros(len(frames), bool)
        for number, path in files:
            with self.bad.skipping("annotation", str(path)):
                frame = number - first
                if valid[frame]:
                    raise RednetError(f"{path}: a second annotation of frame {number}")
                points[frame] = self._annotation(path, size)
                boxes[frame] = landmark_box(points[frame])
                valid[frame] = True
        if not valid.any():
            raise RednetError(f"{folder}: no labelled frame")
        return {
            "image": frames,
            "landmarks": points,
            "labelled": np.repeat(valid[:, None], POINTS, axis=1),
            "box": boxes,
            "valid": valid,
            "name": name,
            "identity": -1,
            "style": "300w",
        }

    def _features(self) -> tfds.features.FeaturesDict:
        return clip_features(self.scheme.count)

    def _annotation_files(self, name: str) -> list[tuple[int, Path]]:
        """Returns the numbers and paths of a clip's annotation files, without reading them."""
        numbered = []
        for folder in _annotation_folders(self.root / name):
            for path in sorted(folder.iterdir()):
                if path.suffix.lower() != ".pts" or path.name.startswith("."):
                    continue
                self.known.add(path.relative_to(self.root).as_posix())
                with self.bad.skipping("annotation", str(path)):
                    if not (path.stem.isascii() and path.stem.isdecimal()):
                        raise RednetError(f"{path}: the file name is not a frame number")
                    numbered.append((int(path.stem), path))
        return numbered

    def _annotation(self, path: Path, size: tuple[int, int]) -> NDArray[np.float32]:
        landmarks = read_pts(self.inside(path.relative_to(self.root).as_posix()))
        if len(landmarks) != POINTS:
            raise RednetError(f"{path}: {len(landmarks)} points, 300-VW has {POINTS}")
        check_face(path, landmarks, np.ones(POINTS, bool), size)
        return landmarks


def _annotation_folders(clip: Path) -> list[Path]:
    """Returns a clip's folders named `annot`, in upper or lower case."""
    return sorted(path for path in clip.iterdir() if path.name.lower() == "annot" and path.is_dir())


def _videos(clip: Path) -> list[Path]:
    """Returns a clip's files named vid.EXT, in upper or lower case."""
    return sorted(path for path in clip.iterdir() if path.stem.lower() == "vid" and path.suffix)


def _first_number(video: Path, numbers: Sequence[int], frames: int) -> int:
    """Returns the annotation number of a video's first frame: 0 if there is a number 0, else 1.

    300-VW counts from 1.

    Raises:
        RednetError: the last annotated frame is past the end of the video.
    """
    first = min(1, *numbers)
    if max(numbers) - first >= frames:
        raise RednetError(
            f"{video}: ends after {frames} frames, annotated from {min(numbers)} to {max(numbers)}"
        )
    return first


class EncodedFrames(tfds.decode.SkipDecoding):  # type: ignore[misc]
    """Leaves the frames of a clip encoded: `as_data_source(split, decoders={"image": ...})`.

    Readers of a few frames of a long clip then decode only those. Without TensorFlow, TFDS's own
    `SkipDecoding` supports single images only.
    """

    def decode_batch_example_np(self, frames: Sequence[bytes]) -> list[bytes]:
        """Returns the frames' JPEG data."""
        return list(frames)


def _jpeg_frames(path: Path) -> Iterator[bytes]:
    """Yields every frame as JPEG, without the rotation in the video's metadata, as labels have it.

    Frames are separate images for random access; lossless ones would be several times larger.
    """
    try:
        # Opened here, so that FFmpeg does not interpret the path as a URL or a pattern.
        with path.open("rb") as opened, av.open(opened, "r") as container:
            if not container.streams.video:
                raise RednetError(f"{path}: has no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                file = io.BytesIO()
                image = Image.fromarray(frame.to_ndarray(format="rgb24"))
                image.save(file, "JPEG", quality=95, subsampling=0)
                yield file.getvalue()
    except (av.FFmpegError, OSError) as error:
        raise RednetError(f"{path}: cannot be decoded ({error.strerror})") from error
