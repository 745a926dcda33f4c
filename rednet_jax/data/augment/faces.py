"""Training images from single cached faces."""

import jax
import jax.numpy as jnp
from jax import Array

from rednet_jax.data.augment.config import Augmentation
from rednet_jax.data.augment.degrade import degrade
from rednet_jax.data.augment.geometry import (
    draw_placement,
    draw_slope,
    in_mirror_order,
    level,
    pixel_grid,
    placed_crop,
    plain_crop,
    tilt,
)
from rednet_jax.landmarks.crops import (
    apply_affine,
    compose_affine,
    invert_affine,
    sample_bilinear,
)
from rednet_jax.landmarks.schemes import Scheme


def augment(
    config: Augmentation,
    keys: Array,
    images: Array,
    landmarks: Array,
    labelled: Array,
    *,
    scheme: Scheme,
    cover: float,
    margin: float,
    size: int,
) -> tuple[Array, Array, Array]:
    """Draws one training image from each cached face.

    Args:
        config: ranges of the draws.
        keys: typed keys [B], one per face.
        images: uint8 [B, C, C, 3], cached faces.
        landmarks: float32 [B, L, 2], in pixels of `images`.
        labelled: bool [B, L].
        scheme: its mirror pairs swap when a face is mirrored.
        cover: side of a cached face in sides of the network's crop.
        margin: side of the network's crop in sides of the landmarks' box.
        size: pixels S on each side of the result.

    Returns:
        images float32 [B, S, S, 3] in [0, 1], landmarks float32 [B, L, 2] in their pixels (0 where
        not labelled; some may lie outside), labelled bool [B, L].
    """
    plain = plain_crop(cached=images.shape[1], cover=cover, margin=margin, size=size)

    def augment_face(
        key: Array, image: Array, points: Array, known: Array
    ) -> tuple[Array, Array, Array]:
        placement_key, slope_key, mirror_key, degrade_key = jax.random.split(key, 4)
        mirrored = jax.random.bernoulli(mirror_key, config.mirror)
        slope = draw_slope(config, slope_key)
        placement = draw_placement(config, placement_key)
        placed = placed_crop(placement, mirrored, margin=margin, size=size)
        affine = compose_affine(plain, placed)
        sources = apply_affine(affine, tilt(pixel_grid(size), slope, size))
        crop = sample_bilinear(image.astype(jnp.float32), sources) / 255
        points = level(apply_affine(invert_affine(affine), points), slope, size)
        points, known = in_mirror_order(mirrored, points, known, scheme)
        return degrade(config, degrade_key, crop), jnp.where(known[:, None], points, 0), known

    return jax.vmap(augment_face)(keys, images, landmarks, labelled)
