"""300-VW from its tree: NAME/vid.EXT and NAME/annot/000001.pts, ..."""

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

from rednet_jax.data.builders.base import Example, FaceBuilder, clip_features, read_list
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.pts import read_pts

POINTS = 68


class Rednet300VW(FaceBuilder):
    """300-VW: 68 points on one face in each frame of a video.

    A sample is a whole clip of T frames; `image` comes back as a list of T pictures, by
    `EncodedFrames` as their JPEG data.
    """

    name = "rednet_300vw"
    splits: ClassVar = ("train", "validation", "a", "b", "c")
    kind: ClassVar = "clip"
    tree: ClassVar = "looked for NAME/vid.EXT with NAME/annot/000001.pts"

    def list_splits(self) -> dict[str, list[str]]:
        """Returns the clips of each split; those in no list train. Names an empty split."""
        listed = {
            name: split
            for split in self.splits
            if split != "train"
            for name in read_list(f"300vw_{split}")
        }
        names: dict[str, list[str]] = {split: [] for split in self.splits}
        for folder in sorted(path for path in self.root.iterdir() if path.is_dir()):
            if (folder / "annot").is_dir() or any(folder.glob("vid.*")):
                names[listed.get(folder.name, "train")].append(folder.name)
        self.left_out += [f"{self.root}: no clip of {split}" for split in names if not names[split]]
        return names

    def read(self, name: str) -> Example:
        """Returns one clip; a bad annotation leaves its frame without label and has its line.

        Raises:
            RednetError: no video, one that does not decode, annotations past its end, or none.
        """
        landmarks = self._annotations(name)
        videos = sorted((self.root / name).glob("vid.*"))
        if not videos:
            raise RednetError(f"{self.root / name}: no video vid.EXT")
        video = self.inside(videos[0].relative_to(self.root).as_posix())
        if not landmarks:
            raise RednetError(f"{self.root / name}: no labelled frame")
        frames = list(_jpeg_frames(video))
        if max(landmarks) > len(frames):
            raise RednetError(
                f"{video}: ends after {len(frames)} frames, annotated up to {max(landmarks)}"
            )
        points = np.zeros((len(frames), POINTS, 2), np.float32)
        boxes = np.zeros((len(frames), 4), np.float32)
        valid = np.zeros(len(frames), bool)
        for number, of_frame in landmarks.items():
            points[number - 1] = of_frame
            boxes[number - 1] = landmark_box(of_frame)
            valid[number - 1] = True
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
        return clip_features()

    def _annotations(self, name: str) -> dict[int, NDArray[np.float32]]:
        """Returns {frame number from 1: landmarks [68, 2]} of the files that are good."""
        landmarks = {}
        for path in sorted((self.root / name / "annot").glob("*.pts")):
            with self.bad.skipping("annotation", str(path)):
                number, points = self._annotation(path)
                landmarks[number] = points
        return landmarks

    def _annotation(self, path: Path) -> tuple[int, NDArray[np.float32]]:
        if not (path.stem.isdecimal() and int(path.stem) > 0):
            raise RednetError(f"{path}: its name is no frame number from 1")
        landmarks = read_pts(self.inside(path.relative_to(self.root).as_posix()))
        if len(landmarks) != POINTS:
            raise RednetError(f"{path}: {len(landmarks)} points, 300-VW has {POINTS}")
        box = landmark_box(landmarks)
        if not (box[2:] > box[:2]).all():
            raise RednetError(f"{path}: all points on one line, no face")
        return int(path.stem), landmarks


class EncodedFrames(tfds.decode.SkipDecoding):  # type: ignore[misc]
    """Leaves the frames of a clip encoded: `as_data_source(split, decoders={"image": ...})`.

    TFDS's own `SkipDecoding` knows single pictures only where there is no TensorFlow. Readers that
    want a few frames of a long clip decode those.
    """

    def decode_batch_example_np(self, frames: Sequence[bytes]) -> list[bytes]:
        """Returns the frames' JPEG data."""
        return list(frames)


def _jpeg_frames(path: Path) -> Iterator[bytes]:
    """Yields every frame as JPEG, in pixels as stored: the labels know no rotation.

    Single frames, since readers ask for any; lossless ones would take several times the space.
    """
    try:
        # Opened here, so that FFmpeg takes no name for an address or a pattern.
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
