"""Whether a tracked face still is the same person: how alike it looks from frame to frame.

The network's identity code C_id does not tell: it was trained with few people. Of 23 real clips, at
thresholds where errors of both kinds are equal, it takes 1.6 % of neighbouring frames of one person
for two people, and 13.7 % of those 30 frames apart; the colours of the face 0.7 and 9.7 %. Colours
change slowly even in fast motion, so that another person in the same place shows as a sudden change
between steady frames.
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
"""Of the thumbnail of a face, pixels."""

STEADY, ALIKE, UNLIKE = 0.92, 0.88, 0.75
"""Correlations of thumbnails. Another person is seen where a face that was `STEADY` is less than
`UNLIKE` what it was, or less than `ALIKE` and stays so. In 23 clips (2,291 frames) none of their
people was taken for another one; of 506 cuts from one clip's face to another's 85 % were noticed at
once and 98 % within `CONFIRMED_AFTER` frames. The rule and its values were chosen on these
clips, so others may do worse."""

CONFIRMED_AFTER = 2
"""Frames."""

_REMEMBERED = 10
"""Thumbnails of a person that a new one is compared with."""

Thumbnail = NDArray[np.float32]
"""float32 [SIDE * SIDE * 3]: colours of the upright face, of mean 0 and mean square 1."""


def thumbnail(
    image: NDArray[np.uint8],
    landmarks: NDArray[np.floating],
    scheme: Scheme,
    expected: NDArray[np.floating] | None = None,
) -> Thumbnail:
    """Returns what a face looks like, whatever its place, size, roll, and the strength of light.

    Args:
        image: RGB uint8 [H, W, 3].
        landmarks: [L, 2], pixels of the image.
        scheme: of the landmarks.
        expected: [4], gives the size of a face of one landmark, as in `whole_face_box`.
    """
    roll = face_roll(landmarks, scheme)
    box = turned_face_box(landmarks, scheme, roll, expected=expected)
    crop = crop_image(image, crop_transform(box, margin=1, size=SIDE, roll=roll), SIDE)
    colours = crop.astype(np.float32).ravel()
    colours -= colours.mean()
    # A floor of one grey value keeps the noise of a face of one colour small.
    scaled: Thumbnail = colours / np.float32(max(np.sqrt(np.mean(colours**2)), 1.0))
    return scaled


class Appearance:
    """What a tracked person looked like in the last frames."""

    def __init__(self, seen: Iterable[Thumbnail]) -> None:
        """Starts with the thumbnails of the first frames of a person, at least one."""
        self._known = deque(seen, _REMEMBERED)
        self._last = self._known[-1]
        self._steady = True
        self._unknown: list[Thumbnail] = []

    def likeness(self, now: Thumbnail) -> float:
        """Returns the highest correlation of a thumbnail with those of the person, -1 to 1."""
        return float(np.max(np.stack(self._known) @ now) / len(now))

    def update(self, now: Thumbnail) -> Appearance | None:
        """Takes the thumbnail of the next frame.

        Returns:
            The appearance of another person if one is seen now, and maybe was in the frame or two
            before; what was known of the first one stays as it is. None for the same person.
        """
        change = float(np.mean(self._last * now))
        was_steady, self._steady, self._last = self._steady, change >= STEADY, now
        begins = not self._unknown
        if begins and not (was_steady and change < ALIKE):
            self._known.append(now)
            return None
        likeness = self.likeness(now)
        self._unknown.append(now)
        # In fast motion every frame is a change, and soon the face is like itself again.
        another = likeness < ALIKE and (begins or self._steady)
        certain = (begins and likeness < UNLIKE) or len(self._unknown) > CONFIRMED_AFTER
        if another and not certain:
            return None
        unknown, self._unknown = self._unknown, []
        if another:
            return Appearance(unknown)
        self._known.extend(unknown)
        return None
