"""A small 300-VW data set of drawn faces that move."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from train.miniature_300w import SIDE, draw_face

from rednet_jax.data.prepare import prepare
from rednet_jax.landmarks.pts import write_pts

FRAMES = {"one": 12, "two": 7}
UNLABELLED = {("one", 1), ("one", 2), ("one", 6), ("two", 7)}
"""Frames, counted from 1, without an annotation."""


def prepare_300vw(folder: Path) -> Path:
    """Prepares two clips, of 12 and 7 frames, and returns the data folder.

    The face in frame t is t - 1 pixels to the right of its position in frame 1.
    """
    for seed, (name, frames) in enumerate(FRAMES.items()):
        image, landmarks = draw_face(seed)
        clip = folder / "clips" / name
        (clip / "annot").mkdir(parents=True)
        with av.open(str(clip / "vid.avi"), "w") as file:
            # Lossless, so that a decoded frame equals the drawn image.
            stream = file.add_stream("ffv1", rate=25, width=SIDE, height=SIDE, pix_fmt="bgr0")
            for shift in range(frames):
                moved = np.roll(image, shift, axis=1)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
                if (name, shift + 1) not in UNLABELLED:
                    write_pts(
                        clip / "annot" / f"{shift + 1:06d}.pts", landmarks + np.array([shift, 0])
                    )
            file.mux(stream.encode())
    prepare("300vw", folder / "clips", folder / "prepared")
    return folder / "prepared"
