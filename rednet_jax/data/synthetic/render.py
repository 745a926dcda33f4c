"""Renders one image of a head: ray casting, materials, light, and surroundings.

All pixels are computed at once, as planes [S, S]; masks have soft borders of about a pixel.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from rednet_jax.data.synthetic.head import Identity, Motion
from rednet_jax.data.synthetic.paint import Material, glasses, paint
from rednet_jax.data.synthetic.planes import Surface, computed_once, over, step
from rednet_jax.data.synthetic.scene import Scene, occluders, surroundings
from rednet_jax.data.synthetic.surface import Camera, implicit

_MARCH = 14
"""Samples on each ray between the front and the back of the face."""

_REFINE = 3
"""Steps of regula falsi on each ray."""

_FRONT, _BACK = 0.95, -0.25
"""Range of depths of the face's surface, along the camera's axis."""


def render(
    identity: Identity,
    motion: Motion,
    scene: Scene,
    features: Array,
    camera: Camera,
    grain: Array,
    size: int,
) -> Array:
    """Returns the image [S, S, 3] in [0, 1].

    Args:
        identity: with the expression, which moves the chin.
        motion: only the gaze is used.
        scene: light and surroundings.
        features: [51, 2], points 17 to 67 in the face's plane, with the expression.
        camera: with the head's pose.
        grain: key of the sensor's noise.
        size: S.
    """
    points, inside = _hit(identity, features, camera, size)
    normal = _normal(identity, features, points)
    material = paint(identity, motion, scene, features, points, 1 / camera.scale)
    light = camera.rotation.T @ scene.light
    shadow = _shadow(identity, features, points, light)
    lit = _light(scene, normal, light, camera.rotation[2], shadow, material)
    lit = glasses(identity, features, points, lit, 1 / camera.scale)
    image = surroundings(identity, scene, camera, size)
    image = over(image, step(inside, 1.5 / (camera.scale * identity.radii[0])), lit)
    image = occluders(scene, image, size)
    return _develop(scene, image, grain)


def _hit(identity: Identity, features: Array, camera: Camera, size: int) -> tuple[Surface, Array]:
    """Intersects the rays of all pixels with the head.

    Returns:
        Points of the head, (x, y, z), each [S, S], and the distance of the ray inside the outline,
        in half axes (below 0 if it misses the head), [S, S].
    """
    grid = (jnp.arange(size) - (size - 1) / 2) / camera.scale
    u, v = jnp.meshgrid(grid + camera.centre[0], grid + camera.centre[1])
    r = camera.rotation

    def at(depth: Array) -> Surface:
        # Sums of planes, since a matrix product would not be fused into the loop.
        shrink = 1 - depth / camera.distance
        seen = (u * shrink, v * shrink, depth)
        x, y, z = (seen[0] * r[0, i] + seen[1] * r[1, i] + seen[2] * r[2, i] for i in range(3))
        return x, y, z

    def value(depth: Array) -> Array:
        return implicit(identity, features, *at(depth))

    stride = (_FRONT - _BACK) / (_MARCH - 1)
    start = jnp.full((size, size), _FRONT)

    def march(i: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        before, above, below, low, nearest = carry
        depth = _FRONT - stride * i
        now = value(jnp.full_like(low, depth))
        first = (now < 0) & (below >= 0)
        return (
            now,
            jnp.where(first, before, above),
            jnp.where(first, now, below),
            jnp.where(first, depth, low),
            jnp.minimum(nearest, now),
        )

    far = jnp.full_like(start, jnp.inf)
    begin = (far, far, jnp.zeros_like(start), jnp.full_like(start, _BACK), far)
    _, above, below, low, nearest = jax.lax.fori_loop(0, _MARCH, march, begin)

    def between(high: Array, low: Array, above: Array, below: Array) -> Array:
        return low + (high - low) * jnp.clip(below / jnp.minimum(below - above, -1e-6), 0, 1)

    def refine(_: int, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        high, low, above, below = carry
        middle = 0.8 * between(*carry) + 0.1 * (high + low)
        now = value(middle)
        inside = now < 0
        return (
            jnp.where(inside, high, middle),
            jnp.where(inside, middle, low),
            jnp.where(inside, above, now),
            jnp.where(inside, now, below),
        )

    bracket = jax.lax.fori_loop(0, _REFINE, refine, (low + stride, low, above, below))
    return computed_once(at(between(*bracket))), -nearest


def _normal(identity: Identity, features: Array, points: Surface) -> Surface:
    """Returns the unit normals of the surface, as planes."""
    slope = jax.grad(lambda *p: implicit(identity, features, *p).sum(), (0, 1, 2))(*points)
    length = jnp.sqrt(slope[0] ** 2 + slope[1] ** 2 + slope[2] ** 2 + 1e-9)
    normal: Surface = computed_once(tuple(part / length for part in slope))
    return normal


def _shadow(identity: Identity, features: Array, points: Surface, light: Array) -> Array:
    """Returns the fraction of the main light at each point, with shadows of nose and brows."""
    x, y, z = points

    def nearer(i: Array, reached: Array) -> Array:
        away = 0.05 + 0.07 * i
        value = implicit(
            identity, features, x + away * light[0], y + away * light[1], z + away * light[2]
        )
        return jnp.minimum(reached, 1 + value / (0.2 * away))

    reached = jax.lax.fori_loop(0, 3, nearer, jnp.ones_like(x))
    return jnp.clip(reached, 0, 1)


def _light(
    scene: Scene,
    normal: Surface,
    light: Array,
    view: Array,
    shadow: Array,
    material: Material,
) -> Array:
    """Returns the shaded image; `light` and `view` are directions in the head's frame."""
    ambient, main, shine, wrap = scene.levels

    def along(direction: Array) -> Array:
        return normal[0] * direction[0] + normal[1] * direction[1] + normal[2] * direction[2]

    diffuse = jnp.maximum((along(light) + wrap) / (1 + wrap), 0) * (0.25 + 0.75 * shadow)
    # The sky is brighter than the ground.
    hemisphere = 0.75 - 0.25 * normal[1]
    half = (light + view) / jnp.linalg.norm(light + view)
    glint = jnp.maximum(along(half), 0) ** 24 * shine * material.gloss * shadow
    grazing = 0.75 + 0.25 * jnp.clip(along(view), 0, 1)
    sky = computed_once(ambient * hemisphere * material.open * grazing)[..., None]
    sun = computed_once(main * diffuse * (0.4 + 0.6 * material.open) * grazing)[..., None]
    lit: Array = material.colour * (sky + sun * scene.tint) + computed_once(glint)[..., None]
    return lit


def _develop(scene: Scene, image: Array, grain: Array) -> Array:
    """Converts linear light to the image: exposure, gamma, colour, contrast, focus and noise."""
    grade = scene.grade
    # Some shades are linear functions that become negative outside their region.
    image = jnp.maximum(image, 0)
    mean = jnp.maximum(image.mean(), 0.02)
    exposed = image * (1.4 * (0.18 + 0.35 * grade[0]) / mean ** (0.5 + 0.5 * grade[1]))
    # Highlights are compressed instead of clipped; the gamma is about a square root.
    encoded = jnp.sqrt(exposed / (1 + exposed))
    encoded = encoded * (1 + (0.3 - 0.5 * grade[2]) * (1 - encoded))
    grey = encoded @ jnp.array([0.299, 0.587, 0.114])
    colourful = jnp.where(grade[3] < 0.08, 0.0, 0.6 + 0.7 * grade[4])
    encoded = grey[..., None] + colourful * (encoded - grey[..., None])
    middle = encoded.mean()
    encoded = middle + (0.8 + 0.5 * grade[5]) * (encoded - middle)
    # Binomial filters at distances of one and two pixels; two of three images are blurred.
    weight = 0.25 * jnp.clip(1.5 * grade[6] - 0.3, 0, 1)
    for distance in (1, 2):
        for axis in (0, 1):
            edge = [(distance * (i == axis),) * 2 for i in range(3)]
            wide = jnp.pad(encoded, edge, mode="edge")
            size = encoded.shape[axis]
            before = jax.lax.slice_in_dim(wide, 0, size, axis=axis)
            after = jax.lax.slice_in_dim(wide, 2 * distance, 2 * distance + size, axis=axis)
            encoded = (1 - 2 * weight) * encoded + weight * (before + after)
        weight = weight * jnp.clip(3 * grade[6] - 2, 0, 1)
    noisy = encoded + 0.07 * grade[7] ** 2 * (jax.random.uniform(grain, encoded.shape) - 0.5) * 2
    return jnp.clip(noisy, 0, 1)
