"""The reflectance of the head's surface: features, hair, beard and glasses."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from rednet_jax.data.synthetic.head import Identity, Motion, iris_centre
from rednet_jax.data.synthetic.planes import Surface, computed_once, curve, over, step
from rednet_jax.data.synthetic.scene import TEXTURE, Scene
from rednet_jax.landmarks.crops import sample_bilinear


class Material(NamedTuple):
    """Material of the surface at each pixel.

    Attributes:
        colour: [S, S, 3], reflectance.
        gloss: [S, S], factor on the specular light.
        open: [S, S], fraction of the ambient light, 0 (in a fold) to 1.
    """

    colour: Array
    gloss: Array
    open: Array


def paint(
    identity: Identity, motion: Motion, scene: Scene, features: Array, points: Surface, pixel: Array
) -> Material:
    """Returns the material of the head at each pixel.

    Args:
        identity: of the person; the style defines hairline, beard and make-up.
        motion: with the gaze.
        scene: with the noise for the texture of skin and hair.
        features: [51, 2], points 17 to 67 in the face's plane.
        points: of the surface, one per pixel, in the head's frame.
        pixel: side of a pixel, units of the head.
    """
    x, y, z = points
    soft = jnp.maximum(1.5 * pixel, 0.008)
    around = jnp.arctan2(x, z + 0.1)
    place = jnp.stack([(around / jnp.pi + 1) / 2, (y + 1.1) / 1.8], axis=-1) * (TEXTURE - 1)
    coarse, fine, strands = jnp.moveaxis(
        sample_bilinear(scene.texture, jnp.clip(place, 0, TEXTURE - 1)), -1, 0
    )
    style = identity.style
    rough = 0.03 + 0.06 * style[0]
    skin = identity.skin * (1 + rough * coarse + 0.6 * rough * fine)[..., None]
    # Redder cheeks and nose.
    blush = jnp.exp(-(((jnp.abs(x) - 0.24) / 0.1) ** 2) - ((y + 0.03) / 0.1) ** 2)
    skin = skin * (1 - 0.12 * style[1] * blush[..., None] * jnp.array([0.0, 1.0, 1.0]))
    grain = strands + fine
    bare = _beard(identity, features, x, y, coarse, grain, skin)
    material = _nose(features, x, y, Material(bare, jnp.ones_like(x), jnp.ones_like(x)))
    material = _mouth(identity, features, x, y, fine, material, soft)
    for side in range(2):
        material = _eye(identity, motion, features[19 + 6 * side :][:6], x, y, material, soft)
        brow = features[5 * side :][:5]
        colour = _brow(identity, brow, side == 0, x, y, grain, material.colour)
        material = material._replace(colour=colour)
    hair = _hair(identity, features, x, y, z, coarse, strands)
    shade = identity.hair * jnp.exp(0.35 * strands + 0.15 * coarse)[..., None]
    front = step(z - 0.05, 0.1)
    shadow = jnp.exp(-(jnp.maximum(-hair, 0) / 0.05)) * 0.35 * (1 - step(hair, 0.02)) * front
    covered = step(hair + 0.02 * strands, 0.05)
    return Material(
        over(material.colour, covered, shade),
        material.gloss * (1 - 0.7 * covered),
        material.open * (1 - shadow),
    )


def _hair(
    identity: Identity, features: Array, x: Array, y: Array, z: Array, coarse: Array, strands: Array
) -> Array:
    """Returns the depth of points inside the hair, units of the head; below 0 outside."""
    style = identity.style
    brow = features[:10, 1].mean()
    # From receding to fringed; a tenth of the heads is bald.
    line = brow - 0.34 + 0.26 * style[2] ** 2 - 0.6 * (style[3] < 0.1)
    parting = 0.08 * (style[4] - 0.5) * jnp.tanh(8 * (x - 0.2 * (style[4] - 0.5)))
    top = line + parting + 0.5 * x**2 * (style[5] - 0.3) + 0.02 * coarse - y
    # Sides: behind the temples; long hair covers ears and cheeks.
    long = style[6] > 0.6
    reach = jnp.where(long, 0.5 * style[7], -0.22 + 0.2 * style[7])
    temple = 0.02 + 0.2 * style[8] * long - 0.02 * coarse - z - 0.15 * jnp.maximum(y + 0.3, 0)
    sides = jnp.minimum(temple + jnp.where(style[3] < 0.1, -1.0, 0.0), reach - y)
    return jnp.maximum(top, sides)


def _beard(
    identity: Identity,
    features: Array,
    x: Array,
    y: Array,
    coarse: Array,
    grain: Array,
    colour: Array,
) -> Array:
    """Returns the colour with a full beard, a chin beard, a moustache, stubble, or none."""
    style = identity.style
    mouth = features[31:]
    wide = jnp.abs(mouth[jnp.array([0, 6]), 0]).mean()
    lip, nose = mouth[3, 1], features[16, 1]
    # The upper border descends from the ears to the corners of the mouth.
    edge = mouth[0, 1] - 0.02 - 1.1 * jnp.maximum(jnp.abs(x) - wide, 0) + 0.02 * coarse
    jaw = step(y - edge, 0.06) * step(
        jnp.abs(x) + jnp.maximum(y - lip - 0.06, 0) - 0.6 * wide, 0.06
    )
    chin = step(y - mouth[9, 1] - 0.05, 0.05) * step(0.12 + 0.5 * style[9] - jnp.abs(x), 0.06)
    moustache = step(y - nose - 0.02, 0.03) * step(lip + 0.03 - y, 0.03)
    moustache = moustache * step(wide + 0.03 - jnp.abs(x), 0.05)
    mask = jnp.maximum(jaw * (style[10] < 0.22), chin * (style[10] < 0.3))
    mask = jnp.maximum(mask, moustache * ((style[10] < 0.2) | (style[11] < 0.1)))
    thick = 0.2 + 0.7 * style[9]
    shade = identity.hair * 1.3 * jnp.exp(0.3 * grain)[..., None]
    return over(colour, mask * jnp.clip(thick * (1 + 0.3 * grain), 0, 1), shade)


def _nose(features: Array, x: Array, y: Array, material: Material) -> Material:
    """Returns the material with nostrils, and the folds beside and below the nose."""
    base, wing = features[16, 1], jnp.abs(features[jnp.array([14, 18]), 0]).mean()
    away = ((jnp.abs(x) - 0.5 * wing) / (0.24 * wing)) ** 2 + ((y - base + 0.010) / 0.012) ** 2
    hole = step(1 - away, 0.9)
    # The crease between wing and cheek, and the fold to the corner of the mouth.
    crease = jnp.exp(
        -(((jnp.abs(x) - wing - 0.006) / 0.012) ** 2) - ((y - base + 0.04) / 0.03) ** 2
    )
    corner = features[31:][jnp.array([0, 6])]
    corner_x, corner_y = jnp.abs(corner[:, 0]).mean(), corner[:, 1].mean()
    slope = (corner_x - wing + 0.02) / jnp.maximum(corner_y - base, 0.05)
    fold_x = wing + 0.02 + (y - base) * slope
    fold = jnp.exp(-(((jnp.abs(x) - fold_x) / 0.015) ** 2) - ((y - base - 0.05) / 0.08) ** 2)
    under = jnp.exp(-((x / wing) ** 2) - ((y - base - 0.005) / 0.02) ** 2)
    folds = (1 - 0.45 * crease) * (1 - 0.18 * fold) * (1 - 0.25 * under)
    return material._replace(
        colour=material.colour * computed_once(1 - 0.85 * hole)[..., None],
        open=computed_once(material.open * folds),
    )


def _mouth(
    identity: Identity,
    features: Array,
    x: Array,
    y: Array,
    fine: Array,
    material: Material,
    soft: Array,
) -> Material:
    """Returns the material with lips between their points, and teeth in an open mouth."""
    mouth = features[31:]
    upper_out = curve(mouth[:7], x)
    lower_out = curve(mouth[jnp.array([0, 11, 10, 9, 8, 7, 6])], x)
    upper_in = curve(mouth[12:17], x)
    lower_in = curve(mouth[jnp.array([12, 19, 18, 17, 16])], x)
    within = step(x - mouth[0, 0], soft) * step(mouth[6, 0] - x, soft)
    lips = step(y - upper_out, soft) * step(lower_out - y, soft) * within
    wide = step(x - mouth[12, 0], soft) * step(mouth[16, 0] - x, soft)
    gap = step(y - upper_in, soft) * step(lower_in - y, soft) * wide
    # The upper lip faces down, so it is darker than the lower lip.
    tone = jnp.where(y < (upper_in + lower_in) / 2, 0.8, 1.08) * (1 + 0.06 * fine)
    colour = over(material.colour, 0.9 * lips, identity.lips * tone[..., None])
    line = jnp.exp(-(((y - upper_in) / 0.007) ** 2)) * within
    depth = (y - upper_in) / jnp.maximum(lower_in - upper_in, 1e-3)
    teeth = step(0.045 - (y - upper_in), 0.012) * step(
        jnp.abs(mouth[0, 0]) * 0.85 - jnp.abs(x), 0.05
    )
    show = (identity.style[12] < 0.75) * jnp.clip(1.2 - 1.5 * depth * (depth > 0.8), 0, 1)
    inner = jnp.array([0.07, 0.025, 0.02]) + 0.03 * jnp.clip(depth, 0, 1)[..., None]
    inner = over(inner, teeth * show, jnp.array([0.62, 0.58, 0.5]) * (1 + 0.1 * fine)[..., None])
    colour = over(colour, gap, inner)
    return material._replace(
        colour=colour * computed_once(1 - 0.6 * line * (1 - 0.7 * gap))[..., None],
        gloss=material.gloss * (1 + 0.3 * lips) * (1 - gap),
    )


def _eye(
    identity: Identity,
    motion: Motion,
    points: Array,
    x: Array,
    y: Array,
    material: Material,
    soft: Array,
) -> Material:
    """Returns the material with one eye of points [6, 2]: eyeball, lashes, and folds around it."""
    p = points
    low = p[jnp.array([0, 5, 4, 3])]
    # Rounded, since a lid has only two points between the corners.
    upper, lower = curve(p[:4], x, 0.03), curve(low, x, 0.03)
    width = p[3, 0] - p[0, 0]
    middle = (p[0] + p[3]) / 2
    within = step(x - p[0, 0], soft) * step(p[3, 0] - x, soft)
    near = jnp.exp(-(((x - middle[0]) / (0.62 * width)) ** 4))
    # The fold of the lid, the shade of the socket, the bag below the eye.
    above = upper - y
    fold = jnp.exp(-(((above - 0.03) / 0.009) ** 2)) * near
    socket = jnp.exp(-(((above - 0.012) / 0.035) ** 2)) * near
    bag = jnp.exp(-(((y - lower - 0.035) / 0.012) ** 2)) * near
    folds = (1 - 0.3 * fold) * (1 - 0.22 * socket) * (1 - 0.12 * bag)
    ball = step(y - upper, soft) * step(lower - y, soft) * within
    centre = iris_centre(p, motion.gaze)
    r = jnp.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2)
    radius = 0.215 * width
    white = jnp.array([0.6, 0.56, 0.53]) * (1 - 0.5 * ((x - middle[0]) / width)[..., None] ** 2)
    iris = identity.iris * jnp.where(r > 0.8 * radius, 0.6, 1.0)[..., None]
    sight = over(white, step(radius - r, soft), iris)
    sight = over(sight, step(0.42 * radius - r, soft), jnp.full(3, 0.01))
    # The shade of the lid on the eyeball, and the specular highlight.
    sight = sight * (0.45 + 0.55 * jnp.clip((y - upper) / 0.035, 0, 1))[..., None]
    glint = jnp.exp(-((x - centre[0] - 0.012) ** 2 + (y - centre[1] + 0.012) ** 2) / 0.006**2)
    sight = sight + 0.8 * glint[..., None]
    colour = over(material.colour, ball, sight)
    made_up = 0.5 + 0.5 * identity.style[13]
    lash = jnp.exp(-(((y - upper + 0.002) / 0.0095) ** 2)) * within * made_up
    rim = jnp.exp(-(((y - lower - 0.003) / 0.006) ** 2)) * within * 0.4
    return Material(
        colour * computed_once((1 - 0.85 * lash) * (1 - rim))[..., None],
        material.gloss * (1 - ball),
        material.open * folds,
    )


def _brow(
    identity: Identity, p: Array, right: bool, x: Array, y: Array, grain: Array, colour: Array
) -> Array:
    """Returns the colour with a brow along points [5, 2], thinner towards the temple."""
    line = curve(p, x, 0.03)
    along = (x - p[0, 0]) / (p[4, 0] - p[0, 0])
    inner = along if right else 1 - along
    thick = (0.028 + 0.03 * identity.style[14]) * (0.45 + 0.55 * jnp.clip(inner * 1.6, 0, 1))
    # The points are on the upper half of the brow.
    across = (y - line - 0.25 * thick) / (0.55 * thick)
    ends = step(along + 0.02, 0.1) * step(1.02 - along, 0.1)
    mask = jnp.exp(-(across**4)) * ends * (0.55 + 0.45 * identity.style[15])
    shade = 0.8 * identity.hair + 0.06 * identity.skin
    return over(colour, mask * jnp.clip(1 + 0.25 * grain, 0, 1.2), shade)


def glasses(
    identity: Identity, features: Array, points: Surface, lit: Array, pixel: Array
) -> Array:
    """Returns the lit image [S, S, 3] with clear or dark glasses on about one face in six."""
    style = identity.style
    x, y, z = points
    # The fractional part of the sum of two uniform draws is another uniform draw.
    worn = (style[0] + style[9]) % 1 < 0.18
    dark = (style[1] + style[8]) % 1 < 0.3
    eyes = features[19:31].reshape(2, 6, 2).mean(1)
    cx, cy = jnp.abs(eyes[:, 0]).mean() + 0.005, eyes[:, 1].mean() + 0.02
    half_x, half_y = 0.125 + 0.03 * style[5], 0.075 + 0.05 * style[4]
    across, along = ((jnp.abs(x) - cx) / half_x) ** 2, ((y - cy) / half_y) ** 2
    # From an ellipse to almost a box.
    roundness = 2 * style[7] - 0.8
    r = jnp.sqrt(jnp.sqrt(across**2 + along**2 + roundness * across * along + 1e-6))
    width = 0.04 + 0.16 * style[13]
    frame = step(width / 2 - jnp.abs(r - 1), pixel * 12)
    bridge = step(0.012 - jnp.abs(y - cy + 0.03), 0.01) * step(cx - half_x - jnp.abs(x), 0.02)
    arm = step(0.012 - jnp.abs(y - cy + 0.03), 0.01) * step(jnp.abs(x) - cx - half_x, 0.02)
    metal = jnp.array([0.03, 0.025, 0.025]) + 0.3 * (style[2] < 0.25)
    lens = step(1 - r, 0.15)
    sheen = 0.1 * style[3] + 0.1 * jnp.clip(-(y - cy) / half_y, 0, 1) * style[6]
    seen = jnp.where(dark, 0.06, 0.92) * lit + sheen[..., None] * jnp.where(dark, 1.0, 0.6)
    shown = worn * step(z + 0.1, 0.1)
    lit = over(lit, lens * shown, seen)
    return over(lit, jnp.maximum(jnp.maximum(frame, bridge), arm) * shown, metal)
