"""The head's surface, and the positions of the landmarks on it for a camera.

The surface is an ellipsoid whose lower half is sheared forward, so that the chin is below the mouth
and the frontal outline is the jaw, with radial bumps (nose, lips, brows, ...).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from rednet_jax.data.synthetic.head import MIDDLE, Identity
from rednet_jax.landmarks.builtin import IBUG68

_CANDIDATES = 64
"""Number of points on each level of the head; the outermost is on the contour."""


class Camera(NamedTuple):
    """A pinhole camera that looks along -z at the head's centre.

    Attributes:
        rotation: [3, 3], of the head: camera coordinates = rotation @ head coordinates.
        distance: from the camera to the head's centre.
        centre: [2], point of the plane z = 0 in the middle of the image.
        scale: pixels per unit of that plane.
    """

    rotation: Array
    distance: Array
    centre: Array
    scale: Array


def rotation_matrix(angles: Array) -> Array:
    """Returns [3, 3]: roll after pitch after yaw, from angles [3] (yaw, pitch, roll), radians."""
    (cy, cp, cr), (sy, sp, sr) = jnp.cos(angles), jnp.sin(angles)
    one, zero = jnp.ones_like(cy), jnp.zeros_like(cy)
    yaw = jnp.array([[cy, zero, sy], [zero, one, zero], [-sy, zero, cy]])
    pitch = jnp.array([[one, zero, zero], [zero, cp, -sp], [zero, sp, cp]])
    roll = jnp.array([[cr, -sr, zero], [sr, cr, zero], [zero, zero, one]])
    return roll @ pitch @ yaw


def project(camera: Camera, points: Array) -> Array:
    """Returns points [..., 3] of the head in the camera's plane z = 0, [..., 2]."""
    seen = points @ camera.rotation.T
    return seen[..., :2] * (camera.distance / (camera.distance - seen[..., 2:]))


def relief(identity: Identity, features: Array, x: Array, y: Array) -> Array:
    """Returns the height of the face above the ellipsoid, in half axes, at (x, y) of any shape.

    Args:
        identity: with the strengths of the bumps.
        features: [51, 2], points 17 to 67 with the expression; the bumps move with them.
        x: units of the head; the bumps are symmetric.
        y: units of the head.
    """
    x = jnp.abs(x)
    strength = identity.relief

    def bump(cx: Array | float, cy: Array | float, sx: Array | float, sy: float) -> Array:
        return jnp.exp(-0.5 * (((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2))

    top, tip, base = features[10, 1], features[13, 1], features[16, 1]
    wing = jnp.abs(features[jnp.array([14, 18]), 0]).mean()
    v = (y - top) / (tip - top)
    rise = 0.12 * jnp.exp(-10 * jnp.minimum(v, 0) ** 2) + 0.88 * jnp.clip(v, 0, 1)
    under = jnp.clip((y - tip + 0.005) / (base - tip), 0, 1)
    fall = 1 - under**2 * (3 - 2 * under)
    breadth = 0.032 + 0.34 * wing * jnp.clip(v, 0, 1.2) + 0.06 * jnp.maximum(-v, 0)
    height = identity.nose * rise * fall * jnp.exp(-0.5 * (x / breadth) ** 2)
    height = height + identity.nose * 0.38 * bump(wing - 0.025, base - 0.045, 0.024, 0.024)
    eyes = features[19:31].reshape(2, 6, 2)
    eye_x, eye_y = jnp.abs(eyes[..., 0]).mean(), eyes[..., 1].mean()
    height = height - 0.09 * strength[0] * bump(eye_x - 0.02, eye_y, 0.09, 0.055)
    height = height + 0.05 * strength[1] * bump(eye_x, eye_y, 0.055, 0.034)
    height = height + 0.04 * strength[2] * bump(0.22, features[:10, 1].mean() + 0.02, 0.13, 0.035)
    height = height + 0.05 * strength[3] * bump(0.27, -0.06, 0.1, 0.1)
    mouth = features[31:]
    wide = jnp.abs(mouth[jnp.array([0, 6]), 0]).mean()
    upper = (mouth[3, 1] + mouth[14, 1]) / 2
    lower = (mouth[9, 1] + mouth[18, 1]) / 2
    height = height + 0.04 * strength[4] * bump(0, upper, 0.6 * wide, 0.028)
    height = height + 0.05 * strength[5] * bump(0, lower, 0.5 * wide, 0.028)
    height = height - 0.05 * bump(0, mouth[9, 1] + 0.045, 0.5 * wide, 0.025)
    chin = MIDDLE + identity.radii[1] - 0.08
    return height + 0.06 * strength[6] * bump(0, chin, 0.09, 0.05)


def implicit(identity: Identity, features: Array, x: Array, y: Array, z: Array) -> Array:
    """Returns a value below 0 inside the head and above 0 outside, at (x, y, z) of any shape.

    Near the surface it is about the distance in half axes.
    """
    level, half_width, front = _section(identity, y)
    depth = (z - front) / identity.radii[2]
    # The ramp of depth removes the bumps from the back of the head.
    outside = jnp.sqrt((x / half_width) ** 2 + level**2 + depth**2 + 1e-9) - 1
    return outside - jnp.clip(4 * depth, 0, 1) * relief(identity, features, x, y)


def _section(identity: Identity, y: Array) -> tuple[Array, Array, Array]:
    """Returns level (-1 to 1 from crown to chin), half width and central z of the section at y."""
    level = (y - MIDDLE) / identity.radii[1]
    below = jnp.clip(level, 0, 1.1) ** 2
    return level, identity.radii[0] * (1 + identity.taper * below), identity.shear * below


def lift(identity: Identity, features: Array, points: Array) -> Array:
    """Projects points [..., 2] of the face's plane onto the surface, [..., 3]."""
    x, y = points[..., 0], points[..., 1]
    level, half_width, front = _section(identity, y)
    radius = 1 + relief(identity, features, x, y)
    inside = radius**2 - (x / half_width) ** 2 - level**2
    depth = identity.radii[2] * jnp.sqrt(jnp.maximum(inside, 1e-4))
    return jnp.stack([x, y, front + depth], axis=-1)


def contour(identity: Identity, features: Array, camera: Camera) -> Array:
    """Returns the jaw [17, 3]: at each level of the head the outermost visible point.

    On the side that is turned away it is the visible contour, as in the annotations of 300-W; on
    the other side it is the jaw itself, since points behind it are not candidates.
    """
    neutral = jnp.asarray(IBUG68.shape)[:17]
    level = (neutral[:, 1] - MIDDLE) / (neutral[8, 1] - MIDDLE)
    y = MIDDLE + identity.radii[1] * jnp.minimum(level, 0.995)
    side = jnp.sign(neutral[:, 0])
    angle = jnp.linspace(0, jnp.pi / 2, _CANDIDATES)
    _, half_width, front = _section(identity, y)
    # Without bumps, which are inside the outline, except those of cheeks and chin, which are low.
    radius = jnp.sqrt(1 - jnp.minimum(level, 0.995) ** 2)
    x = (side * half_width * radius)[:, None] * jnp.cos(angle)
    z = front[:, None] + identity.radii[2] * radius[:, None] * jnp.sin(angle)
    places = jnp.stack([x, jnp.broadcast_to(y[:, None], x.shape), z], axis=-1)
    axis = camera.rotation[:2, 0] / jnp.linalg.norm(camera.rotation[:2, 0])
    outward = (project(camera, places) @ axis) * side[:, None]
    best = jnp.argmax(outward, axis=1)
    return jnp.take_along_axis(places, best[:, None, None], axis=1)[:, 0]
