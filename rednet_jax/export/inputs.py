"""Inputs for the comparison of a network with its export: crops of faces, and streams."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.prepare import find_prepared
from rednet_jax.data.sources import read_split
from rednet_jax.data.synthetic.generate import SyntheticConfig, generate
from rednet_jax.landmarks.boxes import landmark_box, whole_face_box
from rednet_jax.landmarks.crops import compose_affine, crop_image, crop_transform, invert_affine
from rednet_jax.model.config import RedNetConfig

CROPS, STREAMS, FRAMES = 64, 4, 30


class Inputs(NamedTuple):
    """Crops of faces.

    Attributes:
        source: origin of the faces.
        crops: uint8 [64, S, S, 3], S = config.input_size.
        frames: uint8 [30, 4, S, S, 3], four streams, in each of which a crop moves over a face.
        warps: float32 [30, 4, 2, 3], pixels of each crop -> pixels of the previous crop.
    """

    source: str
    crops: NDArray[np.uint8]
    frames: NDArray[np.uint8]
    warps: NDArray[np.float32]


def comparison_inputs(config: RedNetConfig, data_dir: Path | None = None) -> Inputs:
    """Returns faces of 300w's validation split if it is prepared, else generated faces.

    Args:
        config: of the network, which defines size and margin of the crops.
        data_dir: folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.
    """
    if find_prepared("300w", data_dir) is None:
        source, faces = "generated faces", _generated()
    else:
        samples = read_split("300w", "validation", data_dir)
        first = (samples[i] for i in range(min(CROPS, len(samples))))
        source = "300w validation"
        faces = [
            (s.image, whole_face_box(s.landmarks, samples.scheme, s.labelled, expected=s.box))
            for s in first
        ]
    size = config.input_size

    def transform(box: NDArray[np.floating]) -> NDArray[np.float64]:
        affine: NDArray[np.float64] = crop_transform(box, margin=config.input_margin, size=size)
        return affine

    crops = [crop_image(image, transform(box), size) for image, box in faces]
    affines = np.stack(
        [[transform(_drifted(box, t)) for _, box in faces[:STREAMS]] for t in range(FRAMES)]
    )
    frames = [
        [crop_image(image, affine, size) for (image, _), affine in zip(faces, row, strict=False)]
        for row in affines
    ]
    before = np.concatenate([affines[:1], affines[:-1]])
    warps = compose_affine(invert_affine(before), affines).astype(np.float32)
    return Inputs(source, np.stack(crops), np.stack(frames), warps)


def _drifted(box: NDArray[np.floating], frame: int) -> NDArray[np.floating]:
    """The box in a later frame; position and size vary by 5 % of its side."""
    side = (box[2:] - box[:2]).max()
    angle = 2 * np.pi * frame / FRAMES
    shift = 0.05 * side * np.asarray([np.sin(angle), np.cos(2 * angle) - 1])
    grown = 0.05 * side * np.sin(3 * angle) / 2
    drifted: NDArray[np.floating] = box + np.tile(shift, 2) + grown * np.asarray([-1, -1, 1, 1])
    return drifted


@functools.cache
def _generated() -> list[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    draw = functools.partial(generate, SyntheticConfig(size=256, margin=2.15))
    keys = jax.random.split(jax.random.key(0), CROPS)
    images, landmarks = jax.jit(lambda keys: jax.lax.map(draw, keys))(keys)
    pixels = np.rint(np.asarray(images) * 255).astype(np.uint8)
    boxes = map(landmark_box, np.asarray(landmarks))
    return list(zip(pixels, boxes, strict=True))
