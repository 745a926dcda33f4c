"""Training clips from cached frames, with each crop placed as a tracker would place it."""

import jax
import jax.numpy as jnp
from jax import Array

from rednet_jax.data.augment.config import Augmentation, Drift
from rednet_jax.data.augment.degrade import degrade
from rednet_jax.data.augment.geometry import (
    Placement,
    draw_drift,
    draw_placement,
    in_mirror_order,
    placed_crop,
    plain_crop,
)
from rednet_jax.landmarks.crops import apply_affine, compose_affine, invert_affine, warp
from rednet_jax.landmarks.schemes import Scheme


def augment_clips(
    config: Augmentation,
    drift: Drift,
    keys: Array,
    images: Array,
    landmarks: Array,
    labelled: Array,
    affines: Array,
    *,
    scheme: Scheme,
    cover: float,
    margin: float,
    size: int,
) -> tuple[Array, Array, Array, Array]:
    """Draws one training clip from each clip of cached frames.

    Frame t is cut around the box of frame t - 1, as a tracker does, and frame 0 around its own box.
    If that frame has no label, the nearest labelled frame before it gives the box, else the first
    labelled frame of the clip, else frame 0. All frames share one draw; drift is added to it frame
    by frame, and each frame has its own noise.

    Args:
        config: ranges of the draws; `perspective` is not used.
        drift: how the crop drifts from frame to frame.
        keys: typed keys [B], one per clip.
        images: uint8 [B, T, C, C, 3], each frame cached around its own box, which has the same
            centre and a side of C / (cover * margin) pixels.
        landmarks: float32 [B, T, L, 2], in pixels of `images`.
        labelled: bool [B, T, L].
        affines: float32 [B, T, 2, 3], pixels of each cached frame -> pixels of the video's image.
        scheme: its mirror pairs swap when a clip is mirrored.
        cover: side of a cached frame in sides of the network's crop.
        margin: side of the network's crop in sides of the landmarks' box.
        size: pixels S on each side of the result.

    Returns:
        images float32 [B, T, S, S, 3] in [0, 1], landmarks float32 [B, T, L, 2] in their pixels (0
        where not labelled; some may lie outside), labelled bool [B, T, L], and warps float32
        [B, T, 2, 3], pixels of each crop -> pixels of the crop before it, the identity at t = 0.
    """
    frames, cached = images.shape[1:3]
    plain = plain_crop(cached=cached, cover=cover, margin=margin, size=size)

    # No perspective: with tilted crops the maps between frames of a moving face would be
    # projective, but `warps` are affine. Tilting the video's image would keep them affine, but the
    # tilt would grow without bound as the face moves away from the tilt's centre.
    def augment_clip(
        key: Array, images: Array, points: Array, known: Array, affines: Array
    ) -> tuple[Array, Array, Array, Array]:
        placement_key, drift_key, mirror_key, degrade_key = jax.random.split(key, 4)
        mirrored = jax.random.bernoulli(mirror_key, config.mirror)
        placement = draw_placement(config, placement_key)
        drifts = draw_drift(drift, drift_key, frames)
        drifting = Placement(*(a + b for a, b in zip(placement, drifts, strict=True)))
        placed = placed_crop(drifting, mirrored, margin=margin, size=size)
        boxes = compose_affine(affines, plain)[_box_frames(known.any(-1))]
        crops = compose_affine(boxes, placed)
        into_cached = compose_affine(invert_affine(affines), crops)
        drawn = jax.vmap(lambda image, affine: warp(image, affine, (size, size)))(
            images.astype(jnp.float32), into_cached
        )
        points = apply_affine(invert_affine(into_cached), points)
        points, known = in_mirror_order(mirrored, points, known, scheme)
        moves = compose_affine(invert_affine(crops[:-1]), crops[1:])
        return (
            degrade(config, degrade_key, drawn / 255),
            jnp.where(known[..., None], points, 0),
            known,
            jnp.concatenate([jnp.eye(2, 3)[None], moves]),
        )

    return jax.vmap(augment_clip)(keys, images, landmarks, labelled, affines)


def _box_frames(labelled: Array) -> Array:
    """Returns int32 [T]: for each frame, the frame that gives its box; `labelled` is bool [T]."""
    frames = jnp.arange(len(labelled))
    latest = jax.lax.cummax(jnp.where(labelled, frames, -1))
    nearest = jnp.where(latest < 0, jnp.argmax(labelled), latest)
    return nearest[jnp.maximum(frames - 1, 0)]
