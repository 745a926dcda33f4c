"""Tracks faces through a video: the detector finds them, the last landmarks place the next crop."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from rednet_jax.detection.detector import Detection, FaceDetector, by_prominence, upright_box
from rednet_jax.detection.yunet import YuNet
from rednet_jax.fields import integer
from rednet_jax.inference.aligner import DOUBTFUL, ImageLike, image_pixels
from rednet_jax.inference.appearance import ALIKE, Appearance, thumbnail
from rednet_jax.inference.cuts import CutFinder
from rednet_jax.inference.face import MOST_FACES, Face
from rednet_jax.inference.missing import Missing
from rednet_jax.inference.predict import MOST_STEPS
from rednet_jax.inference.schedule import SearchSchedule
from rednet_jax.inference.search import VIDEO_SEARCH
from rednet_jax.inference.streams import Carry, Look, Region, Streams
from rednet_jax.inference.thumbnails import Thumbnail
from rednet_jax.landmarks.boxes import (
    face_roll,
    intersection_over_union,
    turned_face_box,
    whole_face_box,
)
from rednet_jax.landmarks.crops import apply_affine, invert_affine
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.weights.store import Checkpoint, network_of

SURE_ABOVE = 0.3
"""Least mean confidence of a new face; a tracked face may be below it, but not for long."""

HIDDEN_ABOVE, HIDDEN_FRAMES = 0.1, 15
"""A tracked face may be hidden, with a mean confidence below `SURE_ABOVE` but not below
`HIDDEN_ABOVE`, in this many frames in a row. compact_video_corrupt.json has the lost frames and the
errors of clips with bursts of corrupted frames."""

CLEAR_ABOVE, USUAL_RATE = 0.9, 0.1
"""Whether a face is still the same person's is decided in frames whose mean confidence is at least
`CLEAR_ABOVE` times the usual one, a moving average with this rate."""

RECROP_BEYOND = 0.12
"""A face gets a second look, in a crop around its landmarks, if its centre is farther than this
from the centre of the crop's box, in sides of that box. Otherwise fast heads leave their crop. Of
22 real clips, one needed it in 32 of its 171 frames, and two others in one frame each."""

TURN_BEYOND = 0.35
"""Radians. A crop keeps its roll until the face's roll differs from it by more. The crops of the
training clips do not follow small rolls either, and a crop that rotates in every frame adds
jitter."""

SMALLEST_FACE = 12.0
"""Pixels. The landmarks of a face are not reliable if their bounding box is smaller."""

SAME_FACE = 0.4
"""Two boxes with a larger intersection over union are the same face."""

NEAR_FACE = 0.2
"""A detection may be a hidden face if the intersection over union of their boxes is larger."""


@dataclasses.dataclass
class _Track:
    """A tracked face.

    Attributes:
        row: in `Streams`.
        face: the last result.
        roll: of the crop, radians.
        appearance: of the person.
        usual_confidence: moving average of the mean confidence.
        hidden: number of frames in a row, up to the last one, in which the face was hidden.
    """

    row: int
    face: Face
    roll: float
    appearance: Appearance
    usual_confidence: float
    hidden: int = 0

    @property
    def box(self) -> NDArray[np.float32]:
        """The bounding box of its landmarks."""
        return whole_face_box(self.face.landmarks, self.face.scheme, expected=self.face.box)

    @property
    def region(self) -> Region:
        """The region of its crop in the next frame."""
        return _region(self.face.landmarks, self.face.scheme, self.roll, self.face.box)


class Tracker:
    """Tracks up to N faces; `update` takes the frames of a video in order.

        tracker = rednet_jax.Tracker("compact_video", faces=4)
        for frame in frames:
            for face in tracker.update(frame):
                print(face.identity, face.landmarks)

    The crop of a face is placed around its landmarks in the previous frame and rotated by their
    roll. If the face moved far, a second crop is placed around the landmarks of the first. The
    network's feedback map and hidden state are resampled from crop to crop. A face with a low
    confidence is hidden: it is tracked for up to 15 more frames. With a very low confidence, or
    after these frames, it is lost. The detector searches the first frame, the first frame of a new
    shot, the frame in which a face is lost or hidden, every few frames until it is found again and,
    for new faces, the whole scene about once a second. Large frames are searched as a whole and in
    tiles at full resolution, one view per frame.

    Attributes:
        config: of the network.
    """

    def __init__(
        self,
        checkpoint: Checkpoint = "compact_video",
        *,
        faces: int = 1,
        feedback_steps: int = 1,
        carry: Carry = "all",
        detector: FaceDetector | None = None,
    ) -> None:
        """Loads the network and compiles it.

        Args:
            checkpoint: a released name, a safetensors file, a run folder, or (config, variables).
            faces: N; if there are more, the most prominent (by score and size) are tracked.
            feedback_steps: K, passes of the network for each frame.
            carry: the state carried from frame to frame.
            detector: finds the faces; `YuNet(VIDEO_SEARCH)` if None.

        Raises:
            RednetError: the checkpoint cannot be read, faces or feedback_steps is not an integer,
                below 1 or above `MOST_FACES` and `MOST_STEPS`, or an unknown `carry`.
        """
        self._faces = integer(faces, "faces", most=MOST_FACES)
        feedback_steps = integer(feedback_steps, "feedback steps", most=MOST_STEPS)
        self.config, variables = network_of(checkpoint)
        self._searches = SearchSchedule(detector or YuNet(VIDEO_SEARCH))
        self._streams = Streams(
            self.config, variables, self._faces, feedback_steps=feedback_steps, carry=carry
        )
        self.reset()

    def reset(self) -> None:
        """Drops all faces: the next frame is the first one of a video."""
        self._cuts = CutFinder()
        self._frame = 0
        self._tracks: list[_Track] = []
        self._missing = Missing()
        self._searches.reset()

    def update(self, image: ImageLike) -> list[Face]:
        """Returns the faces in the next frame, the longest track first.

        `identity` is the number of the person, from 0. It stays the same while the face is tracked
        and looks alike, and if a similar face soon reappears near the place of a lost one. A new
        shot has new identities. `box` is where the landmarks were expected. `score` is the
        detector's, None if the box is from the landmarks of the previous frame. The landmarks of a
        hidden face have a mean confidence below `SURE_ABOVE`.

        Args:
            image: RGB uint8 [H, W, 3], or an image as `Aligner` takes it.

        Raises:
            RednetError: the frame has another shape or dtype, no pixels, or cannot be read.
        """
        image = image_pixels(image)
        cut = self._cuts.update(image)
        if cut:
            self._tracks = []
        self._missing.forget(None if cut else self._frame)
        lost = self._follow(image)
        hidden = [track for track in self._tracks if track.hidden]
        if hidden or len(self._tracks) < self._faces:
            at_once = cut or lost or any(track.hidden == 1 for track in hidden)
            detections = self._searches.detections(
                image,
                self._frame,
                at_once=at_once,
                tracking=bool(self._tracks),
                missing=bool(hidden or self._missing),
            )
            self._recover(image, hidden, detections)
            self._add(image, detections)
        self._frame += 1
        return [track.face for track in self._tracks]

    def _follow(self, image: NDArray[np.uint8]) -> bool:
        """Tracks every face into this frame; returns whether one is lost."""
        regions = {track.row: track.region for track in self._tracks}
        least = {
            track.row: HIDDEN_ABOVE if track.hidden < HIDDEN_FRAMES else SURE_ABOVE
            for track in self._tracks
        }
        looks = self._look(image, regions, least)
        followed: list[_Track] = []
        lost = False
        for track in self._tracks:
            look = looks[track.row]
            if look is None:
                lost = True
                self._miss(track)
                continue
            box = self._face_box(look)
            if _taken(box, followed):
                # Two tracks have converged on one face.
                self._miss(track)
                continue
            self._streams.keep(track.row, look)
            face = Face(
                look.landmarks,
                look.confidence,
                track.box,
                self.config.scheme,
                identity=track.face.identity,
            )
            confidence, usual = _mean_confidence(look), track.usual_confidence
            current = _Track(
                track.row,
                face,
                look.region.roll,
                track.appearance,
                usual + USUAL_RATE * (confidence - usual),
                track.hidden + 1 if confidence < SURE_ABOVE else 0,
            )
            followed.append(current)
            face_thumbnail = self._thumbnail(look)
            clear = confidence >= CLEAR_ABOVE * usual
            another = track.appearance.update(face_thumbnail, clear=clear)
            if another is not None:
                person = self._missing.identify(box, self._frame, face_thumbnail, ALIKE)
                self._miss(track)
                current.face, current.appearance = face._replace(identity=person), another
        self._tracks = followed
        return lost

    def _miss(self, track: _Track) -> None:
        """Adds the person of a track to the missing people."""
        assert track.face.identity is not None
        self._missing.lose(track.face.identity, track.box, self._frame, track.appearance)

    def _recover(
        self, image: NDArray[np.uint8], hidden: Sequence[_Track], detections: Sequence[Detection]
    ) -> None:
        """Moves the crops of hidden faces to detections near them that the network confirms.

        Neither the detection nor the confirmed face is that of another track.
        """
        regions = {}
        visible = [track for track in self._tracks if not track.hidden]
        free = [face for face in detections if not _taken(face.box, visible)]
        for track in hidden:
            overlaps = [intersection_over_union(track.box, face.box) for face in free]
            if overlaps and max(overlaps) > NEAR_FACE:
                nearest = free[int(np.argmax(overlaps))]
                regions[track.row] = Region(*upright_box(nearest))
        for row, look in self._look(image, regions).items():
            (track,) = (track for track in hidden if track.row == row)
            others = [other for other in self._tracks if other is not track]
            if look is None or _taken(self._face_box(look), others):
                continue
            if _mean_confidence(look) > track.face.confidence.mean():
                self._streams.keep(row, look)
                track.face = track.face._replace(
                    landmarks=look.landmarks, confidence=look.confidence, box=look.region.box
                )
                track.roll, track.hidden = look.region.roll, 0

    def _add(self, image: NDArray[np.uint8], detections: Sequence[Detection]) -> None:
        """Starts tracks in the free rows for detections that the network confirms.

        Detections near missing people come first, then the most prominent.
        """
        used = {track.row for track in self._tracks}
        free = [row for row in range(self._faces) if row not in used]
        new = [face for face in by_prominence(detections) if not _taken(face.box, self._tracks)]
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
            if started[row].points is not None and _mean_confidence(looks[row]) < DOUBTFUL
        }
        for row, look in self._look(image, turned).items():
            if _mean_confidence(look) >= DOUBTFUL:
                looks[row] = look
        for row, look in looks.items():
            if look is None:
                continue
            box = self._face_box(look)
            if _taken(box, self._tracks):
                continue
            self._streams.keep(row, look)
            detection, face_thumbnail = started[row], self._thumbnail(look)
            face = Face(
                look.landmarks,
                look.confidence,
                detection.box,
                self.config.scheme,
                detection.score,
                self._missing.identify(box, self._frame, face_thumbnail),
            )
            appearance = Appearance([face_thumbnail])
            track = _Track(row, face, look.region.roll, appearance, _mean_confidence(look))
            self._tracks.append(track)

    def _look(
        self,
        image: NDArray[np.uint8],
        regions: dict[int, Region],
        least_confidence: Mapping[int, float] = MappingProxyType({}),
    ) -> dict[int, Look | None]:
        """The network's result for each region, by row; None where there is no face.

        A face that moved far gets a second look from the same state, in a crop around the landmarks
        of the first. The first result is kept if the second is not a face.

        Args:
            image: the frame.
            regions: by row.
            least_confidence: the least mean confidence of a face, by row; `SURE_ABOVE` for others.
        """
        looks: dict[int, Look | None] = {}
        again = {}
        for row, look in self._streams.look(image, regions).items():
            least = least_confidence.get(row, SURE_ABOVE)
            looks[row] = look if self._is_face(look, image, least) else None
            if looks[row] is not None and self._moved_far(look):
                roll, expected = look.region.roll, look.region.box
                again[row] = _region(look.landmarks, self.config.scheme, roll, expected)
        for row, look in self._streams.look(image, again).items():
            if self._is_face(look, image, least_confidence.get(row, SURE_ABOVE)):
                looks[row] = look
        return looks

    def _thumbnail(self, look: Look) -> Thumbnail:
        """The thumbnail of the face, from the network's crop, which is faster than the frame."""
        size, margin = self.config.input_size, self.config.input_margin
        middle, half = (size - 1) / 2, size / margin / 2
        landmarks = apply_affine(invert_affine(look.affine), look.landmarks)
        expected = np.array([middle - half] * 2 + [middle + half] * 2)
        return thumbnail(look.crop, landmarks, self.config.scheme, expected)

    def _face_box(self, look: Look) -> NDArray[np.float32]:
        """The bounding box of the face of a look, from its landmarks."""
        return whole_face_box(look.landmarks, self.config.scheme, expected=look.region.box)

    def _moved_far(self, look: Look) -> bool:
        expected = look.region.box
        box = turned_face_box(
            look.landmarks, self.config.scheme, look.region.roll, expected=expected
        )
        moved = np.abs(box[:2] + box[2:] - expected[:2] - expected[2:]).max() / 2
        return bool(moved > RECROP_BEYOND * (expected[2:] - expected[:2]).max())

    def _is_face(self, look: Look, image: NDArray[np.uint8], least_confidence: float) -> bool:
        """Whether landmarks are confident, finite, as large as a face, and centred in the image."""
        # This comparison is False for nan.
        mean = np.mean(look.confidence)
        if not (mean >= least_confidence and np.isfinite(look.landmarks).all()):
            return False
        x0, y0, x1, y1 = self._face_box(look)
        height, width = image.shape[:2]
        inside = 0 <= (x0 + x1) / 2 < width and 0 <= (y0 + y1) / 2 < height
        return bool(inside and SMALLEST_FACE <= max(x1 - x0, y1 - y0) <= 4 * max(height, width))


def _region(
    landmarks: NDArray[np.float32], scheme: Scheme, roll: float, expected: NDArray[np.float32]
) -> Region:
    """The region of landmarks, with the roll of the last crop unless theirs differs much."""
    face = face_roll(landmarks, scheme)
    if abs(np.angle(np.exp(1j * (face - roll)))) > TURN_BEYOND:
        roll = face
    return Region(turned_face_box(landmarks, scheme, roll, expected=expected), roll)


def _taken(box: NDArray[np.float32], tracks: Sequence[_Track]) -> bool:
    """Whether a box is that of the face of one of the tracks."""
    return any(intersection_over_union(box, track.box) > SAME_FACE for track in tracks)


def _mean_confidence(look: Look | None) -> float:
    return 0.0 if look is None else float(np.mean(look.confidence))
