"""Detects that a tracked face has become another person's, from the colours of the face.

The colours tell people apart better than the network's identity code C_id, which was trained with
few people. On 23 real clips, the equal error rate of C_id was 1.6 % for neighbouring frames and
13.7 % for frames 30 apart; that of the colours was 0.7 % and 9.7 %. The colours of one face change
slowly even in fast motion, so that a sudden change between steady frames is a change of person,
unless half of the face stays the same: then something hides the other half.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from rednet_jax.landmarks.boxes import face_roll, turned_face_box
from rednet_jax.landmarks.crops import crop_image, crop_transform
from rednet_jax.landmarks.schemes import Scheme

SIDE = 16
"""Side of the thumbnail of a face, in pixels."""

STEADY, ALIKE, UNLIKE, HALF_ALIKE = 0.92, 0.88, 0.75, 0.96
"""Thresholds on the correlation of thumbnails. A face is steady while the correlation with the
previous frame is `STEADY` or more. A steady face has become another person's if its correlation
with the last thumbnails falls below `UNLIKE`, or below `ALIKE` for more than `CONFIRMED_AFTER`
frames, and the correlation of the half of it that changed least below `HALF_ALIKE`. With the
labelled landmarks of up to 120 frames of each of 29 clips, the rule found one change of person
where there was none, and two where a bar moved over the faces (29 without the last condition). Of
476 cuts from a face of one clip to that of another, it found 79 % in the first frame and 95 %
within `CONFIRMED_AFTER` frames (79 and 97 %). The rule and its values were chosen on these clips,
so that results on others may be worse."""

CONFIRMED_AFTER = 2
"""Frames after which a correlation below `ALIKE` is a change of person."""

_BLOCKS = 4
"""Blocks along each side of a thumbnail."""

_REMEMBERED = 10
"""Thumbnails of a person that a new one is compared with."""

Thumbnail = NDArray[np.float32]
"""float32 [SIDE * SIDE * 3]: colours of the upright face, with mean 0 and mean square 1."""


def thumbnail(
    image: NDArray[np.uint8],
    landmarks: NDArray[np.floating],
    scheme: Scheme,
    expected: NDArray[np.floating] | None = None,
) -> Thumbnail:
    """Returns the thumbnail of a face, independent of its position, size, roll and brightness.

    Args:
        image: RGB uint8 [H, W, 3].
        landmarks: [L, 2], pixels of the image.
        scheme: of the landmarks.
        expected: [4], the size of a face of one landmark, as in `whole_face_box`.
    """
    roll = face_roll(landmarks, scheme)
    box = turned_face_box(landmarks, scheme, roll, expected=expected)
    crop = crop_image(image, crop_transform(box, margin=1, size=SIDE, roll=roll), SIDE)
    colours = crop.astype(np.float32).ravel()
    colours -= colours.mean()
    # The floor of one grey value avoids amplified noise where a face has only one colour.
    scaled: Thumbnail = colours / np.float32(max(np.sqrt(np.mean(colours**2)), 1.0))
    return scaled


def half_likeness(one: Thumbnail, other: Thumbnail) -> float:
    """Returns the correlation, -1 to 1, of the half of two faces that differs least.

    The half is 8 of 16 blocks. They are chosen by their squared difference after a fit of gain and
    offset, first to the median and its deviation, then twice to the half itself.
    """
    first, second = _in_blocks(one), _in_blocks(other)
    gain, offset = _fit(_robust_scale(first), _robust_scale(second))
    for _ in range(3):
        differences = np.square(gain * first + offset - second).mean(1)
        half = np.argsort(differences, kind="stable")[: len(differences) // 2]
        a, b = first[half], second[half]
        gain, offset = _fit((float(a.mean()), float(a.std())), (float(b.mean()), float(b.std())))
    covariance = float(((a - a.mean()) * (b - b.mean())).mean())
    return covariance / max(float(a.std() * b.std()), 1e-6)


def _in_blocks(thumbnail: Thumbnail) -> NDArray[np.float32]:
    """The pixels of each block, [_BLOCKS ** 2, N]."""
    side = SIDE // _BLOCKS
    blocks = thumbnail.reshape(_BLOCKS, side, _BLOCKS, side, 3).swapaxes(1, 2)
    return blocks.reshape(_BLOCKS**2, -1)


def _robust_scale(values: NDArray[np.float32]) -> tuple[float, float]:
    """The median, and the median deviation from it."""
    median = float(np.median(values))
    return median, float(np.median(np.abs(values - median)))


def _fit(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """Gain and offset that map values of one mean and scale to those of another."""
    gain = other[1] / max(one[1], 1e-3)
    return gain, other[0] - gain * one[0]


class Appearance:
    """The thumbnails of a tracked person in the last frames."""

    def __init__(self, seen: Iterable[Thumbnail]) -> None:
        """Starts from the thumbnails, at least one, of a person's first frames."""
        self._known = deque(seen, _REMEMBERED)
        self._last = self._known[-1]
        self._steady = True
        self._unknown: list[Thumbnail] = []

    def likeness(self, now: Thumbnail) -> float:
        """Returns the highest correlation, -1 to 1, of a thumbnail with the person's."""
        return float(np.max(np.stack(self._known) @ now) / len(now))

    def update(self, now: Thumbnail, *, clear: bool = True) -> Appearance | None:
        """Adds the thumbnail of the next frame.

        Args:
            now: of that frame.
            clear: whether the face is seen clearly; if not, it is the same person's.

        Returns:
            The appearance of another person if the face has become another's in this frame or in
            the `CONFIRMED_AFTER` frames before it; None if it is the same person's. Thumbnails of
            the other person are not added to this appearance.
        """
        change = float(np.mean(self._last * now))
        was_steady, self._steady, self._last = self._steady, change >= STEADY, now
        if not clear:
            return None
        first = not self._unknown
        if first and not (was_steady and change < ALIKE):
            self._known.append(now)
            return None
        likeness = self.likeness(now)
        self._unknown.append(now)
        # Fast motion changes every frame, but only for a short time: the face must be steady.
        another = (
            likeness < ALIKE
            and (first or self._steady)
            and max(half_likeness(known, now) for known in self._known) < HALF_ALIKE
        )
        certain = (first and likeness < UNLIKE) or len(self._unknown) > CONFIRMED_AFTER
        if another and not certain:
            return None
        unknown, self._unknown = self._unknown, []
        if another:
            return Appearance(unknown)
        self._known.extend(unknown)
        return None
