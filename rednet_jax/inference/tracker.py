"""Tracks faces through a video: found by the detector, then by their own last landmarks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from rednet_jax.detection.detector import Detection, FaceDetector, by_prominence, upright_box
from rednet_jax.detection.yunet import YuNet
from rednet_jax.errors import RednetError
from rednet_jax.inference.aligner import DOUBTFUL
from rednet_jax.inference.appearance import ALIKE, Appearance, Thumbnail, thumbnail
from rednet_jax.inference.cuts import CutFinder
from rednet_jax.inference.face import Face
from rednet_jax.inference.missing import Missing
from rednet_jax.inference.search import VIDEO_SEARCH, View, detect_in, tile_views, whole_view
from rednet_jax.inference.streams import Carry, Look, Region, Streams, Variables
from rednet_jax.landmarks.boxes import (
    face_roll,
    intersection_over_union,
    turned_face_box,
    whole_face_box,
)
from rednet_jax.landmarks.crops import apply_affine, invert_affine
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.store import load

LOST_BELOW = 0.3
"""A face is lost where the mean confidence of its landmarks falls below this."""

RECROP_BEYOND = 0.12
"""A face whose centre lies farther than this from the centre of its crop's box, in sides of that
box, gets a second look in a crop around where it was found: fast heads leave their crop otherwise.
In 22 real clips one needed it, in 32 of its 171 frames, and two others once."""

TURN_BEYOND = 0.35
"""Radians. A crop keeps its roll until the roll of the face differs by more: clips were trained on
with crops that do not follow small rolls, and a crop that turns in every frame adds jitter."""

SMALLEST_FACE = 12.0
"""Pixels. The network cannot read a face whose landmarks' box has a smaller side."""

SAME_FACE = 0.4
"""Two boxes that overlap (intersection over union) by more than this hold one face."""

SEARCH_EVERY = 3
"""While somebody is missing, one frame of this many is searched."""

NEWCOMERS_EVERY = 21
"""While nobody is missing, but more could be tracked, every view of the scene is searched once in
about so many frames: within a second of video."""

SEARCHED_BESIDE = 3
"""Frames during which a search runs beside the network, always as many: what is found does not
depend on the machine's speed."""


@dataclasses.dataclass
class _Track:
    """A tracked face: its row of the streams, last answer, roll of its crop, and appearance."""

    row: int
    face: Face
    roll: float
    appearance: Appearance

    @property
    def box(self) -> NDArray[np.float32]:
        """The box of its landmarks."""
        return _box(self.face)

    @property
    def region(self) -> Region:
        """Where it is looked for in the next frame."""
        return _region(self.face.landmarks, self.face.scheme, self.roll, self.face.box)


class Tracker:
    """Tracks up to N faces; `update` takes the frames of one video in their order.

        tracker = rednet_jax.Tracker("compact_video", faces=4)
        for frame in frames:
            for face in tracker.update(frame):
                print(face.identity, face.landmarks)

    The crop of a face is cut around its landmarks in the frame before, and turned by their roll. If
    the face moved far, a second crop is cut around where the first one found it. The network's
    feedback map and memory are carried on, resampled from crop to crop. A face whose confidence
    falls is lost. The detector searches the first frame, the frame after a shot cut or a loss,
    every few frames until the face is found, and, for newcomers, now and then. Large frames are
    searched as a whole and in tiles at full resolution, one of them in a frame.

    Attributes:
        config: of the network.
    """

    def __init__(
        self,
        checkpoint: str | tuple[RedNetConfig, Variables] = "compact_video",
        *,
        faces: int = 1,
        feedback_steps: int = 1,
        carry: Carry = "all",
        detector: FaceDetector | None = None,
    ) -> None:
        """Loads the network and compiles it.

        Args:
            checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
            faces: N; of more, those that the detector is surest of and that are large.
            feedback_steps: K, passes of the network for each frame.
            carry: what the network sees of the frame before.
            detector: finds the faces; `YuNet(VIDEO_SEARCH)` if None.

        Raises:
            RednetError: a bad checkpoint, faces or feedback_steps below 1.
        """
        for name, value in {"faces": faces, "feedback steps": feedback_steps}.items():
            if value < 1:
                raise RednetError(f"{name} must be 1 or more, not {value}")
        self.config, variables = load(checkpoint) if isinstance(checkpoint, str) else checkpoint
        self._faces = faces
        self._detector = detector or YuNet(VIDEO_SEARCH)
        self._streams = Streams(
            self.config, variables, faces, feedback_steps=feedback_steps, carry=carry
        )
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="detector")
        self._search: Future[list[Detection]] | None = None
        self.reset()

    def reset(self) -> None:
        """Forgets all faces: the next frame is the first one of a video."""
        self._cuts = CutFinder()
        self._frame = 0
        self._tracks: list[_Track] = []
        self._missing = Missing()
        self._searched_in = self._whole_searched_in = -NEWCOMERS_EVERY
        self._searches = 0
        self._end_search()

    def update(self, image: NDArray[np.uint8]) -> list[Face]:
        """Returns the faces in the next frame, the one that was tracked longest first.

        `identity` is the number of the person, from 0: the same as long as the face is tracked and
        looks alike, or if it comes back soon to where it was lost. A new shot has new people. `box`
        is where the landmarks were expected, and `score` that of the detector, None where the
        landmarks of the frame before said where to look.

        Args:
            image: RGB uint8 [H, W, 3].

        Raises:
            RednetError: the frame is no such array.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise RednetError(f"a frame is uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
        cut = self._cuts.update(image)
        if cut:
            self._tracks = []
        self._missing.forget(None if cut else self._frame)
        lost = self._follow(image)
        if len(self._tracks) < self._faces:
            self._add(image, self._detections(image, at_once=cut or lost))
        self._frame += 1
        return [track.face for track in self._tracks]

    def _follow(self, image: NDArray[np.uint8]) -> bool:
        """Looks at every face where it was; returns whether one is lost."""
        looks = self._look(image, {track.row: track.region for track in self._tracks})
        followed: list[_Track] = []
        lost = False
        for track in self._tracks:
            look = looks[track.row]
            if look is None:
                lost = True
                self._miss(track)
                continue
            found = self._found(look)
            if any(_same(found, other.box) for other in followed):
                # Where two converge on one face, the older track stays.
                self._miss(track)
                continue
            self._streams.keep(track.row, look)
            seen = self._thumbnail(look)
            face = Face(
                look.landmarks,
                look.confidence,
                track.box,
                self.config.scheme,
                identity=track.face.identity,
            )
            current = _Track(track.row, face, look.region.roll, track.appearance)
            another = track.appearance.update(seen)
            if another is not None:
                person = self._missing.identify(found, self._frame, seen, ALIKE)
                self._miss(track)
                current.face, current.appearance = face._replace(identity=person), another
            followed.append(current)
        self._tracks = followed
        return lost

    def _miss(self, track: _Track) -> None:
        """Notes where a person was seen last."""
        assert track.face.identity is not None
        self._missing.lose(track.face.identity, track.box, self._frame, track.appearance)

    def _detections(self, image: NDArray[np.uint8], *, at_once: bool) -> list[Detection]:
        """What the detector finds in this frame, or found in one before."""
        found: list[Detection] = []
        if at_once:
            # What an earlier frame showed is out of date.
            self._end_search()
        elif self._search is not None and self._frame - self._searched_in >= SEARCHED_BESIDE:
            found = self._end_search()
        view = self._view(image.shape, at_once=at_once)
        if view is None:
            return found
        self._searched_in = self._frame
        if view == whole_view(image.shape):
            self._whole_searched_in = self._frame
        if at_once or not self._tracks:
            return found + detect_in(self._detector, image, view)
        self._search = self._beside.submit(detect_in, self._detector, image, view)
        return found

    def _view(self, shape: tuple[int, ...], *, at_once: bool) -> View | None:
        """The view that is searched in this frame, None for none.

        Args:
            shape: of the frame.
            at_once: a search is due now.
        """
        whole = whole_view(shape)
        if at_once:
            return whole
        if self._search is not None:
            return None
        since, since_whole = self._frame - self._searched_in, self._frame - self._whole_searched_in
        tiles = tile_views(shape)
        if not self._tracks:
            # The network has nothing to do, so two of three frames are searched.
            if since_whole >= SEARCH_EVERY:
                return whole
            return self._next([*tiles, whole._replace(turned=True)]) if since_whole == 1 else None
        if self._missing:
            if since < SEARCH_EVERY:
                return None
            # Who is lost is seldom small: of two searches one is of the whole frame.
            return self._next(tiles) if tiles and since_whole == since else whole
        views = [whole, *tiles]
        due = since >= max(SEARCHED_BESIDE, NEWCOMERS_EVERY // len(views))
        return self._next(views) if due else None

    def _next(self, views: list[View]) -> View:
        self._searches += 1
        return views[self._searches % len(views)]

    def _end_search(self) -> list[Detection]:
        """Waits for the search that runs beside, if any: the detector does one at a time."""
        found = [] if self._search is None else self._search.result()
        self._search = None
        return found

    def _add(self, image: NDArray[np.uint8], detections: Sequence[Detection]) -> None:
        """Starts to track detected faces that the network confirms, as many as there is room for.

        Who is missing comes first, then the most prominent.
        """
        used = {track.row for track in self._tracks}
        free = [row for row in range(self._faces) if row not in used]
        new = [
            face
            for face in by_prominence(detections)
            if not any(_same(face.box, track.box) for track in self._tracks)
        ]
        new.sort(key=lambda face: not self._missing.is_near(face.box, self._frame))
        for row in free:
            self._streams.forget(row)
        started = dict(zip(free, new, strict=False))
        regions = {row: Region(*upright_box(face)) for row, face in started.items()}
        looks = self._look(image, regions)
        # The detector's points may be upside down.
        turned = {
            row: region._replace(roll=region.roll + math.pi)
            for row, region in regions.items()
            if started[row].points is not None and _sureness(looks[row]) < DOUBTFUL
        }
        for row, look in self._look(image, turned).items():
            if _sureness(look) >= DOUBTFUL:
                looks[row] = look
        for row, look in looks.items():
            if look is None:
                continue
            box = self._found(look)
            if any(_same(box, track.box) for track in self._tracks):
                continue
            self._streams.keep(row, look)
            detection, seen = started[row], self._thumbnail(look)
            face = Face(
                look.landmarks,
                look.confidence,
                detection.box,
                self.config.scheme,
                detection.score,
                self._missing.identify(box, self._frame, seen),
            )
            self._tracks.append(_Track(row, face, look.region.roll, Appearance([seen])))

    def _look(self, image: NDArray[np.uint8], regions: dict[int, Region]) -> dict[int, Look | None]:
        """The network's answer at each region, by row; None where there is no face.

        A face that moved far gets a second look, from the same state, around where the first one
        found it. The first answer stands where the second is no face.
        """
        looks: dict[int, Look | None] = {}
        again = {}
        for row, look in self._streams.look(image, regions).items():
            looks[row] = look if self._is_face(look, image) else None
            if looks[row] is not None and self._moved_far(look):
                roll, expected = look.region.roll, look.region.box
                again[row] = _region(look.landmarks, self.config.scheme, roll, expected)
        for row, look in self._streams.look(image, again).items():
            if self._is_face(look, image):
                looks[row] = look
        return looks

    def _thumbnail(self, look: Look) -> Thumbnail:
        """Of the face in the network's crop, which is smaller than the frame."""
        size, margin = self.config.input_size, self.config.input_margin
        middle, half = (size - 1) / 2, size / margin / 2
        landmarks = apply_affine(invert_affine(look.affine), look.landmarks)
        expected = np.array([middle - half] * 2 + [middle + half] * 2)
        return thumbnail(look.crop, landmarks, self.config.scheme, expected)

    def _found(self, look: Look) -> NDArray[np.float32]:
        """The box of the face that a look found."""
        return whole_face_box(look.landmarks, self.config.scheme, expected=look.region.box)

    def _moved_far(self, look: Look) -> bool:
        looked = look.region.box
        found = turned_face_box(
            look.landmarks, self.config.scheme, look.region.roll, expected=looked
        )
        moved = np.abs(found[:2] + found[2:] - looked[:2] - looked[2:]).max() / 2
        return bool(moved > RECROP_BEYOND * (looked[2:] - looked[:2]).max())

    def _is_face(self, look: Look, image: NDArray[np.uint8]) -> bool:
        """Whether landmarks are confident, finite, as large as a face, and centred in the image."""
        # Written so that nan is no face.
        if not (np.mean(look.confidence) >= LOST_BELOW and np.isfinite(look.landmarks).all()):
            return False
        x0, y0, x1, y1 = self._found(look)
        height, width = image.shape[:2]
        inside = 0 <= (x0 + x1) / 2 < width and 0 <= (y0 + y1) / 2 < height
        return bool(inside and SMALLEST_FACE <= max(x1 - x0, y1 - y0) <= 4 * max(height, width))


def landmark_track(frames: Sequence[Sequence[Face]], scheme: Scheme) -> NDArray[np.float32]:
    """Returns the landmarks of the first face of T frames, [T, L, 2] float32, nan without one."""
    blank = np.full((scheme.count, 2), np.nan, np.float32)
    return np.stack([faces[0].landmarks if faces else blank for faces in frames])


def _box(face: Face) -> NDArray[np.float32]:
    """The box of a face's landmarks."""
    return whole_face_box(face.landmarks, face.scheme, expected=face.box)


def _region(
    landmarks: NDArray[np.float32], scheme: Scheme, roll: float, expected: NDArray[np.float32]
) -> Region:
    """Where landmarks are, in a crop that keeps its roll while theirs is near it."""
    found = face_roll(landmarks, scheme)
    if abs(np.angle(np.exp(1j * (found - roll)))) > TURN_BEYOND:
        roll = found
    return Region(turned_face_box(landmarks, scheme, roll, expected=expected), roll)


def _same(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    return intersection_over_union(a, b) > SAME_FACE


def _sureness(look: Look | None) -> float:
    return 0.0 if look is None else float(np.mean(look.confidence))
