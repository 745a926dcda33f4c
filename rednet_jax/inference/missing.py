"""People whose face was lost, and whether a face that appears is one of theirs."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from rednet_jax.inference.appearance import Appearance, Thumbnail

REMEMBERED = 50
"""Frames. A face that comes back near its last place within so many is the same person's, unless it
looks different."""

LEAST_ALIKE, LESS_ALIKE, FLOOR_ALIKE = 0.75, 0.05, 0.3
"""Likeness of a face to the person who was lost near it: with each frame of absence less is needed,
down to the floor. Of 23 people 1 % of the pairs of frames were less alike than 0.80 two frames
apart, 0.56 five, and 0.37 thirty."""

WALKED = 0.05
"""Sides of a face that a person who was lost may have moved in a frame, plus one side at once."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Person:
    """Where, in which frame and how a person was seen last."""

    identity: int
    box: NDArray[np.float32]
    frame: int
    appearance: Appearance


class Missing:
    """The people who were lost, and the number of the next person who is new."""

    def __init__(self) -> None:
        """Nobody was seen yet."""
        self._people = 0
        self._lost: list[_Person] = []

    def __bool__(self) -> bool:
        """Whether anybody is missing."""
        return bool(self._lost)

    def lose(
        self, identity: int, box: NDArray[np.float32], frame: int, appearance: Appearance
    ) -> None:
        """Notes where a person was seen last.

        Args:
            identity: number of the person.
            box: float32 [4] of the landmarks, pixels of the frame.
            frame: number of the frame.
            appearance: of the person.
        """
        self._lost.append(_Person(identity, box, frame, appearance))

    def forget(self, frame: int | None = None) -> None:
        """Gives up those who were lost too long before a frame; all if it is None."""
        if frame is None:
            self._lost = []
        else:
            self._lost = [one for one in self._lost if frame - one.frame <= REMEMBERED]

    def identify(
        self,
        box: NDArray[np.float32],
        frame: int,
        seen: Thumbnail,
        least_alike: float | None = None,
    ) -> int:
        """Returns the number of who was lost near a box and looks alike, else a new one.

        Args:
            box: float32 [4] of the face, pixels of the frame.
            frame: number of the frame.
            seen: the face.
            least_alike: likeness that is needed; by the time of absence if None.
        """
        for one in self._near(box, frame):
            least = max(LEAST_ALIKE - LESS_ALIKE * (frame - one.frame), FLOOR_ALIKE)
            if one.appearance.likeness(seen) >= (least if least_alike is None else least_alike):
                self._lost.remove(one)
                return one.identity
        self._people += 1
        return self._people - 1

    def is_near(self, box: NDArray[np.float32], frame: int) -> bool:
        """Returns whether anybody was lost near a box."""
        return bool(self._near(box, frame))

    def _near(self, box: NDArray[np.float32], frame: int) -> list[_Person]:
        """Who was lost near enough to a box, the nearest first: farther, the longer he is gone."""

        def sides_away(one: _Person) -> float:
            apart = np.abs(one.box[:2] + one.box[2:] - box[:2] - box[2:]).max() / 2
            return float(apart / max(one.box[2:] - one.box[:2]))

        near = [one for one in self._lost if sides_away(one) <= 1 + WALKED * (frame - one.frame)]
        return sorted(near, key=sides_away)
