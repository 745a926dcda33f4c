"""Stored samples: their features and images, and the checks of their labels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from numpy.typing import NDArray
from PIL import Image

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.boxes import landmark_box, whole_face_box
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.media.images import image_errors, open_image, read_bytes, rgb_pixels

FARTHEST = 1e6
"""Pixels: coordinates of larger magnitude are refused; no image is as large."""

FEWEST_INSIDE = 0.5
"""Share of a face's labelled points that must lie in its image. The lowest share in 16,484 faces of
six data sets is 0.75, including points that landmark tools predict outside the image."""

FARTHEST_OUTSIDE = 0.5
"""Largest distance of a labelled point from its image, in longer sides of the image. The largest in
the same faces is 0.24."""

_FLAT = 0.05
"""Sides of a face's box: points of the mean shape with a smaller extent count as collinear."""

SMALLEST_FACE = 4.0
"""Pixels: smallest larger side of a face's box. The smallest in the same faces is 29."""

Example = dict[str, Any]


def face_features(landmarks: int) -> tfds.features.FeaturesDict:
    """Returns the features of a face with L landmarks in one image, the fields of `Sample`."""
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
    """Returns the features of a face with L landmarks in T frames, the fields of `ClipSample`."""
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
    """An encoded image.

    Attributes:
        data: JPEG or PNG, RGB with 8 bits per channel.
        size: width and height in pixels.
    """

    data: bytes
    size: tuple[int, int]


def read_image_file(path: Path) -> StoredImage:
    """Returns the bytes of an RGB JPEG or PNG file; any other image is converted to RGB PNG.

    The EXIF orientation is ignored: labels are in pixels as stored.

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
        name: path relative to the source folder, without extension.
        image: that shows the face.
        landmarks: float32 [L, 2] in pixels of `image`.
        labelled: bool [L]; unlabelled landmarks are stored as 0.
        scheme: of the landmarks.
        box: [4], the data set's box of the face; if None, the box of the labelled landmarks, or the
            whole image if there are none.
        identity: number of the person.
        style: labelling convention of the points.
        where: source of the labels, for messages; `name` if None.

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
    """Raises RednetError for labels that do not fit the image, such as labels in another scale.

    Args:
        where: the face's name or file, for the message.
        landmarks: [L, 2], pixels of the image.
        labelled: bool [L]; a face without labelled points passes.
        size: width and height of the image in pixels.
        scheme: of the landmarks.
        box: [4] of the face; None if it is not known.

    Raises:
        RednetError: too few points in the image, a point far outside it, a face that is too small,
            all points on one line, or one labelled point and no box.
    """
    if not labelled.any():
        return
    points = landmarks[labelled].astype(np.float64)
    spread = points.max(0) - points.min(0)
    # Landmarks that are collinear in the mean shape, such as the ridge of the nose, may be so here.
    expected = scheme.shape[labelled].max(0) - scheme.shape[labelled].min(0)
    if not spread.all() and (expected > _FLAT).all():
        raise RednetError(f"{where}: all points lie on one line")
    if not spread.any() and box is None:
        raise RednetError(f"{where}: one labelled point and no box, so the face has no size")
    image = f"the image of {size[0]} x {size[1]} pixels"
    # Pixel centres are at integers, so an image extends half a pixel beyond them.
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
