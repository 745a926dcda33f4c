"""Detects that a tracked face has become another person's, from the colours of the face.

The network's identity code C_id was trained with few people and tells them apart worse. The colours
of one face change slowly even in fast motion, so that a sudden change between steady frames is a
change of person, unless half of the face stays the same: then something hides the other half.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from rednet_jax.inference.thumbnails import Thumbnail, half_likeness, likeness, standardised
from rednet_jax.landmarks.boxes import face_roll, turned_face_box
from rednet_jax.landmarks.crops import crop_image, crop_transform
from rednet_jax.landmarks.schemes import Scheme

SIDE = 16
"""Side of the thumbnail of a face, in pixels."""

STEADY, ALIKE, UNLIKE, HALF_ALIKE = 0.92, 0.88, 0.75, 0.96
"""Thresholds on the correlation of thumbnails. A face is steady while the correlation with the
previous frame is `STEADY` or more. A steady face has become another person's if its correlation
with the last thumbnails falls below `UNLIKE`, or below `ALIKE` for more than `CONFIRMED_AFTER`
frames, and the correlation of the half of it that changed least below `HALF_ALIKE`. The rule and
its values were chosen on the 29 clips on which `rednet bench identities` measures them
(experiments/results/identities.json), so results on others may be worse."""

CONFIRMED_AFTER = 2
"""Frames after which a correlation below `ALIKE` is a change of person."""

_REMEMBERED = 10
"""Thumbnails of a person that a new one is compared with."""


def thumbnail(
    image: NDArray[np.uint8],
    landmarks: NDArray[np.floating],
    scheme: Scheme,
    expected: NDArray[np.floating] | None = None,
) -> Thumbnail:
    """Returns the thumbnail [SIDE, SIDE, 3] of a face, upright and independent of its size.

    Args:
        image: RGB uint8 [H, W, 3].
        landmarks: [L, 2], pixels of the image.
        scheme: of the landmarks.
        expected: [4], the size of a face of one landmark, as in `whole_face_box`.
    """
    roll = face_roll(landmarks, scheme)
    box = turned_face_box(landmarks, scheme, roll, expected=expected)
    affine = crop_transform(box, margin=1, size=SIDE, roll=roll)
    return standardised(crop_image(image, affine, SIDE))


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
        return max(likeness(known, now) for known in self._known)

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
        change = likeness(self._last, now)
        was_steady, self._steady, self._last = self._steady, change >= STEADY, now
        if not clear:
            return None
        first = not self._unknown
        if first and not (was_steady and change < ALIKE):
            self._known.append(now)
            return None
        alike = self.likeness(now)
        self._unknown.append(now)
        # Fast motion changes every frame, but only for a short time: the face must be steady.
        another = (
            alike < ALIKE
            and (first or self._steady)
            and max(half_likeness(known, now) for known in self._known) < HALF_ALIKE
        )
        certain = (first and alike < UNLIKE) or len(self._unknown) > CONFIRMED_AFTER
        if another and not certain:
            return None
        unknown, self._unknown = self._unknown, []
        if another:
            return Appearance(unknown)
        self._known.extend(unknown)
        return None
