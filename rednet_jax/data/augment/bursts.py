"""Bursts of corrupted frames in training clips: stretches in which the face is hard to see."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from rednet_jax.errors import RednetError
from rednet_jax.fields import check_fields
from rednet_jax.landmarks.crops import compose_affine, warp

KINDS = ("occluder", "motion-blur", "dark", "low-resolution", "dropped")
"""As in `rednet_jax.evaluate.corrupt`, which draws them in another way for measurements."""

_BAR_LENGTH = 2.0
_TEXTURE = (16, 4)
_TAPS = 25
"""Copies that a motion blur averages."""

_RANGES = {
    "bar": (0.12, 0.4),
    "blur": (0.06, 0.3),
    "light": (0.01, 0.15),
    "noise": (0.02, 0.12),
    "face": (14.0, 40.0),
}
"""Widths of the occluder and lengths of the blur in sides of the face's box; share of the light
that is left; standard deviation of the noise, of the full range; pixels of the face's side in low
resolution."""

_GAMMA = 2.2


@dataclass(frozen=True)
class Bursts:
    """How often training clips have a burst of corrupted frames, and how long it is.

    One burst falls on a clip: an occluder that moves over the face, motion blur, darkness with
    noise, low resolution, or dropped frames, each as likely. It may begin before the clip's first
    frame or end after its last one. The labels stay those of the clean frames.

    Attributes:
        probability: of a burst in a clip; 0 switches bursts off.
        shortest: frames of a burst, at least.
        longest: frames of a burst, at most.

    Raises:
        RednetError: a probability outside [0, 1], or lengths that are not 1 <= shortest <= longest.
    """

    probability: float = 0.0
    shortest: int = 5
    longest: int = 15

    def __post_init__(self) -> None:
        """Refuses numbers out of range."""
        check_fields(self, "bursts.")
        if not 0 <= self.probability <= 1:
            raise RednetError(f"bursts.probability must be in [0, 1], not {self.probability}")
        if not 1 <= self.shortest <= self.longest:
            raise RednetError(
                "bursts need 1 <= shortest <= longest frames, not "
                f"{self.shortest} and {self.longest}"
            )


def add_bursts(config: Bursts, keys: Array, images: Array, warps: Array, *, margin: float) -> Array:
    """Returns clips [B, T, S, S, 3] with bursts of corrupted frames.

    Args:
        config: how often and how long.
        keys: typed keys [B], one per clip.
        images: float32 [B, T, S, S, 3] in [0, 1].
        warps: float32 [B, T, 2, 3], pixels of each frame's crop -> pixels of the crop before it.
        margin: side of the crop in sides of the face's box, which sizes are relative to.
    """
    size = images.shape[-2]
    side = size / margin

    def one(clip: tuple[Array, Array, Array]) -> Array:
        key, frames, moves = clip
        on, when, length, kind, how = jax.random.split(key, 5)
        count = len(frames)
        stretch = jax.random.randint(length, (), config.shortest, config.longest + 1)
        # Uniform over all places at which the burst meets the clip.
        start = jax.random.randint(when, (), 0, count + stretch - 1) - stretch + 1
        place = jnp.arange(count) - start
        corrupted = jax.lax.switch(
            jax.random.randint(kind, (), 0, len(KINDS)),
            (
                lambda: _occluded(how, frames, place / jnp.maximum(stretch - 1, 1), side),
                lambda: _blurred(how, frames, side),
                lambda: _darkened(how, frames),
                lambda: _reduced(how, frames, side),
                lambda: _held(frames, moves, start),
            ),
        )
        within = (place >= 0) & (place < stretch) & jax.random.bernoulli(on, config.probability)
        return jnp.where(within[:, None, None, None], corrupted, frames)

    # One clip after the other: under vmap every clip would be computed with every kind.
    corrupted: Array = jax.lax.map(one, (keys, images, warps))
    return corrupted


def _uniform(key: Array, name: str) -> Array:
    low, high = _RANGES[name]
    return jax.random.uniform(key, minval=low, maxval=high)


def _occluded(key: Array, frames: Array, passed: Array, side: float) -> Array:
    """A textured bar that crosses the face's box at right angles to its length.

    `passed` [T] is the share of its way in each frame.
    """
    turn, wide, colour, grain = jax.random.split(key, 4)
    size = frames.shape[1]
    angle = jax.random.uniform(turn, maxval=2 * jnp.pi)
    across = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    along = jnp.stack([-across[1], across[0]])
    width = _uniform(wide, "bar") * side
    rows, columns = _TEXTURE
    texture = jax.random.uniform(colour, (3,), minval=0.1, maxval=0.9) + 0.3 * (
        jax.random.uniform(grain, (rows, columns, 3)) - 0.5
    )
    texture = jnp.concatenate([jnp.clip(texture, 0, 1), jnp.ones((rows, columns, 1))], axis=-1)
    linear = jnp.stack([across * columns / width, along * rows / (_BAR_LENGTH * side)])

    def cover(frame: Array, share: Array) -> Array:
        middle = (size - 1) / 2 + across * (share - 0.5) * side
        centre = jnp.array([(columns - 1) / 2, (rows - 1) / 2])
        offset = centre - (linear * middle).sum(-1)
        bar = warp(texture, jnp.concatenate([linear, offset[:, None]], axis=1), (size, size))
        return frame * (1 - bar[..., 3:]) + bar[..., :3]

    covered: Array = jax.vmap(cover)(frames, passed)
    return covered


def _blurred(key: Array, frames: Array, side: float) -> Array:
    """The mean of copies shifted along a line; shifts are whole pixels."""
    turn, far = jax.random.split(key)
    angle = jax.random.uniform(turn, maxval=jnp.pi)
    reach = _RANGES["blur"][1] * side / 2
    border = int(reach) + 1
    padded = jnp.pad(frames, ((0, 0), (border, border), (border, border), (0, 0)), mode="edge")
    length = _uniform(far, "blur") * side

    def add(tap: Array, total: Array) -> Array:
        distance = length * (tap / (_TAPS - 1) - 0.5)
        x, y = (
            border + jnp.round(distance * part(angle)).astype(int) for part in (jnp.cos, jnp.sin)
        )
        return total + jax.lax.dynamic_slice(padded, (0, y, x, 0), frames.shape)

    total: Array = jax.lax.fori_loop(0, _TAPS, add, jnp.zeros_like(frames))
    return total / _TAPS


def _darkened(key: Array, frames: Array) -> Array:
    """Little light and the noise of a sensor, on top of a gamma curve."""
    left, loud, grain = jax.random.split(key, 3)
    light = _uniform(left, "light") * frames**_GAMMA
    noise = _uniform(loud, "noise") * jnp.sqrt(light + 0.05)
    noisy = jnp.clip(light + noise * jax.random.normal(grain, frames.shape), 0, 1)
    return noisy ** (1 / _GAMMA)


def _reduced(key: Array, frames: Array, side: float) -> Array:
    """Averaged over cells, and interpolated linearly between their centres."""
    size = frames.shape[1]
    cell = jnp.maximum(side / _uniform(key, "face"), 1)
    place = jnp.arange(size)
    # Weights [cell, pixel] of the mean, and [pixel, cell] of the interpolation.
    within = jnp.floor(place / cell) == place[:, None]
    mean = within / jnp.maximum(within.sum(1, keepdims=True), 1)
    cells = jnp.floor((size - 1) / cell)
    centre = jnp.clip((place + 0.5) / cell - 0.5, 0, cells)
    between = jnp.maximum(1 - jnp.abs(centre[:, None] - place), 0)
    weights = jnp.matmul(between, mean, precision=jax.lax.Precision.HIGHEST)
    return jnp.einsum("yi,xj,tijc->tyxc", weights, weights, frames)


def _held(frames: Array, warps: Array, start: Array) -> Array:
    """Every frame shows the one before the burst, resampled into its own crop."""
    source = jnp.clip(start - 1, 0, len(frames) - 1)

    def compose(into_source: Array, given: tuple[Array, Array]) -> tuple[Array, Array]:
        index, move = given
        identity = jnp.eye(2, 3, dtype=frames.dtype)
        composed = jnp.where(index > source, compose_affine(into_source, move), identity)
        return composed, composed

    begin = jnp.eye(2, 3, dtype=frames.dtype)
    _, affines = jax.lax.scan(compose, begin, (jnp.arange(len(frames)), warps))
    size = frames.shape[1]
    held = jax.vmap(lambda affine: warp(frames[source], affine, (size, size)))(affines)
    # A burst that begins before the clip has no frame to hold.
    return jnp.where(start > 0, held, frames)
