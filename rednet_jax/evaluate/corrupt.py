"""Corrupted clips: bursts of frames in which the face is hard to see, or not shown at all.

Which frames are corrupted, and how, follows from the seed, the clip's name and the frame's number
alone, so that every network, K and order of reading sees the same pixels. With one seed the bursts
of every kind are the same frames. Labels stay those of the clean frames.
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
"""Those that a mixture draws from."""

SHORTEST, LONGEST = 5, 15
"""Frames of a burst."""

LEAST_CLEAN, MOST_CLEAN = 20, 30
"""Clean frames before the first burst and between two."""

AFTER = 10
"""Frames after a burst in which a tracker recovers."""

WEAKEST, STRONGEST = 0.05, 4.0

BAR = 0.25
"""Width of the occluder, in larger sides of the face's box."""

BAR_LENGTH = 2.0
"""Length of the occluder, in larger sides of the face's box: its ends lie beside the face."""

BLUR = 0.2
"""Length of the motion blur's kernel, in larger sides of the face's box."""

LIGHT = 0.03
"""Share of the light that is left in darkness."""

WHITE, READ_NOISE = 1000.0, 3.0
"""Electrons of a white pixel in full light, and the standard deviation that reading adds, where the
larger side of the face's box has `DARK_FACE` pixels. The noise of a pixel grows with that side, so
that faces of every size have as much noise."""

DARK_FACE = 100.0

GAMMA = 2.2
"""Pixel values are light to the power of its inverse."""

FACE_PIXELS = 24.0
"""Larger side of the face's box in low resolution."""

_TEXTURE = (256, 32)
"""Cells along and across the occluder."""


@dataclass(frozen=True)
class Corruption:
    """What is done to a clip; as text KIND:STRENGTH:SEED.

    Attributes:
        kind: of every burst; 'mixed' draws one for each, 'clean' changes nothing and gives the
            figures of the same frames to compare with.
        strength: factor on the occluder's width, on the length of the blur's kernel, on the
            exponent of the light that is left, and on how many times smaller the face becomes.
            `WEAKEST` to `STRONGEST`; 1 where frames are dropped or clean.
        seed: of every draw, 0 or more.
    """

    kind: Kind
    strength: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what has no meaning."""
        check_fields(self, "corrupt.")
        if not WEAKEST <= self.strength <= STRONGEST:
            raise RednetError(
                f"corrupt.strength: must be {WEAKEST:g} to {STRONGEST:g}, not {self.strength}"
            )
        if self.kind in ("dropped", "clean") and self.strength != 1:
            raise RednetError(f"corrupt.strength: {self.kind} frames have none")
        if self.seed < 0:
            raise RednetError(f"corrupt.seed: must be 0 or more, not {self.seed}")

    def __str__(self) -> str:
        """Returns what `parse_corruption` reads."""
        return f"{self.kind}:{self.strength!r}:{self.seed}"


class Burst(NamedTuple):
    """Frames `start` to `stop` - 1 of a clip, from 0, and what is done to them."""

    start: int
    stop: int
    kind: Kind


def parse_corruption(text: str) -> Corruption:
    """Returns the corruption of a text KIND, KIND:STRENGTH or KIND:STRENGTH:SEED.

    Raises:
        RednetError: an unknown kind, or a strength or a seed that is none.
    """
    kind, *numbers = text.split(":")
    try:
        given, of = [*numbers, *("1", "0")[len(numbers) :]]
        strength, seed = float(given), int(of)
    except ValueError:
        raise RednetError(f"corrupt: {text!r} is not like occluder, dark:0.5 or dark:1:7") from None
    return Corruption(cast(Kind, kind), strength, seed)


def bursts(corruption: Corruption, name: str, frames: int) -> list[Burst]:
    """Returns the bursts of a clip of so many frames, in order; a longer clip begins with the same.

    Each has `SHORTEST` to `LONGEST` frames, and at least `LEAST_CLEAN` clean ones before it. One
    that would not end within the clip is left out.
    """
    rng = np.random.default_rng([corruption.seed, _number(name)])
    planned: list[Burst] = []
    stop = 0
    while True:
        start = stop + int(rng.integers(LEAST_CLEAN, MOST_CLEAN + 1))
        stop = start + int(rng.integers(SHORTEST, LONGEST + 1))
        # Drawn for every kind, so that each has bursts in the same frames.
        drawn = BURST_KINDS[rng.integers(len(BURST_KINDS))]
        if stop > frames:
            return planned
        planned.append(Burst(start, stop, drawn if corruption.kind == "mixed" else corruption.kind))


def burst_parts(corruption: Corruption, name: str, frames: int) -> dict[str, NDArray[np.bool_]]:
    """Returns which frames [T] lie within bursts, in the `AFTER` frames after one, and outside.

    Returns:
        `within`, `after` and `outside`, bool [T] each; a frame is in one of them.
    """
    within, after = np.zeros((2, frames), bool)
    for start, stop, _ in bursts(corruption, name, frames):
        within[start:stop] = True
        after[stop : stop + AFTER] = True
    return {"within": within, "after": after, "outside": ~within & ~after}


def corrupted(corruption: Corruption, clip: ClipSample, frame: int) -> NDArray[np.uint8]:
    """Returns a frame of a clip, uint8 [H, W, 3], as the corruption shows it.

    Outside of bursts it is the clip's own. Sizes are relative to the box of the labelled face; in
    frames without labels it is interpolated between those with labels.

    Args:
        corruption: what is done.
        clip: with a labelled frame.
        frame: number of the frame, from 0.

    Raises:
        ValueError: a frame in a burst of a clip without any labelled frame.
    """
    planned = bursts(corruption, clip.name, len(clip.valid))
    burst = next((one for one in planned if one.start <= frame < one.stop), None)
    if burst is None or burst.kind == "clean":
        return clip.images[frame]
    if burst.kind == "dropped":
        return clip.images[burst.start - 1]
    image, strength = clip.images[frame], corruption.strength
    side = _side(_box(clip, frame))
    of_burst = np.random.default_rng([corruption.seed, _number(clip.name), burst.start])
    if burst.kind == "occluder":
        first, last = _box(clip, burst.start), _box(clip, burst.stop - 1)
        passed = (frame - burst.start) / (burst.stop - 1 - burst.start)
        return occlude(image, first, last, passed, of_burst, strength)
    if burst.kind == "motion-blur":
        return motion_blur(image, strength * BLUR * side, of_burst.uniform(0, np.pi))
    if burst.kind == "dark":
        of_frame = np.random.default_rng([corruption.seed, _number(clip.name), frame, 1])
        return darken(image, LIGHT**strength, side / DARK_FACE, of_frame)
    return reduce_resolution(image, FACE_PIXELS / (strength * side))


def occlude(
    image: NDArray[np.uint8],
    first: NDArray[np.floating],
    last: NDArray[np.floating],
    passed: float,
    rng: np.random.Generator,
    strength: float = 1.0,
) -> NDArray[np.uint8]:
    """Returns an image with a textured bar before the face.

    The bar moves at right angles to its length, in a direction that is drawn: from one border of
    the face's box, where the face is in the first frame, to the opposite border in the last one.

    Args:
        image: uint8 [H, W, 3].
        first: box [4] of the face in the first frame, image pixels.
        last: in the last one.
        passed: share of the way, 0 to 1.
        rng: draws direction and texture, the same for every frame of a burst.
        strength: factor on the bar's width.
    """
    side = (_side(first) + _side(last)) / 2
    angle = rng.uniform(0, 2 * np.pi)
    across = np.array([np.cos(angle), np.sin(angle)])
    begin = _middle(first) - across * _side(first) / 2
    end = _middle(last) + across * _side(last) / 2
    middle = begin + passed * (end - begin)
    texture = _bar_texture(rng)
    # From image pixels to cells of the texture, whose centres lie at integers, too.
    along, wide = np.array([-across[1], across[0]]), strength * BAR * side
    rows, columns = texture.shape[:2]
    linear = np.stack([across * columns / wide, along * rows / (BAR_LENGTH * side)])
    offset = np.array([columns - 1, rows - 1]) / 2 - linear @ middle
    affine = np.concatenate([linear, offset[:, None]], axis=1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    bar = np.asarray(cv2.warpAffine(texture, affine, image.shape[1::-1], flags=flags), np.float32)
    # Where the bar ends, colour and opacity fall to 0 together.
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
    """Returns an image as a sensor sees it in little light: dark, with shot and read noise.

    Args:
        image: uint8 [H, W, 3].
        light: share of the light that is left.
        noise: factor on its standard deviation.
        rng: draws the noise.
    """
    electrons = (WHITE * light * (np.arange(256) / 255) ** GAMMA).astype(np.float32)[image]
    deviation = noise * np.sqrt(electrons + READ_NOISE**2)
    noisy = electrons + deviation * rng.standard_normal(image.shape, np.float32)
    values = 255 * (np.clip(noisy, 0, WHITE) / WHITE) ** (1 / GAMMA)
    return np.asarray(np.rint(values), np.uint8)


def reduce_resolution(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """Returns an image, made smaller by averaging and as large as before by interpolation.

    Args:
        image: uint8 [H, W, 3].
        scale: factor of its sides; from 1 on the image stays as it is.
    """
    if scale >= 1:
        return image
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _bar_texture(rng: np.random.Generator) -> NDArray[np.float32]:
    """Colour and opacity [R, C, 4] of the occluder: patches and grain on a round surface."""
    rows, columns = _TEXTURE
    colour = np.broadcast_to(rng.uniform(50, 200, 3), (rows, columns, 3)).copy()
    for cell, deviation in ((32, 30.0), (8, 25.0), (2, 10.0)):
        noise = rng.normal(0, deviation, (rows // cell, max(2, columns // cell)))
        colour += cv2.resize(noise, (columns, rows), interpolation=cv2.INTER_CUBIC)[..., None]
    shade = 0.6 + 0.4 * np.sqrt(1 - np.linspace(-0.98, 0.98, columns) ** 2)
    colour = np.clip(colour, 0, 255) * shade[:, None]
    return np.concatenate([colour, np.ones((rows, columns, 1))], axis=-1).astype(np.float32)


def _box(clip: ClipSample, frame: int) -> NDArray[np.float64]:
    """The face's box [4] in a frame; without labels, interpolated between frames with labels."""
    known = np.flatnonzero(clip.valid)
    return np.array([np.interp(frame, known, coordinate) for coordinate in clip.box[known].T])


def _side(box: NDArray[np.floating]) -> float:
    """The larger side of a box."""
    return float((box[2:] - box[:2]).max())


def _middle(box: NDArray[np.floating]) -> NDArray[np.floating]:
    """The centre of a box."""
    middle: NDArray[np.floating] = (box[:2] + box[2:]) / 2
    return middle


def _number(name: str) -> int:
    return zlib.crc32(name.encode())
