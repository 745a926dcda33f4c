"""The parameters of a head: identity and motion, and the positions of features.

The head's frame: x to the image's right on a frontal face, y down, z towards the viewer; the unit
is the larger side of the box around a frontal face's landmarks, as in the mean shape.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rednet_jax.landmarks.builtin import IBUG68

MIDDLE = -0.25
"""y of the ellipsoid's centre, below which the face tapers; fitted to the mean shape's jaw."""


class Identity(NamedTuple):
    """Parameters of a person, constant over a clip. Lengths are in the unit of the head.

    Attributes:
        features: [51, 2], points 17 to 67 of a neutral face with closed mouth, in the (x, y) plane.
        radii: [3], half axes of the head.
        taper: relative change of the width towards the chin.
        shear: distance of the chin in front of the ears.
        nose: height of the nose above the ellipsoid, in half axes.
        relief: [7], strengths of the other bumps, about 1.
        skin: [3], reflectance, linear RGB.
        hair: [3], reflectance, linear RGB.
        iris: [3], reflectance, linear RGB.
        lips: [3], reflectance, linear RGB.
        style: [16], uniform in [0, 1]: hairline, beard, glasses and the like, read by the renderer.
    """

    features: Array
    radii: Array
    taper: Array
    shear: Array
    nose: Array
    relief: Array
    skin: Array
    hair: Array
    iris: Array
    lips: Array
    style: Array


class Motion(NamedTuple):
    """Parameters that vary over time, at one time.

    Attributes:
        angles: [3], yaw, pitch and roll, radians.
        offset: [2], of the head in the image, units of the head.
        open: 0 (mouth closed) to 1.
        smile: -0.5 to 1.
        pucker: 0 to 1.
        brows: -0.5 (frown) to 1 (raised).
        closed: [2], right and left eye, 0 to 1.
        gaze: [2], displacement of the iris, in widths of the eye.
    """

    angles: Array
    offset: Array
    open: Array
    smile: Array
    pucker: Array
    brows: Array
    closed: Array
    gaze: Array


def draw_identity(key: Array) -> Identity:
    """Draws a person."""
    bent, flat = jax.random.split(key)
    n = jax.random.truncated_normal(bent, -2.2, 2.2, (132,))
    u = jax.random.uniform(flat, (27,))
    style, melanin, pick = u[:16], u[16:19], u[19:22]
    # A tone from pale to dark, and a redness.
    pale, dark = jnp.array([0.78, 0.56, 0.44]), jnp.array([0.16, 0.085, 0.05])
    skin = pale ** (1 - melanin[0] ** 2.2) * dark ** (melanin[0] ** 2.2)
    skin = skin * (1 + 0.08 * (melanin[1] - 0.5) * jnp.array([1.0, -1.0, -1.5]))
    tones = jnp.array(
        [[0.02, 0.016, 0.014], [0.08, 0.045, 0.025], [0.3, 0.19, 0.09], [0.25, 0.07, 0.03],
         [0.4, 0.39, 0.38]]
    )  # fmt: skip
    weights = jax.nn.softmax(8 * u[22:] + jnp.array([2, 2, 0, -1, -1]))
    irises = jnp.array([[0.06, 0.03, 0.015], [0.12, 0.2, 0.3], [0.13, 0.15, 0.07]])
    iris = jnp.where(pick[0] < 0.6, irises[0], jnp.where(pick[1] < 0.5, irises[1], irises[2]))
    lips = skin * (1 - (0.15 + 0.5 * pick[2]) * jnp.array([0.25, 0.75, 0.6]))
    return Identity(
        features=_features(n[:17], n[30:].reshape(51, 2)),
        radii=jnp.array([0.477, 0.726, 0.56]) * (1 + jnp.array([0.05, 0.045, 0.07]) * n[17:20]),
        taper=0.07 * n[20],
        shear=0.33 + 0.05 * n[21],
        nose=0.34 * jnp.exp(0.2 * n[22]),
        relief=jnp.exp(0.25 * n[23:30]),
        skin=skin,
        hair=weights @ tones,
        iris=iris * (0.6 + 0.8 * pick[2]),
        lips=lips,
        style=style,
    )


def _features(n: Array, jitter: Array) -> Array:
    """Returns the neutral points 17 to 67 [51, 2] from draws `n` [17] and noise [51, 2]."""
    points = jnp.asarray(IBUG68.shape)
    side = jnp.sign(points[:, 0])
    brows, brow_side = points[17:27], side[17:27]
    along = jnp.abs(brows[:, 0]) - 0.23
    brows = brows + jnp.stack(
        [
            brow_side * 0.014 * n[0],
            0.02 * n[1] + 0.12 * along * n[2] + (0.006 - 0.6 * along**2) * n[3],
        ],
        axis=-1,
    )
    eyes, eye_side = points[36:48], side[36:48]
    centre = jnp.repeat(eyes.reshape(2, 6, 2).mean(1), 6, axis=0)
    local = (eyes - centre) * jnp.exp(jnp.stack([0.07 * n[4], 0.2 * n[5]]))
    local = local + jnp.stack([jnp.zeros(12), -0.08 * n[6] * eye_side * local[:, 0]], axis=-1)
    eyes = centre + local + jnp.stack([eye_side * 0.012 * n[7], jnp.full(12, 0.012 * n[8])], -1)
    nose = points[27:36]
    length = (nose[:, 1] + 0.30) / 0.33
    nose = jnp.stack(
        [nose[:, 0] * jnp.exp(0.13 * n[9]), nose[:, 1] + 0.02 * n[10] * length], axis=-1
    )
    mouth = points[48:]
    # Closed: the lower lip's points move up by the gap of the mean face, the corners are fixed.
    follows = [*[0] * 7, 0.5, 0.9, 1, 0.9, 0.5, *[0] * 5, 1, 1, 1]
    gap = 0.034 * jnp.array(follows)
    lower = gap > 0
    line = 0.157
    y = mouth[:, 1] - gap - line
    inside = jnp.arange(20) >= 12
    full = jnp.where(lower, jnp.exp(0.25 * n[11]), jnp.exp(0.25 * n[12]))
    y = jnp.where(inside, 0.4 * y, y * full) + line + 0.014 * n[13] + 0.008 * n[10]
    mouth = jnp.stack([mouth[:, 0] * jnp.exp(0.09 * n[14]), y], axis=-1)
    return jnp.concatenate([brows, nose, eyes, mouth]) + 0.0025 * jitter


def iris_centre(eye: Array, gaze: Array) -> Array:
    """Returns the centre [2] of the iris of an eye of points [6, 2], in the face's plane."""
    width = eye[3, 0] - eye[0, 0]
    return (eye[0] + eye[3]) / 2 + gaze * width * jnp.array([1.0, 0.35])


def express(identity: Identity, motion: Motion) -> tuple[Array, Identity]:
    """Applies an expression to a face.

    Args:
        identity: of the person.
        motion: with the expression; pose and gaze are not used here.

    Returns:
        Points 17 to 67 in the (x, y) plane [51, 2], and the identity with its chin lowered.
    """
    p = identity.features
    side = jnp.sign(p[:, 0])
    # Brows: the inner ends move more, and a frown moves them together.
    inner = 1.3 - 1.6 * jnp.abs(p[:10, 0])
    frown = jnp.minimum(motion.brows, 0)
    brows = p[:10] - jnp.stack([-side[:10] * 0.04 * frown * inner, 0.05 * motion.brows * inner], -1)
    # Lids: the upper lid closes onto the lower lid.
    eyes = p[19:31].reshape(2, 6, 2)
    closed = jnp.maximum(motion.closed, 0.25 * jnp.maximum(motion.smile, 0))
    open_ = (1 - jnp.clip(closed, 0, 1)) * (1 + 0.25 * jnp.maximum(motion.brows, 0))
    drop = (1 - open_[:, None]) * (eyes[:, jnp.array([5, 4]), 1] - eyes[:, jnp.array([1, 2]), 1])
    eyes = eyes.at[:, 1:3, 1].add(0.92 * drop)
    eyes = eyes.at[:, 4:6, 1].add(-0.08 * drop)
    # Mouth: weights of the jaw's and of the corners' motion for each point.
    mouth = p[31:]
    outer = [0.38, 0.08, 0, 0, 0, 0.08, 0.38, 0.75, 0.95, 1, 0.95, 0.75]
    jaw = jnp.array([*outer, 0.4, 0.02, 0, 0.02, 0.4, 0.95, 1, 0.95])
    across = jnp.clip(jnp.abs(mouth[:, 0]) / 0.18, 0, 1)
    move_x = side[31:] * across * (0.04 * motion.smile - 0.07 * motion.pucker - 0.02 * motion.open)
    move_y = 0.2 * motion.open * jaw - 0.045 * motion.smile * across**2 + 0.006 * motion.smile
    mouth = mouth + jnp.stack([move_x, move_y], axis=-1)
    radii = identity.radii.at[1].add(0.15 * motion.open)
    wide = jnp.array([1.0, 0.0]) * 0.1 * jnp.maximum(motion.smile, 0)
    nose = p[10:19] * (1 + wide)
    points = jnp.concatenate([brows, nose, eyes.reshape(12, 2), mouth])
    return points, identity._replace(radii=radii)
