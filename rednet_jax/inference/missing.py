"""Identifies a new face in a video as a person who was lost earlier, or as a new person."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from rednet_jax.inference.appearance import Appearance
from rednet_jax.inference.thumbnails import Thumbnail

REMEMBERED = 50
"""Frames during which a lost person can be identified again."""

LEAST_ALIKE, LESS_ALIKE, FLOOR_ALIKE = 0.75, 0.05, 0.3
"""The least likeness of a face to a lost person near it: `LEAST_ALIKE`, lowered by `LESS_ALIKE` for
each frame of absence, but not below `FLOOR_ALIKE`. For 23 people, 1 % of the pairs of frames had a
likeness below 0.80 two frames apart, 0.56 five, and 0.37 thirty."""

WALKED = 0.05
"""How far a lost person may have moved for each frame of absence, in sides of the face's box. One
side is added to it."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Person:
    """A lost person, with the box, the frame and the appearance they were last seen with."""

    identity: int
    box: NDArray[np.float32]
    frame: int
    appearance: Appearance


class Missing:
    """The lost people of a video, and the identity of the next new person."""

    def __init__(self) -> None:
        """Starts without people."""
        self._people = 0
        self._lost: list[_Person] = []

    def __bool__(self) -> bool:
        """Whether any person is lost."""
        return bool(self._lost)

    def lose(
        self, identity: int, box: NDArray[np.float32], frame: int, appearance: Appearance
    ) -> None:
        """Adds a lost person.

        Args:
            identity: of the person.
            box: float32 [4], the last bounding box of the landmarks, pixels of the frame.
            frame: index of the frame.
            appearance: of the person.
        """
        self._lost.append(_Person(identity, box, frame, appearance))

    def forget(self, frame: int | None = None) -> None:
        """Removes people who were lost more than `REMEMBERED` frames before a frame.

        Removes all people if it is None.
        """
        if frame is None:
            self._lost = []
        else:
            self._lost = [person for person in self._lost if frame - person.frame <= REMEMBERED]

    def identify(
        self,
        box: NDArray[np.float32],
        frame: int,
        seen: Thumbnail,
        least_alike: float | None = None,
    ) -> int:
        """Returns the identity of a lost person near a box who looks alike, else a new identity.

        Args:
            box: float32 [4] of the face, pixels of the frame.
            frame: index of the frame.
            seen: thumbnail of the face.
            least_alike: the least likeness; None for one that depends on the time of absence.
        """
        for person in self._near(box, frame):
            least = max(LEAST_ALIKE - LESS_ALIKE * (frame - person.frame), FLOOR_ALIKE)
            if person.appearance.likeness(seen) >= (least if least_alike is None else least_alike):
                self._lost.remove(person)
                return person.identity
        self._people += 1
        return self._people - 1

    def is_near(self, box: NDArray[np.float32], frame: int) -> bool:
        """Returns whether a person was lost near a box."""
        return bool(self._near(box, frame))

    def _near(self, box: NDArray[np.float32], frame: int) -> list[_Person]:
        """The people lost near a box, the nearest first; the radius grows with the absence."""

        def distance(person: _Person) -> float:
            apart = np.abs(person.box[:2] + person.box[2:] - box[:2] - box[2:]).max() / 2
            return float(apart / max(person.box[2:] - person.box[:2]))

        near = [
            person
            for person in self._lost
            if distance(person) <= 1 + WALKED * (frame - person.frame)
        ]
        return sorted(near, key=distance)
