"""Faces followed through a video: found by the detector, then by their own last landmarks."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rednet_jax.detection.dlib import Detection, FaceDetector, by_prominence
from rednet_jax.errors import RednetError
from rednet_jax.inference.cuts import CutFinder
from rednet_jax.inference.face import MIN_CONFIDENCE
from rednet_jax.inference.streams import Carry, Look, Streams, Variables
from rednet_jax.landmarks.boxes import intersection_over_union, whole_face_box
from rednet_jax.media.background import read_ahead
from rednet_jax.media.video import VideoReader
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.store import load

LOST_BELOW = MIN_CONFIDENCE
"""A face is lost where the mean confidence of its points falls below this."""

RECROP_BEYOND = 0.12
"""A face whose centre lies farther than this from the centre of its crop's box, in sides of that
box, is looked at once more in a crop around where it was found: fast heads run out of their crop
otherwise. Of 22 real clips one asked for that, in 32 of its 171 frames, and two others once."""

SMALLEST_FACE = 12.0
"""Pixels. A landmark box with a smaller side holds no face that the network could read."""

SAME_FACE = 0.4
"""Two boxes that overlap (intersection over union) by more than this hold one face."""

SEARCH_EVERY = 3
"""While somebody is missing, one frame of this many is searched: the detector takes about three
times as long as the network."""

NEWCOMERS_EVERY = 15
"""While nobody is missing, but more could be followed, one frame of this many is searched."""

SEARCHED_BESIDE = 3
"""Frames that go by while a search runs beside the network, always as many: what is found does not
depend on the machine's speed."""

REMEMBERED = 50
"""Frames. A face that comes back near its last place within so many is the same person's."""

WALKED = 0.05
"""Sides of a face that a person who was lost may have moved in a frame, beside one side at once."""


class TrackedFace(NamedTuple):
    """A face in one frame.

    Attributes:
        identity: number of the person, from 0, the same as long as the face is followed or comes
            back soon to where it was lost; a new shot has new people.
        landmarks: float32 [L, 2], pixels of the frame.
        confidence: float32 [L], probability that the point lies within 5 % of the inter-ocular
            distance.
        box: float32 [4], the box that the network's crop was cut around.
    """

    identity: int
    landmarks: NDArray[np.float32]
    confidence: NDArray[np.float32]
    box: NDArray[np.float32]


@dataclasses.dataclass
class _Track:
    """A face that is being followed: its row of the streams, and its last answer."""

    row: int
    face: TrackedFace

    @property
    def box(self) -> NDArray[np.float32]:
        return whole_face_box(self.face.landmarks)


@dataclasses.dataclass(frozen=True, eq=False)
class _Missing:
    """Where, and in which frame, a face was seen last."""

    identity: int
    box: NDArray[np.float32]
    frame: int


class Tracker:
    """Follows up to N faces; `update` takes the frames of one video in their order.

    The crop of a face is cut around its landmarks in the frame before, or once more around its own
    where the face moved far. The network's feedback map and memory go with it, moved from crop to
    crop. A face whose confidence falls is lost. The detector looks for faces at the beginning, at a
    shot cut, when one is lost, every few frames until it is found, and now and then for newcomers.
    """

    def __init__(
        self,
        config: RedNetConfig,
        variables: Variables,
        *,
        faces: int = 1,
        feedback_steps: int = 1,
        carry: Carry = "all",
        detector: FaceDetector | None = None,
    ) -> None:
        """Begins without a face, the network compiled.

        Args:
            config: of the network.
            variables: {'params': ..., 'batch_stats': ...}.
            faces: N; of more, those that the detector is surest of and that are large.
            feedback_steps: K, passes of the network for each frame.
            carry: what the network sees of the frame before.
            detector: looks for faces; dlib's where None.

        Raises:
            RednetError: faces or feedback_steps below 1.
        """
        for name, value in {"faces": faces, "feedback steps": feedback_steps}.items():
            if value < 1:
                raise RednetError(f"{name} must be 1 or more, not {value}")
        self._faces = faces
        self._detector = detector or FaceDetector()
        self._streams = Streams(
            config, variables, faces, feedback_steps=feedback_steps, carry=carry
        )
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="detector")
        self._search: Future[list[Detection]] | None = None
        self.reset()

    def reset(self) -> None:
        """Forgets all faces: the next frame is the first one."""
        self._cuts = CutFinder()
        self._frame = 0
        self._people = 0
        self._tracks: list[_Track] = []
        self._missing: list[_Missing] = []
        self._searched_in = -NEWCOMERS_EVERY
        self._end_search()

    def update(self, image: NDArray[np.uint8]) -> list[TrackedFace]:
        """Returns the faces in the next frame, the one that is followed longest first.

        Args:
            image: RGB uint8 [H, W, 3].

        Raises:
            RednetError: the frame is no such array.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise RednetError(f"a frame is uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
        cut = self._cuts.update(image)
        if cut:
            self._tracks, self._missing = [], []
        self._missing = [one for one in self._missing if self._frame - one.frame <= REMEMBERED]
        lost = self._follow(image)
        if len(self._tracks) < self._faces:
            self._add(image, self._detections(image, at_once=cut or lost))
        self._frame += 1
        return [track.face for track in self._tracks]

    def _follow(self, image: NDArray[np.uint8]) -> bool:
        """Looks at every face where it was; returns whether one is lost."""
        looks = self._look(image, {track.row: track.box for track in self._tracks})
        followed: list[_Track] = []
        lost = False
        for track in self._tracks:
            look = looks[track.row]
            if look is None:
                lost = True
                self._missing.append(_Missing(track.face.identity, track.box, self._frame))
            elif not any(_same(whole_face_box(look.landmarks), other.box) for other in followed):
                # Where two have slid onto one face, the elder stays.
                followed.append(_Track(track.row, TrackedFace(track.face.identity, *look)))
        self._tracks = followed
        return lost

    def _detections(self, image: NDArray[np.uint8], *, at_once: bool) -> list[Detection]:
        """What the detector finds in this frame or has found in one before, if it is its turn."""
        since = self._frame - self._searched_in
        if self._search is not None and (at_once or since >= SEARCHED_BESIDE):
            found = self._end_search()
            if not at_once:
                return found
        somebody_missing = self._missing or not self._tracks
        due = since >= (SEARCH_EVERY if somebody_missing else NEWCOMERS_EVERY)
        if self._search is not None or not (at_once or due):
            return []
        self._searched_in = self._frame
        if at_once or not self._tracks:
            return self._detector.detect(image)
        self._search = self._beside.submit(self._detector.detect, image)
        return []

    def _end_search(self) -> list[Detection]:
        """Waits for the search beside, if there is one: the detector does one at a time."""
        found = [] if self._search is None else self._search.result()
        self._search = None
        return found

    def _add(self, image: NDArray[np.uint8], detections: Sequence[Detection]) -> None:
        """Begins to follow those detected that the network confirms, as many as there is room for.

        Who was missed comes first, then the most prominent.
        """
        used = {track.row for track in self._tracks}
        free = [row for row in range(self._faces) if row not in used]
        new = [
            face.box
            for face in by_prominence(detections)
            if not any(_same(face.box, track.box) for track in self._tracks)
        ]
        new.sort(key=lambda box: self._missed_near(box) is None)
        for row in free:
            self._streams.blank(row)
        boxes = dict(zip(free, new, strict=False))
        for row, look in self._look(image, boxes).items():
            if look is None:
                continue
            box = whole_face_box(look.landmarks)
            if not any(_same(box, track.box) for track in self._tracks):
                self._tracks.append(_Track(row, TrackedFace(self._identify(box), *look)))

    def _identify(self, box: NDArray[np.float32]) -> int:
        """The number of who was lost near a box, else a new one."""
        near = self._missed_near(box)
        if near is not None:
            self._missing.remove(near)
            return near.identity
        self._people += 1
        return self._people - 1

    def _missed_near(self, box: NDArray[np.float32]) -> _Missing | None:
        """Who was lost nearest to a box, and near enough: the farther, the longer he is gone."""

        def sides_away(one: _Missing) -> float:
            apart = np.abs(one.box[:2] + one.box[2:] - box[:2] - box[2:]).max() / 2
            return float(apart / max(one.box[2:] - one.box[:2]))

        near = min(self._missing, key=sides_away, default=None)
        if near is None or sides_away(near) > 1 + WALKED * (self._frame - near.frame):
            return None
        return near

    def _look(
        self, image: NDArray[np.uint8], boxes: dict[int, NDArray[np.float32]]
    ) -> dict[int, Look | None]:
        """The network's answer around each box, by row; None where there is no face."""
        looks: dict[int, Look | None] = {}
        again = {}
        for row, look in self._streams.look(image, boxes).items():
            looks[row] = look if _is_face(look, image) else None
            if looks[row] is not None and _moved_far(look):
                again[row] = whole_face_box(look.landmarks)
        for row, look in self._streams.look(image, again).items():
            looks[row] = look if _is_face(look, image) else None
        return looks


def landmark_track(frames: Sequence[Sequence[TrackedFace]], landmarks: int) -> NDArray[np.float32]:
    """Returns the points of the first face of T frames, [T, L, 2] float32, nan where is none."""
    blank = np.full((landmarks, 2), np.nan, np.float32)
    return np.stack([faces[0].landmarks if faces else blank for faces in frames])


def track(
    source: str | os.PathLike[str] | int | Iterable[NDArray[np.uint8]],
    checkpoint: str | tuple[RedNetConfig, Variables] = "compact_video",
    *,
    faces: int = 1,
    feedback_steps: int = 1,
) -> Iterator[list[TrackedFace]]:
    """Follows faces through a video.

        for faces in rednet_jax.track("meeting.mp4", faces=2):
            for face in faces:
                print(face.identity, face.landmarks, face.confidence)

    Args:
        source: a video file, the number of a camera, or frames, RGB uint8 [H, W, 3] each: arrays,
            or a generator of them.
        checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
        faces: how many are followed at most.
        feedback_steps: K, passes of the network for each frame.

    Returns:
        For each frame the list of its faces, found as it is asked for.

    Raises:
        RednetError: a video or a checkpoint that cannot be read, faces or feedback_steps below 1;
            later, a frame that is no RGB picture, or, behind all that could be read, a file that is
            damaged or cut short.
    """
    config, variables = load(checkpoint) if isinstance(checkpoint, str) else checkpoint
    tracker = Tracker(config, variables, faces=faces, feedback_steps=feedback_steps)
    if isinstance(source, str | os.PathLike | int):
        return _track_video(tracker, VideoReader(source))
    return map(tracker.update, source)


def _track_video(tracker: Tracker, reader: VideoReader) -> Iterator[list[TrackedFace]]:
    with reader, contextlib.closing(read_ahead(reader)) as frames:
        for frame in frames:
            yield tracker.update(frame.image)
    if reader.broken is not None:
        raise RednetError(f"{reader.name}: {reader.broken}")


def _same(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    return intersection_over_union(a, b) > SAME_FACE


def _moved_far(look: Look) -> bool:
    found = whole_face_box(look.landmarks)
    moved = np.abs(found[:2] + found[2:] - look.box[:2] - look.box[2:]).max() / 2
    return bool(moved > RECROP_BEYOND * (look.box[2:] - look.box[:2]).max())


def _is_face(look: Look, image: NDArray[np.uint8]) -> bool:
    """Whether points are sure, finite, as large as a face, and centred inside the picture."""
    # Written so that nan is no face.
    if not (np.mean(look.confidence) >= LOST_BELOW and np.isfinite(look.landmarks).all()):
        return False
    x0, y0, x1, y1 = whole_face_box(look.landmarks)
    height, width = image.shape[:2]
    inside = 0 <= (x0 + x1) / 2 < width and 0 <= (y0 + y1) / 2 < height
    return bool(inside and SMALLEST_FACE <= max(x1 - x0, y1 - y0) <= 4 * max(height, width))
