"""Corrupted clips: bursts of frames in which the face is hard to see, or frames are dropped.

The corruption is a function of the seed, the clip's name and the frame's number only, so it does
not depend on the network, K or the order of reading. With one seed the bursts of all kinds are the
same frames. Labels remain those of the clean frames.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from rednet_jax.data.samples import ClipSample
from rednet_jax.errors import RednetError
from rednet_jax.fields import check_fields

Kind = Literal["occluder", "motion-blur", "dark", "low-resolution", "dropped", "mixed", "clean"]

BURST_KINDS: tuple[Kind, ...] = ("occluder", "motion-blur", "dark", "low-resolution", "dropped")
"""Kinds that a mixture draws from."""

SHORTEST, LONGEST = 5, 15
"""Range of the number of frames of a burst."""

LEAST_CLEAN, MOST_CLEAN = 20, 30
"""Range of the number of clean frames before each burst."""

AFTER = 10
"""Frames after a burst that are reported separately, since a tracker recovers in them."""

WEAKEST, STRONGEST = 0.05, 4.0

BAR = 0.25
"""Width of the occluder, in larger sides of the face's box."""

BAR_LENGTH = 2.0
"""Length of the occluder, in larger sides of the face's box: it extends beyond the face."""

BLUR = 0.2
"""Length of the motion blur's kernel, in larger sides of the face's box."""

LIGHT = 0.03
"""Fraction of the light that remains in dark frames."""

WHITE, READ_NOISE = 1000.0, 3.0
"""Electrons of a white pixel in full light, and standard deviation of the read noise, for a face
with a larger side of `DARK_FACE` pixels. The noise per pixel is proportional to that side, so that
faces of all sizes are equally noisy."""

DARK_FACE = 100.0

GAMMA = 2.2
"""Pixel values are the light to the power of 1 / GAMMA."""

FACE_PIXELS = 24.0
"""Pixels of the larger side of the face's box at low resolution."""

_TEXTURE = (256, 32)
"""Texels along and across the occluder."""


@dataclass(frozen=True)
class Corruption:
    """The corruption of a clip; as text KIND:STRENGTH:SEED.

    Attributes:
        kind: of every burst; 'mixed' draws a kind for each burst, 'clean' changes nothing, to
            measure the same frames without corruption.
        strength: factor on the occluder's width, on the length of the blur kernel, on the exponent
            of `LIGHT`, or on the reduction of the face's size; `WEAKEST` to `STRONGEST`. It must be
            1 for dropped or clean frames.
        seed: of all draws, 0 or more.
    """

    kind: Kind
    strength: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises RednetError for invalid values."""
        check_fields(self, "corrupt.")
        if not WEAKEST <= self.strength <= STRONGEST:
            raise RednetError(
                f"corrupt.strength: must be {WEAKEST:g} to {STRONGEST:g}, not {self.strength}"
            )
        if self.kind in ("dropped", "clean") and self.strength != 1:
            raise RednetError(f"corrupt.strength: must be 1 for {self.kind} frames")
        if self.seed < 0:
            raise RednetError(f"corrupt.seed: must be 0 or more, not {self.seed}")

    def __str__(self) -> str:
        """Returns the text that `parse_corruption` reads."""
        return f"{self.kind}:{self.strength!r}:{self.seed}"


class Burst(NamedTuple):
    """Frames `start` to `stop` - 1 of a clip, from 0, and the kind of their corruption."""

    start: int
    stop: int
    kind: Kind


def parse_corruption(text: str) -> Corruption:
    """Returns the corruption of a text KIND, KIND:STRENGTH or KIND:STRENGTH:SEED.

    Raises:
        RednetError: an unknown kind, or an invalid strength or seed.
    """
    kind, *numbers = text.split(":")
    try:
        strength_text, seed_text = [*numbers, *("1", "0")[len(numbers) :]]
        strength, seed = float(strength_text), int(seed_text)
    except ValueError:
        raise RednetError(
            f"corrupt: {text!r} does not have the form occluder, dark:0.5 or dark:1:7"
        ) from None
    return Corruption(cast(Kind, kind), strength, seed)


def bursts(corruption: Corruption, name: str, frames: int) -> list[Burst]:
    """Returns the bursts of a clip with this number of frames, in order.

    Each has `SHORTEST` to `LONGEST` frames, after at least `LEAST_CLEAN` clean frames. A burst that
    does not end within the clip is left out; a longer clip starts with the same bursts.
    """
    rng = np.random.default_rng([corruption.seed, _number(name)])
    planned: list[Burst] = []
    stop = 0
    while True:
        start = stop + int(rng.integers(LEAST_CLEAN, MOST_CLEAN + 1))
        stop = start + int(rng.integers(SHORTEST, LONGEST + 1))
        # Drawn for every kind, so that the bursts of all kinds are the same frames.
        drawn = BURST_KINDS[rng.integers(len(BURST_KINDS))]
        if stop > frames:
            return planned
        planned.append(Burst(start, stop, drawn if corruption.kind == "mixed" else corruption.kind))


def burst_parts(corruption: Corruption, name: str, frames: int) -> dict[str, NDArray[np.bool_]]:
    """Returns the masks of the frames within bursts, in the `AFTER` frames after one, and outside.

    Returns:
        `within`, `after` and `outside`, bool [T] each; every frame is in exactly one.
    """
    within, after = np.zeros((2, frames), bool)
    for start, stop, _ in bursts(corruption, name, frames):
        within[start:stop] = True
        after[stop : stop + AFTER] = True
    return {"within": within, "after": after, "outside": ~within & ~after}


def corrupted(corruption: Corruption, clip: ClipSample, frame: int) -> NDArray[np.uint8]:
    """Returns a frame of a clip with its corruption, uint8 [H, W, 3].

    Outside bursts the frame is unchanged. Sizes are relative to the box of the labelled face; for
    frames without labels the box is interpolated between labelled frames.

    Args:
        corruption: of the clip.
        clip: with a labelled frame.
        frame: index of the frame, from 0.

    Raises:
        ValueError: the frame is in a burst, but the clip has no labelled frame.
    """
    planned = bursts(corruption, clip.name, len(clip.valid))
    burst = next((b for b in planned if b.start <= frame < b.stop), None)
    if burst is None or burst.kind == "clean":
        return clip.images[frame]
    if burst.kind == "dropped":
        return clip.images[burst.start - 1]
    image, strength = clip.images[frame], corruption.strength
    side = _side(_box(clip, frame))
    burst_rng = np.random.default_rng([corruption.seed, _number(clip.name), burst.start])
    if burst.kind == "occluder":
        first, last = _box(clip, burst.start), _box(clip, burst.stop - 1)
        passed = (frame - burst.start) / (burst.stop - 1 - burst.start)
        return occlude(image, first, last, passed, burst_rng, strength)
    if burst.kind == "motion-blur":
        return motion_blur(image, strength * BLUR * side, burst_rng.uniform(0, np.pi))
    if burst.kind == "dark":
        frame_rng = np.random.default_rng([corruption.seed, _number(clip.name), frame, 1])
        return darken(image, LIGHT**strength, side / DARK_FACE, frame_rng)
    return reduce_resolution(image, FACE_PIXELS / (strength * side))


def occlude(
    image: NDArray[np.uint8],
    first: NDArray[np.floating],
    last: NDArray[np.floating],
    passed: float,
    rng: np.random.Generator,
    strength: float = 1.0,
) -> NDArray[np.uint8]:
    """Returns an image with a textured bar in front of the face.

    The bar moves at right angles to its length, in a random direction: from one border of the
    face's box in the first frame of a burst to the opposite border in the last frame.

    Args:
        image: uint8 [H, W, 3].
        first: box [4] of the face in the first frame, image pixels.
        last: box [4] of the face in the last frame, image pixels.
        passed: fraction of the path, 0 to 1.
        rng: of direction and texture; in the same state for every frame of a burst.
        strength: factor on the bar's width.
    """
    side = (_side(first) + _side(last)) / 2
    angle = rng.uniform(0, 2 * np.pi)
    across = np.array([np.cos(angle), np.sin(angle)])
    begin = _middle(first) - across * _side(first) / 2
    end = _middle(last) + across * _side(last) / 2
    middle = begin + passed * (end - begin)
    texture = _bar_texture(rng)
    # From image pixels to texels; the centres of both are at integers.
    along, wide = np.array([-across[1], across[0]]), strength * BAR * side
    rows, columns = texture.shape[:2]
    linear = np.stack([across * columns / wide, along * rows / (BAR_LENGTH * side)])
    offset = np.array([columns - 1, rows - 1]) / 2 - linear @ middle
    affine = np.concatenate([linear, offset[:, None]], axis=1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    bar = np.asarray(cv2.warpAffine(texture, affine, image.shape[1::-1], flags=flags), np.float32)
    # At the border of the bar, colour and opacity fall to 0 together.
    return np.asarray(np.rint(image * (1 - bar[..., 3:]) + bar[..., :3]), np.uint8)


def motion_blur(image: NDArray[np.uint8], length: float, angle: float) -> NDArray[np.uint8]:
    """Returns an image averaged along a line.

    Args:
        image: uint8 [H, W, 3].
        length: of the line, pixels.
        angle: of the line to the x axis, radians.
    """
    half = int(np.ceil(length / 2)) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    places = np.linspace(-length / 2, length / 2, 8 * half + 1)
    x, y = half + places * np.cos(angle), half + places * np.sin(angle)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for right in (0, 1):
        for below in (0, 1):
            weight = np.abs(1 - right - (x - left)) * np.abs(1 - below - (y - top))
            np.add.at(kernel, (top + below, left + right), weight)
    kernel /= kernel.sum()
    blurred = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(blurred, np.uint8)


def darken(
    image: NDArray[np.uint8], light: float, noise: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Returns an image as a sensor records it in low light: dark, with shot and read noise.

    Args:
        image: uint8 [H, W, 3].
        light: fraction of the light that remains.
        noise: factor on the noise's standard deviation.
        rng: of the noise.
    """
    electrons = (WHITE * light * (np.arange(256) / 255) ** GAMMA).astype(np.float32)[image]
    deviation = noise * np.sqrt(electrons + READ_NOISE**2)
    noisy = electrons + deviation * rng.standard_normal(image.shape, np.float32)
    values = 255 * (np.clip(noisy, 0, WHITE) / WHITE) ** (1 / GAMMA)
    return np.asarray(np.rint(values), np.uint8)


def reduce_resolution(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """Returns an image that was reduced by averaging and enlarged to its size by interpolation.

    Args:
        image: uint8 [H, W, 3].
        scale: factor of its sides; the image is unchanged if it is 1 or more.
    """
    if scale >= 1:
        return image
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _bar_texture(rng: np.random.Generator) -> NDArray[np.float32]:
    """Returns colour and opacity [R, C, 4] of the occluder: patches and grain on a cylinder."""
    rows, columns = _TEXTURE
    colour = np.broadcast_to(rng.uniform(50, 200, 3), (rows, columns, 3)).copy()
    for cell, deviation in ((32, 30.0), (8, 25.0), (2, 10.0)):
        noise = rng.normal(0, deviation, (rows // cell, max(2, columns // cell)))
        colour += cv2.resize(noise, (columns, rows), interpolation=cv2.INTER_CUBIC)[..., None]
    shade = 0.6 + 0.4 * np.sqrt(1 - np.linspace(-0.98, 0.98, columns) ** 2)
    colour = np.clip(colour, 0, 255) * shade[:, None]
    return np.concatenate([colour, np.ones((rows, columns, 1))], axis=-1).astype(np.float32)


def _box(clip: ClipSample, frame: int) -> NDArray[np.float64]:
    """Returns the face's box [4] in a frame, interpolated between labelled frames if unlabelled."""
    known = np.flatnonzero(clip.valid)
    return np.array([np.interp(frame, known, coordinate) for coordinate in clip.box[known].T])


def _side(box: NDArray[np.floating]) -> float:
    """Returns the larger side of a box."""
    return float((box[2:] - box[:2]).max())


def _middle(box: NDArray[np.floating]) -> NDArray[np.floating]:
    """Returns the centre of a box."""
    middle: NDArray[np.floating] = (box[:2] + box[2:]) / 2
    return middle


def _number(name: str) -> int:
    return zlib.crc32(name.encode())
