"""The scene around the face: light, background, neck, ears, hair behind the head, occluders."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rednet_jax.data.synthetic.head import Identity
from rednet_jax.data.synthetic.planes import clouds, computed_once, over, step
from rednet_jax.data.synthetic.surface import Camera, project

TEXTURE = 128
"""Side of the noise that is wrapped around the head."""


class Scene(NamedTuple):
    """The scene around the face, constant over a clip.

    Attributes:
        light: [3], unit vector towards the main light, camera's frame.
        levels: [4], strengths of ambient light, main light, gloss, and wrap-around of the light.
        tint: [3], colour of the main light.
        texture: [T, T, 3], noise around the head: coarse, fine, strands; about N(0, 1).
        background: [S, S, 3], linear RGB.
        clothes: [3], linear RGB.
        occluder: [2, 9]: shown, centre, half axes, angle (image sides), colour.
        grade: [8], the camera's exposure, contrast, and the like, uniform in [0, 1].
    """

    light: Array
    levels: Array
    tint: Array
    texture: Array
    background: Array
    clothes: Array
    occluder: Array
    grade: Array


def draw_scene(key: Array, size: int, occlusion: float) -> Scene:
    """Draws light, background and occluders.

    Args:
        key: of the draw.
        size: S, pixels.
        occlusion: probability of each of two occluders.
    """
    # One call for all numbers of a distribution, since calls are slow to compile.
    plain, rough, behind = jax.random.split(key, 3)
    u = jax.random.uniform(plain, (36,))
    n = jax.random.normal(rough, (TEXTURE**2 + 14 * TEXTURE + 32**2 + 12**2 + 3,))
    direction = n[:3] * jnp.array([0.9, 0.5, 0.4]) + jnp.array([0, -0.5, 0.8])
    levels = jnp.array([0.2, 0.45, 0.0, 0.0]) + u[:4] * jnp.array([0.4, 0.75, 0.35, 0.5])
    coarse, middle, strands, fine = jnp.split(
        n[3:], [12**2, 12**2 + 32**2, 12**2 + 32**2 + 14 * TEXTURE]
    )
    texture = jnp.stack(
        [
            clouds(coarse.reshape(12, 12), TEXTURE) + 0.7 * clouds(middle.reshape(32, 32), TEXTURE),
            fine.reshape(TEXTURE, TEXTURE),
            clouds(strands.reshape(14, TEXTURE), TEXTURE),
        ],
        axis=-1,
    )
    shapes = u[10:28].reshape(2, 9)
    colour = shapes[:, 6:] ** 2
    occluder = jnp.concatenate(
        [
            shapes[:, :1] < occlusion,
            1.1 * shapes[:, 1:3] - 0.05,
            0.04 + 0.24 * shapes[:, 3:5],
            jnp.pi * shapes[:, 5:6],
            0.5 * colour + 0.5 * colour.mean(-1, keepdims=True),
        ],
        axis=1,
    )
    return Scene(
        light=direction / jnp.linalg.norm(direction),
        levels=levels,
        tint=1 + 0.15 * (2 * u[4:7] - 1),
        texture=texture,
        background=_background(behind, size),
        clothes=u[7:10] ** 2.5,
        occluder=occluder,
        grade=u[28:36],
    )


def _background(key: Array, size: int) -> Array:
    """Returns [S, S, 3]: noise between two colours, a gradient, and a few hard-edged shapes."""
    plain, rough = jax.random.split(key)
    u = jax.random.uniform(plain, (50,))
    cells = (3, 7, 20, 60)
    n = jax.random.normal(rough, (sum(count**2 for count in cells),))
    sky = jnp.zeros((size, size))
    for i, count in enumerate(cells):
        part, n = n[: count**2], n[count**2 :]
        sky = sky + 1.3 * clouds(part.reshape(count, count), size) * 0.8**i
    colours = u[:18].reshape(6, 3) ** 1.8
    dull = 0.75 * u[18:24, None] ** 0.5
    colours = colours + dull * (colours.mean(-1, keepdims=True) - colours)
    y, x = jnp.mgrid[:size, :size] / size
    mix = jax.nn.sigmoid(1.5 * u[24] * sky + 3 * (x - 0.5) * (u[25] - 0.5))
    image = over(jnp.broadcast_to(colours[0], (size, size, 3)), mix, colours[1])

    def add(image: Array, shape: tuple[Array, Array]) -> tuple[Array, None]:
        colour, (cx, cy, width, height, angle, shown) = shape
        cosine, sine = jnp.cos(3 * angle), jnp.sin(3 * angle)
        across = jnp.abs((x - cx) * cosine + (y - cy) * sine) / (0.02 + 0.4 * width**2)
        along = jnp.abs((y - cy) * cosine - (x - cx) * sine) / (0.05 + 0.6 * height)
        mask = step(1 - jnp.maximum(across, along), 0.1) * (shown < 0.6)
        return over(image, mask, colour * computed_once(1 + 0.2 * sky)[..., None]), None

    image, _ = jax.lax.scan(add, image, (colours[2:], u[26:50].reshape(4, 6)))
    return jnp.maximum(image, 0)


def surroundings(identity: Identity, scene: Scene, camera: Camera, size: int) -> Array:
    """Returns [S, S, 3]: background, shoulders, hair behind the head, neck and ears."""
    style = identity.style
    grid = (jnp.arange(size) - (size - 1) / 2) / camera.scale
    x, y = jnp.meshgrid(grid + camera.centre[0], grid + camera.centre[1])
    soft = 1.5 / camera.scale
    ambient, main = scene.levels[0], scene.levels[1]
    flat = ambient + 0.5 * main
    image = scene.background

    def at(*point: float | Array) -> Array:
        return project(camera, jnp.stack([jnp.asarray(value, jnp.float32) for value in point]))

    def turned(centre: Array) -> tuple[Array, Array]:
        """Returns offsets from a centre along the projected axes of the head."""
        axis = camera.rotation[:2, 1] / jnp.linalg.norm(camera.rotation[:2, 1])
        dx, dy = x - centre[0], y - centre[1]
        return dx * axis[1] - dy * axis[0], dx * axis[0] + dy * axis[1]

    # Hair behind the head.
    dx, dy = turned(at(0.0, -0.3, -0.15))
    long = style[6] > 0.6
    volume = 1.04 + 0.25 * style[10]
    wide, high = identity.radii[0] * volume, identity.radii[1] * (0.95 + 0.15 * style[11])
    below = jnp.clip(dy / (0.5 + 0.9 * style[7]), 0, 2)
    cap = 1 - jnp.sqrt((dx / wide) ** 2 + jnp.where(dy < 0, (dy / high) ** 2, below**4))
    cap = jnp.where(long | (dy < 0), cap, 1 - jnp.sqrt((dx / wide) ** 2 + (dy / 0.6) ** 2))
    lines = jnp.sin(90 * dx / (1 + 0.3 * dy**2) + 10 * style[5]) * 0.25
    mask = step(cap, soft / wide) * (style[3] > 0.1)
    back = identity.hair * (flat * (0.75 + lines - 0.5 * cap))[..., None]
    # Neck, and shoulders below it.
    top = at(0.0, 0.15, -0.1)
    neck_x = x - top[0] * 0.6
    half = 0.27 + 0.06 * style[12]
    lean = scene.light[0]
    body = y - top[1] - 0.42 - 0.35 * neck_x**2 - 0.08 * jnp.abs(neck_x)
    cloth = scene.clothes * (flat * (0.8 + 0.5 * lean * neck_x))[..., None]
    round_ = jnp.clip(neck_x / half, -1, 1)
    shade = 0.55 + 0.5 * lean * round_ - 0.3 * round_**2
    under = 0.55 + 0.45 * jnp.clip((y - top[1] - 0.3) / 0.3, 0, 1)
    neck = identity.skin * (flat * jnp.maximum(shade * under, 0.05))[..., None]
    image = over(image, mask, back)
    image = over(image, step(body, soft), cloth)
    throat = step(half - jnp.abs(neck_x) + 0.3 * jnp.maximum(y - top[1] - 0.4, 0), soft)
    image = over(image, throat * step(y - top[1], soft) * step(0.75 - (y - top[1]), soft), neck)
    for side in (-1.0, 1.0):
        dx, dy = turned(at(side * identity.radii[0] * 0.99, -0.2, -0.08))
        r = jnp.sqrt((dx / 0.06) ** 2 + ((dy + 0.02) / 0.125) ** 2)
        tone = flat * (0.85 - 0.45 * jnp.exp(-(((r - 0.55) / 0.2) ** 2)) + 0.3 * lean * side)
        ear = identity.skin * jnp.array([1.0, 0.9, 0.88]) * jnp.maximum(tone, 0.05)[..., None]
        shown = ~(long & (style[8] > 0.3))
        image = over(image, step(1 - r, soft / 0.06) * shown, ear)
    return image


def occluders(scene: Scene, image: Array, size: int) -> Array:
    """Returns the image [S, S, 3] with the occluders that are shown."""
    y, x = jnp.mgrid[:size, :size] / size
    grain = clouds(scene.texture[:32, :32, 1], size)

    def add(image: Array, shape: Array) -> tuple[Array, None]:
        shown, cx, cy, width, height, angle = shape[:6]
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        across = ((x - cx) * cosine + (y - cy) * sine) / width
        along = ((y - cy) * cosine - (x - cx) * sine) / height
        r = across**4 + along**4 + (4 * shape[6] - 0.8) * (across * along) ** 2
        colour = shape[6:] * computed_once(1 + 0.3 * across + 0.12 * grain)[..., None]
        return over(image, shown * step(1 - r, 0.2), colour), None

    return jax.lax.scan(add, image, scene.occluder)[0]
