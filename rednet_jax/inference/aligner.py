"""Finds faces in images and predicts their landmarks."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import jax
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rednet_jax.detection.detector import Detection, FaceDetector, by_prominence, upright_box
from rednet_jax.detection.yunet import YuNet
from rednet_jax.errors import RednetError
from rednet_jax.fields import integer, shown
from rednet_jax.inference.face import MIN_CONFIDENCE, MOST_FACES, Face
from rednet_jax.inference.predict import MOST_STEPS, predict_crops
from rednet_jax.landmarks.crops import apply_affine, crop_image, crop_transform
from rednet_jax.media.images import image_errors, read_image, rgb_pixels
from rednet_jax.weights.store import Checkpoint, network_of

ImageLike = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
"""An image file, a PIL image, or RGB uint8 [H, W, 3]."""

BATCH = 8
"""Batch size of the network. Batches of two or more faces are padded to it, and a single face is a
batch of its own, so that two shapes are compiled."""


DOUBTFUL = 0.5
"""Mean confidence below which a face may be upside down in its crop. With three passes, `compact`
had 0.55 or more on 40 upright faces of 300-W's validation set, and 0.14 or less on the same faces
upside down. The limit does not detect every wrong roll: two of 30 faces at 90 degrees had more in
crops of a wrong roll."""

HALF_TURN = (math.pi,)
"""Additional rolls, in radians, of a face with the detector's points. The points give its roll, but
may be upside down."""

ALL_TURNS = tuple(math.radians(turn) for turn in (180, 90, -90, 45, -45, 135, -135))
"""Additional rolls, in radians, of a face of which only the box is known."""


class _Crop(NamedTuple):
    """Index of the image, and the face's upright box in it, rotated by roll radians."""

    image: int
    face: Detection | NDArray[np.float32]
    box: NDArray[np.floating]
    roll: float

    @property
    def turns(self) -> tuple[float, ...]:
        face = self.face
        return HALF_TURN if isinstance(face, Detection) and face.points is not None else ALL_TURNS


class Aligner:
    """Finds faces and their landmarks in images. Build it once, then call it for each image.

        aligner = rednet_jax.Aligner("compact", feedback_steps=3)
        for face in aligner("group.jpg"):
            print(face.box, face.score, face.landmarks)

    Attributes:
        config: of the network.
    """

    def __init__(
        self,
        checkpoint: Checkpoint = "compact",
        *,
        feedback_steps: int = 3,
        faces: int | None = None,
        detector: FaceDetector | None = None,
        min_confidence: float = MIN_CONFIDENCE,
    ) -> None:
        """Loads the network and the detector; the first call compiles.

        Args:
            checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
            feedback_steps: K, passes of the network.
            faces: maximum number of faces per image, the most prominent; None for all.
            detector: finds the faces; `YuNet()` if None.
            min_confidence: faces with a lower mean confidence are left out, 0 to 1.

        Raises:
            RednetError: a bad checkpoint, feedback_steps or faces that are not integers, below 1
                or above `MOST_STEPS` and `MOST_FACES`, min_confidence outside 0 to 1.
        """
        self._feedback_steps = integer(feedback_steps, "feedback steps", most=MOST_STEPS)
        self._faces = None if faces is None else integer(faces, "faces", most=MOST_FACES)
        if not 0 <= min_confidence <= 1:
            raise RednetError(f"min confidence must be 0 to 1, not {min_confidence}")
        self.config, variables = network_of(checkpoint)
        # Without this, every call would copy the variables to the device.
        self._variables = jax.device_put(variables)
        self._detector = detector or YuNet()
        self._min_confidence = min_confidence

    @overload
    def __call__(self, images: ImageLike) -> list[Face]: ...
    @overload
    def __call__(self, images: list[ImageLike] | tuple[ImageLike, ...]) -> list[list[Face]]: ...
    def __call__(self, images: Any) -> list[Face] | list[list[Face]]:
        """Returns the faces of an image, the most prominent first; for several images, lists.

        Args:
            images: an image, or a list of images. Files and PIL images are turned upright by their
                EXIF orientation.

        Raises:
            RednetError: an image that cannot be read, or an array that is not RGB uint8.
        """
        if isinstance(images, list | tuple):
            return self.align(images)
        return self.align([images])[0]

    def align(
        self,
        images: Sequence[ImageLike],
        boxes: Sequence[Sequence[NDArray[np.floating]]] | None = None,
    ) -> list[list[Face]]:
        """Returns the faces of each image, the most prominent first.

        Args:
            images: of any sizes and kinds, as in `__call__`.
            boxes: for each image, the bounding boxes [4] of its faces' landmarks in image pixels,
                used instead of the detector. The faces are returned in their order.

        Raises:
            RednetError: an image as in `__call__`, fewer or more lists of boxes than images, or
                a box that is not finite, has no area, or lies outside its image.
        """
        if boxes is not None and len(boxes) != len(images):
            raise RednetError(f"boxes: {len(boxes)} lists instead of {len(images)}, one per image")
        pixels = [image_pixels(image) for image in images]
        crops: list[_Crop] = []
        for number, image in enumerate(pixels):
            regions = self._detected(image) if boxes is None else _checked(image, boxes[number])
            crops += [_crop(number, face) for face in regions]
        results: list[list[Face]] = [[] for _ in pixels]
        for start in range(0, len(crops), BATCH):
            part = crops[start : start + BATCH]
            for crop, face in zip(part, self._faces_of(pixels, part), strict=True):
                if self._is_face(face) and len(results[crop.image]) != self._faces:
                    results[crop.image].append(face)
        return results

    def _detected(self, image: NDArray[np.uint8]) -> Sequence[Detection]:
        return by_prominence(self._detector.detect(image))

    def _faces_of(self, images: Sequence[NDArray[np.uint8]], crops: Sequence[_Crop]) -> list[Face]:
        """Returns the face of each crop; tries additional rolls where the confidence is low."""
        batch = BATCH if len(crops) > 1 else 1
        faces = self._landmarks(images, crops, batch)
        for number in range(len(ALL_TURNS)):
            turned = {
                index: crop._replace(roll=crop.roll + crop.turns[number])
                for index, (crop, face) in enumerate(zip(crops, faces, strict=True))
                if number < len(crop.turns) and _mean_confidence(face) < DOUBTFUL
            }
            if turned:
                turned_faces = self._landmarks(images, list(turned.values()), batch)
                for index, face in zip(turned, turned_faces, strict=True):
                    if _mean_confidence(face) >= DOUBTFUL:
                        faces[index] = face
        return faces

    def _landmarks(
        self, images: Sequence[NDArray[np.uint8]], crops: Sequence[_Crop], batch: int
    ) -> list[Face]:
        config = self.config
        size, margin = config.input_size, config.input_margin
        affines = [
            crop_transform(crop.box, margin=margin, size=size, roll=crop.roll) for crop in crops
        ]
        padded = np.zeros((batch, size, size, 3), np.uint8)
        for index, (crop, affine) in enumerate(zip(crops, affines, strict=True)):
            padded[index] = crop_image(images[crop.image], affine, size)
        landmarks, confidence = (
            per_step[-1]
            for per_step in predict_crops(
                config, self._variables, padded, self._feedback_steps, batch
            )
        )
        faces = []
        for crop, affine, points, probabilities in zip(
            crops, affines, landmarks, confidence, strict=False
        ):
            in_image = apply_affine(affine, points).astype(np.float32)
            if isinstance(crop.face, Detection):
                box, score = crop.face.box, crop.face.score
            else:
                box, score = crop.face, None
            faces.append(Face(in_image, probabilities, box, config.scheme, score))
        return faces

    def _is_face(self, face: Face) -> bool:
        # This comparison is False for nan.
        confident = _mean_confidence(face) >= self._min_confidence
        return confident and bool(np.isfinite(face.landmarks).all())


def align(
    images: ImageLike | list[ImageLike] | tuple[ImageLike, ...],
    checkpoint: Checkpoint = "compact",
    *,
    feedback_steps: int = 3,
    faces: int | None = None,
    detector: FaceDetector | None = None,
    min_confidence: float = MIN_CONFIDENCE,
) -> list[Face] | list[list[Face]]:
    """Finds faces and their landmarks in an image, or in each of several images.

        faces = rednet_jax.align("group.jpg")

    Each call loads the network. For many calls, build an `Aligner` once.

    Args:
        images: an image (file, PIL image, or RGB uint8 [H, W, 3]), or a list of images.
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        feedback_steps: K, passes of the network.
        faces: maximum number of faces per image, the most prominent; None for all.
        detector: finds the faces; `YuNet()` if None.
        min_confidence: faces with a lower mean confidence are left out, 0 to 1.

    Returns:
        The faces of the image, the most prominent first, or [] if there is none. For a list of
        images, one such list for each image.

    Raises:
        RednetError: as `Aligner` raises it.
    """
    aligner = Aligner(
        checkpoint,
        feedback_steps=feedback_steps,
        faces=faces,
        detector=detector,
        min_confidence=min_confidence,
    )
    if isinstance(images, list | tuple):
        return aligner(images)
    return aligner(images)


def image_pixels(image: ImageLike) -> NDArray[np.uint8]:
    """Returns an image as RGB uint8 [H, W, 3].

    Raises:
        RednetError: the image cannot be read, or is not an array of this shape and dtype.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(image, upright=True)
    if isinstance(image, Image.Image):
        with image_errors(getattr(image, "filename", "") or "image"):
            return rgb_pixels(image, upright=True)
    try:
        pixels = np.asarray(image)
    except (TypeError, ValueError) as error:
        # Lists of rows of different lengths, and tensors on another device.
        raise RednetError(f"an image is RGB uint8 [H, W, 3]: {error}") from error
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise RednetError(f"an image is RGB uint8 [H, W, 3], not {pixels.dtype} {pixels.shape}")
    return pixels


def _crop(image: int, face: Detection | NDArray[np.float32]) -> _Crop:
    box, roll = upright_box(face) if isinstance(face, Detection) else (face, 0.0)
    return _Crop(image, face, box, roll)


def _mean_confidence(face: Face) -> float:
    return float(np.mean(face.confidence))


def _checked(
    image: NDArray[np.uint8], boxes: Sequence[NDArray[np.floating]]
) -> list[NDArray[np.float32]]:
    height, width = image.shape[:2]
    try:
        checked = [np.asarray(box, np.float32) for box in boxes]
    except (TypeError, ValueError):
        raise RednetError(f"the boxes of an image are arrays [4], not {shown(boxes)}") from None
    for box in checked:
        if box.shape != (4,):
            raise RednetError(f"a box is an array [4], not {list(box.shape)}")
        x0, y0, x1, y1 = box
        text = f"the box {x0:g},{y0:g},{x1:g},{y1:g}"
        if not np.isfinite(box).all():
            raise RednetError(f"{text} is not finite")
        if not (x0 < x1 and y0 < y1):
            raise RednetError(f"{text} does not have x0 < x1 and y0 < y1")
        if not (x0 < width and y0 < height and x1 > 0 and y1 > 0):
            raise RednetError(f"{text} lies outside the image of {width}x{height} px")
    return checked
