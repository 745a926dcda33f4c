"""Generates images and clips of faces from random keys, with the exact landmarks of `head70`.

    draw = functools.partial(generate, SyntheticConfig())
    images, landmarks = jax.lax.map(draw, jax.random.split(jax.random.key(0), 32))

For a batch, `lax.map` is faster on the CPU (one face fits into the cache), and `vmap` on other
devices. An image is the first frame of a clip. Nothing is read from disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rednet_jax.data.synthetic.head import (
    Identity,
    Motion,
    draw_identity,
    express,
    iris_centre,
)
from rednet_jax.data.synthetic.planes import computed_once
from rednet_jax.data.synthetic.render import render
from rednet_jax.data.synthetic.scene import Scene, draw_scene
from rednet_jax.data.synthetic.surface import Camera, contour, lift, project, rotation_matrix
from rednet_jax.errors import RednetError
from rednet_jax.fields import check_fields
from rednet_jax.landmarks.crops import apply_affine, crop_transform, invert_affine

_MOTIONS, _WAVES = 14, 4
"""Number of motion parameters, and of waves per parameter."""

Arrange = Callable[[Motion, Scene], tuple[Motion, Scene]]
"""Changes the drawn motion and scene of a frame, to set a pose or a light."""


def as_drawn(motion: Motion, scene: Scene) -> tuple[Motion, Scene]:
    """Returns both unchanged."""
    return motion, scene


@dataclass(frozen=True)
class SyntheticConfig:
    """Ranges of the draws.

    Attributes:
        size: S, pixels on each side of the image.
        margin: side of the crop in sides of the landmarks' box.
        yaw: largest magnitude, degrees; the standard deviation is about 0.4 of it.
        pitch: as yaw.
        roll: as yaw.
        expression: factor on all expressions, 0 for none.
        shift: of the crop's centre, sides of the landmarks' box, standard deviation on each axis.
        log_scale: logarithm of the crop's side, standard deviation.
        occlusion: probability of each of two occluders.
    """

    size: int = 128
    margin: float = 1.25
    yaw: float = 50.0
    pitch: float = 25.0
    roll: float = 25.0
    expression: float = 1.0
    shift: float = 0.05
    log_scale: float = 0.1
    occlusion: float = 0.15

    def __post_init__(self) -> None:
        """Raises RednetError for images without pixels and for too large angles."""
        check_fields(self, "data.faces.")
        if self.size < 1 or self.margin <= 0:
            raise RednetError(f"no face of {self.size} px with margin {self.margin} can be drawn")
        if not all(0 <= angle <= 60 for angle in (self.yaw, self.pitch, self.roll)):
            raise RednetError("yaw, pitch and roll of a head must be 0 to 60 degrees")


def generate(
    config: SyntheticConfig, key: Array, arrange: Arrange = as_drawn
) -> tuple[Array, Array]:
    """Draws one face.

    Args:
        config: ranges of the draws.
        key: a typed key.
        arrange: as in `generate_clip`.

    Returns:
        Image float32 [S, S, 3] in [0, 1], and landmarks float32 [70, 2] in its pixels (x, y);
        some may be outside the image.
    """
    images, landmarks = generate_clip(config, key, 1, arrange)
    return images[0], landmarks[0]


def generate_clip(
    config: SyntheticConfig, key: Array, frames: int, arrange: Arrange = as_drawn
) -> tuple[Array, Array]:
    """Draws one person who moves in front of a static camera.

    Args:
        config: ranges of the draws.
        key: a typed key; a longer clip of the same key starts with the shorter one.
        frames: T, at about 25 frames per second.
        arrange: changes pose, expression, light or grading of a frame; all else stays as drawn.

    Returns:
        Images float32 [T, S, S, 3] in [0, 1], and landmarks float32 [T, 70, 2] in their pixels.
    """
    who, how, where, view, crop, noise = jax.random.split(key, 6)
    identity = draw_identity(who)
    drawn = draw_scene(where, config.size, config.occlusion)
    distance = jnp.exp(jax.random.uniform(view, minval=jnp.log(3.0), maxval=jnp.log(9.0)))
    waves = _draw_waves(how)

    def seen(time: Array) -> tuple[Array, Array, Identity, Motion, Scene, Camera]:
        motion, scene = arrange(_motion(config, waves, time), drawn)
        features, expressed = express(identity, motion)
        camera = Camera(rotation_matrix(motion.angles), distance, -motion.offset, jnp.float32(1))
        jaw = contour(expressed, features, camera)
        eyes = features[19:31].reshape(2, 6, 2)
        irises = jnp.stack([iris_centre(eye, motion.gaze) for eye in eyes])
        on_face = jnp.concatenate([features, irises])
        points = jnp.concatenate([jaw, lift(expressed, features, on_face)])
        return project(camera, points), features, expressed, motion, scene, camera

    times = jnp.arange(frames, dtype=jnp.float32)
    every = jax.lax.map(seen, times)
    # The crop is cut around the first frame's points.
    affine = _crop(config, crop, every[0][0])

    def frame(at: tuple[Array, Any]) -> tuple[Array, Array]:
        time, (plane, features, expressed, motion, scene, camera) = at
        landmarks = apply_affine(invert_affine(affine), plane + motion.offset)
        middle = apply_affine(affine, jnp.full((1, 2), (config.size - 1) / 2))[0]
        camera = camera._replace(centre=middle - motion.offset, scale=1 / affine[0, 0])
        grain = jax.random.fold_in(noise, time.astype(jnp.int32))
        # Otherwise the fused loop over pixels would recompute these values for each pixel.
        expressed, motion, scene, features, camera, grain = computed_once(
            (expressed, motion, scene, features, camera, grain)
        )
        image = render(expressed, motion, scene, features, camera, grain, config.size)
        return image, landmarks

    clip: tuple[Array, Array] = jax.lax.map(frame, (times, every))
    return clip


def _crop(config: SyntheticConfig, key: Array, points: Array) -> Array:
    """Returns the map [2, 3] from crop pixels to the camera's plane, randomly displaced."""
    draw = jax.random.truncated_normal(key, -2.5, 2.5, (3,))
    low, high = points.min(0), points.max(0)
    half = jnp.exp(config.log_scale * draw[0]) * (high - low) / 2
    middle = (low + high) / 2 + config.shift * draw[1:] * (high - low).max()
    box = jnp.concatenate([middle - half, middle + half])
    affine: Array = crop_transform(box, margin=config.margin, size=config.size)
    return affine


def _draw_waves(key: Array) -> Array:
    """Returns frequency (radians per frame) and phase of the waves of each motion, [2, M, W]."""
    speed, phase = jax.random.split(key)
    shape = (_MOTIONS, _WAVES)
    omega = jax.random.uniform(speed, shape, minval=0.02, maxval=0.25)
    return jnp.stack([omega, jax.random.uniform(phase, shape, maxval=2 * jnp.pi)])


def _motion(config: SyntheticConfig, waves: Array, time: Array) -> Motion:
    """Returns the motion at a time in frames: smooth, and nearly normal at each time."""
    n = jnp.sqrt(2 / _WAVES) * jnp.cos(waves[0] * time + waves[1]).sum(-1)
    limits = jnp.deg2rad(jnp.array([config.yaw, config.pitch, config.roll]))
    amount = config.expression
    # Both eyes blink nearly simultaneously.
    blink = jax.nn.sigmoid(8 * (n[8] + 0.1 * n[9:11] - 1.3))
    smile = jnp.clip(0.55 * n[6] + 0.35, -0.5, 1.2)
    return Motion(
        angles=limits * jnp.clip(0.42 * n[:3], -1, 1),
        offset=0.02 * n[3:5],
        # A broad smile parts the lips.
        open=amount * jnp.clip(0.45 * n[5] - 0.05 + 0.25 * smile, 0, 1),
        smile=amount * smile,
        pucker=amount * jnp.clip(0.6 * n[7] - 0.5, 0, 1),
        brows=amount * jnp.clip(0.4 * n[11] + 0.05, -0.5, 1),
        closed=amount * jnp.clip(blink + 0.1, 0, 1),
        gaze=jnp.clip(0.09 * n[12:14], -0.2, 0.2),
    )
