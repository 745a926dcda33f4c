"""Windows of clips with a burst of corrupted frames in each, to be tracked as one batch.

`rednet_jax.evaluate.corrupt` corrupts whole clips for the tracker, which may lose a face. Here
every window is tracked to its end, so the errors of all networks are over the same frames.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rednet_jax.evaluate.clips import FRAMES, ClipWindows
from rednet_jax.evaluate.corrupt import (
    AFTER,
    BLUR,
    DARK_FACE,
    FACE_PIXELS,
    LIGHT,
    Kind,
    darken,
    motion_blur,
    occlude,
    reduce_resolution,
)
from rednet_jax.landmarks.crops import compose_affine, crop_image, invert_affine

EARLIEST, LATEST = 6, 10
"""First frame of a burst, from 0: the network has seen the face before."""

SHORTEST, LONGEST = 6, FRAMES - LATEST - AFTER
"""Frames of a burst: `AFTER` clean ones follow within the window."""


class BurstWindows(NamedTuple):
    """Windows with a burst each.

    Attributes:
        windows: W windows of T frames, with the corrupted images.
        within: bool [W, T], the frames of the burst.
        after: bool [W, T], the `AFTER` frames after it.
    """

    windows: ClipWindows
    within: NDArray[np.bool_]
    after: NDArray[np.bool_]


def burst_windows(
    windows: ClipWindows, kind: Kind, *, margin: float, seed: int = 0
) -> BurstWindows:
    """Returns windows with a burst of one kind in each; of all kinds the same frames.

    Args:
        windows: W windows of `FRAMES` clean frames.
        kind: of the bursts, one of `corrupt.BURST_KINDS`.
        margin: side of a cached frame in sides of the face's box, which is in its middle.
        seed: of the draws.
    """
    faces = windows.faces
    used = windows.frames.reshape(-1)
    images = np.array(faces.images[used])
    frames = np.arange(len(used)).reshape(windows.frames.shape)
    size = images.shape[1]
    side = size / margin
    box = np.array([size - side, size - side, size + side, size + side]) / 2
    within, after = np.zeros((2, *frames.shape), bool)
    for window, rows in enumerate(frames):
        rng = np.random.default_rng([seed, window])
        start = int(rng.integers(EARLIEST, LATEST + 1))
        stop = start + int(rng.integers(SHORTEST, LONGEST + 1))
        burst_seed = int(rng.integers(2**32))
        for frame in range(start, stop):
            row = rows[frame]
            of_burst = np.random.default_rng([burst_seed, 0])
            image = images[row]
            if kind == "occluder":
                share = (frame - start) / (stop - 1 - start)
                image = occlude(image, box, box, share, of_burst)
            elif kind == "motion-blur":
                image = motion_blur(image, BLUR * side, of_burst.uniform(0, np.pi))
            elif kind == "dark":
                noise = np.random.default_rng([burst_seed, frame])
                image = darken(image, LIGHT, side / DARK_FACE, noise)
            elif kind == "low-resolution":
                image = reduce_resolution(image, FACE_PIXELS / side)
            else:
                assert kind == "dropped"
                held = rows[start - 1]
                before, here = faces.affines[used[held]], faces.affines[used[row]]
                into = compose_affine(invert_affine(before), here)
                image = crop_image(images[held], into, size)
            images[row] = image
        within[window, start:stop] = True
        after[window, stop : stop + AFTER] = True
    shown = {
        field: getattr(faces, field)[used]
        for field in ("landmarks", "labelled", "affines", "names", "styles", "identities")
    }
    corrupted = dataclasses.replace(faces, images=images, starts=np.arange(len(used) + 1), **shown)
    return BurstWindows(ClipWindows(corrupted, frames), within, after)
