"""Counts of cuts and changes of person: those found, and those reported where there are none."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.samples import ClipSample
from rednet_jax.data.sources import read_clips
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.corrupt import Corruption, Kind, corrupted
from rednet_jax.evaluate.provenance import provenance
from rednet_jax.inference.appearance import CONFIRMED_AFTER, Appearance, thumbnail
from rednet_jax.inference.cuts import CutFinder
from rednet_jax.inference.thumbnails import Thumbnail
from rednet_jax.landmarks.schemes import Scheme

FRAMES = 120
"""Largest number of frames of each clip."""

BEFORE = 30
"""Frames of a clip before it is cut to another one."""

KINDS: tuple[Kind, ...] = ("clean", "occluder", "motion-blur", "dark", "low-resolution")


class _Watched(NamedTuple):
    """A clip of which every frame was seen.

    Attributes:
        frames: their number.
        cuts: number of cuts that were reported.
        faces: thumbnails of the labelled faces.
        first: the first frame, uint8 [H, W, 3].
        last: the last frame.
    """

    frames: int
    cuts: int
    faces: list[Thumbnail]
    first: NDArray[np.uint8]
    last: NDArray[np.uint8]


def bench_identities(
    data: str = "300vw",
    splits: Sequence[str] = ("train", "validation"),
    *,
    data_dir: Path | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Runs the rules for cuts and for changes of person on labelled clips, without a network.

    Faces are where the labels are, and every frame counts as clear, so that the rules are tested
    more severely than in the tracker. In the corrupted clips an occluder moves over the face, or
    frames are blurred, dark or of low resolution. Each clip should show one person in one shot, and
    no two clips the same person.

    Args:
        data: name of a data set of clips.
        splits: of the data set.
        data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.
        report: called with (done, total) after each clip and kind.

    Returns:
        `clips`; `reported`, for each kind of corruption the number of `frames`, and of `cuts` and
        `changes` of person that were reported, all wrongly; and `joined`, for all ordered `pairs`
        of clips, of which the second follows the first without a pause, the percentages `cuts`
        (found in the first frame), `changes_at_once` (of the person, in the first frame) and
        `changes` (within `CONFIRMED_AFTER` more frames).

    Raises:
        RednetError: no such data, less than two clips, or a clip without labels.
    """
    clips = [
        (clip, opened.scheme)
        for opened in (read_clips(data, split, data_dir) for split in splits)
        for clip in opened
    ]
    if len(clips) < 2:
        raise RednetError(f"{data}: at least two clips are needed, not {len(clips)}")
    for clip, _ in clips:
        if not clip.labelled.all(1).any():
            raise RednetError(f"{data}: clip {clip.name} has no frame with all landmarks labelled")
    reported: list[dict[str, Any]] = []
    clean: list[_Watched] = []
    for kind in KINDS:
        watched = []
        for clip, scheme in clips:
            watched.append(_watched(clip, scheme, Corruption(kind)))
            report(len(reported) * len(clips) + len(watched), len(KINDS) * len(clips))
        if kind == "clean":
            clean = watched
        reported.append(
            {
                "kind": kind,
                "frames": sum(clip.frames for clip in watched),
                "cuts": sum(clip.cuts for clip in watched),
                "changes": sum(_changes(clip.faces) for clip in watched),
            }
        )
    origin = provenance(
        f"rednet bench identities --data {data} --splits {','.join(splits)}", seed=0
    )
    return {
        "clips": len(clips),
        "reported": reported,
        "joined": _joined(clean),
        "provenance": origin,
    }


def _watched(clip: ClipSample, scheme: Scheme, corruption: Corruption) -> _Watched:
    finder, cuts, faces = CutFinder(), 0, []
    frames = min(len(clip.valid), FRAMES)
    for frame in range(frames):
        image = corrupted(corruption, clip, frame)
        cuts += finder.update(image)
        if clip.labelled[frame].all():
            faces.append(thumbnail(image, clip.landmarks[frame], scheme, clip.box[frame]))
    return _Watched(frames, cuts, faces, clip.images[0], image)


def _changes(faces: Sequence[Thumbnail]) -> int:
    """Returns how often the person changes in the frames of a clip."""
    appearance, changes = Appearance(faces[:1]), 0
    for face in faces[1:]:
        another = appearance.update(face)
        if another is not None:
            appearance, changes = another, changes + 1
    return changes


def _joined(clips: Sequence[_Watched]) -> dict[str, float | int]:
    pairs = list(itertools.permutations(clips, 2))
    cuts, delays = 0, []
    for before, after in pairs:
        finder = CutFinder()
        finder.update(before.last)
        cuts += finder.update(after.first)
        appearance = Appearance(before.faces[:1])
        for face in before.faces[1:BEFORE]:
            appearance = appearance.update(face) or appearance
        found = (appearance.update(face) is not None for face in after.faces[: CONFIRMED_AFTER + 1])
        delays.append(next((delay for delay, change in enumerate(found) if change), None))
    share = 100 / len(pairs)
    return {
        "pairs": len(pairs),
        "cuts": share * cuts,
        "changes_at_once": share * delays.count(0),
        "changes": share * (len(delays) - delays.count(None)),
    }
