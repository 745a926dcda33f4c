"""How far the draws of augmentation go."""

import dataclasses
from dataclasses import dataclass

from rednet_jax.errors import RednetError
from rednet_jax.fields import check_fields

_AT_MOST = {
    **dict.fromkeys(("mirror", "grey", "occlusion", "occlusion_side", "blocks"), 1.0),
    # Farther tilted, landmarks beyond the crop's corners would come to lie behind the camera.
    "perspective": 0.1,
    "worst_quality": 100.0,
    "best_quality": 100.0,
}


@dataclass(frozen=True)
class Augmentation:
    """How far the draws go; 0 switches a draw off. Normal draws are cut at 2.5 deviations.

    `shift` and `log_scale` stand for the error of the box that a crop is cut around. Evaluation's
    jittered boxes have 0.06 and 0.10; the default detector's boxes deviate from those of the
    landmarks by 0.035 (x) and 0.029 (y) sides of the landmarks' box in the centre, and by 0.054 in
    the logarithm of the side (`python -m rednet_jax.detection.fit`, 2,011 faces of the 300-W
    training set). The cut at 2.5 leaves 0.954 of a deviation, so that the defaults spread by 0.062
    and 0.100.

    Attributes:
        rotation: degrees, standard deviation.
        log_scale: logarithm of the crop's side, standard deviation.
        shift: sides of the landmarks' box, standard deviation on each axis.
        perspective: relative change of scale from the middle of the crop to its edge, standard
            deviation on each axis, at most 0.1. Clips are not tilted.
        mirror: probability.
        brightness: additive, of the full range, uniform within +-.
        contrast: logarithm of the factor about the mean, uniform within +-.
        saturation: logarithm of the factor about grey, uniform within +-.
        tint: logarithm of each channel's gain, uniform within +-.
        gamma: logarithm of the exponent, uniform within +-.
        grey: probability of an image without colour.
        blur: largest standard deviation, pixels; half of the images are blurred.
        noise: largest standard deviation, of the full range.
        occlusion: probability of each of two rectangles.
        occlusion_side: largest side of a rectangle, in sides of the image.
        blocks: probability of JPEG's artefacts.
        worst_quality: JPEG's lowest quality, on libjpeg's scale of 1 to 100; it is drawn uniformly.
        best_quality: the highest.

    Raises:
        RednetError: a number below 0 or above what its meaning allows, or qualities in the wrong
            order.
    """

    rotation: float = 12.0
    log_scale: float = 0.105
    shift: float = 0.065
    perspective: float = 0.05
    mirror: float = 0.5
    brightness: float = 0.15
    contrast: float = 0.35
    saturation: float = 0.4
    tint: float = 0.1
    gamma: float = 0.3
    grey: float = 0.1
    blur: float = 1.5
    noise: float = 0.04
    occlusion: float = 0.35
    occlusion_side: float = 0.45
    blocks: float = 0.3
    worst_quality: float = 15.0
    best_quality: float = 90.0

    def __post_init__(self) -> None:
        """Refuses numbers out of range."""
        _check(self)
        if self.worst_quality > self.best_quality:
            raise RednetError(
                f"augmentation.worst_quality ({self.worst_quality}) must be at most "
                f"best_quality ({self.best_quality})"
            )


@dataclass(frozen=True)
class Drift:
    """How a clip's crop wanders about where the tracker would cut it; 0 switches a draw off.

    Each frame adds a normal draw, cut at 2.5 deviations, to 0.9 of the drift of the frame before:
    over many frames the deviation grows to 2.3 times that of one draw and no further. Frame 0 has
    none. By the same measure the boxes of the released tracker wander about those of the labels by
    0.005, 0.007 and 0.4 degrees (root mean square over 29 real clips); the defaults leave room for
    worse ones.

    Attributes:
        shift: sides of the landmarks' box, standard deviation of one frame's draw on each axis.
        log_scale: logarithm of the crop's side, likewise.
        rotation: degrees, likewise.

    Raises:
        RednetError: a number below 0.
    """

    shift: float = 0.01
    log_scale: float = 0.01
    rotation: float = 0.5

    def __post_init__(self) -> None:
        """Refuses numbers out of range."""
        _check(self)


def _check(config: Augmentation | Drift) -> None:
    part = type(config).__name__.lower()
    check_fields(config, f"{part}.")
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        most = _AT_MOST.get(field.name, float("inf"))
        if not 0 <= value <= most:
            limits = "at least 0" if most == float("inf") else f"in [0, {most:g}]"
            raise RednetError(f"{part}.{field.name} must be {limits}, not {value}")
