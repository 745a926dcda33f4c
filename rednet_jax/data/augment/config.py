"""The ranges of augmentation's random draws."""

import dataclasses
from dataclasses import dataclass

from rednet_jax.errors import RednetError
from rednet_jax.fields import check_fields

_AT_MOST = {
    **dict.fromkeys(("mirror", "grey", "occlusion", "occlusion_side", "blocks"), 1.0),
    # With a larger tilt, landmarks beyond the crop's corners could lie behind the camera.
    "perspective": 0.1,
    "worst_quality": 100.0,
    "best_quality": 100.0,
}


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the draws; 0 disables a draw. Normal draws are truncated at 2.5 deviations.

    `shift` and `log_scale` model the error of the box that a crop is cut around. Evaluation's
    jittered boxes have 0.06 and 0.10; the default detector's boxes deviate from those of the
    landmarks by 0.035 (x) and 0.029 (y) sides of the landmarks' box in the centre, and by 0.054 in
    the logarithm of the side (`python -m rednet_jax.detection.fit`, 2,011 faces of the 300-W
    training set). Truncation at 2.5 leaves 0.954 of a deviation, so the defaults have deviations
    of 0.062 and 0.100.

    Attributes:
        rotation: degrees, standard deviation.
        log_scale: logarithm of the crop's side, standard deviation.
        shift: sides of the landmarks' box, standard deviation on each axis.
        perspective: relative change of scale from the middle of the crop to its edge, standard
            deviation on each axis, at most 0.1. Clips are not tilted.
        mirror: probability.
        brightness: offset as a fraction of the full range, uniform in [-brightness, brightness].
        contrast: logarithm of the factor about the mean, uniform in [-contrast, contrast].
        saturation: logarithm of the factor about grey, uniform in [-saturation, saturation].
        tint: logarithm of each channel's gain, uniform in [-tint, tint].
        gamma: logarithm of the exponent, uniform in [-gamma, gamma].
        grey: probability of an image without colour.
        blur: largest standard deviation, pixels; half of the images are blurred.
        noise: largest standard deviation, as a fraction of the full range.
        occlusion: probability of each of two rectangles.
        occlusion_side: largest side of a rectangle, in sides of the image.
        blocks: probability of JPEG artefacts.
        worst_quality: lowest JPEG quality, on libjpeg's scale of 1 to 100; drawn uniformly.
        best_quality: highest JPEG quality.

    Raises:
        RednetError: a number is out of range, or `worst_quality` is above `best_quality`.
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
        """Raises RednetError for numbers out of range."""
        _check(self)
        if self.worst_quality > self.best_quality:
            raise RednetError(
                f"augmentation.worst_quality ({self.worst_quality}) must be at most "
                f"best_quality ({self.best_quality})"
            )


@dataclass(frozen=True)
class Drift:
    """How a clip's crop drifts from where the tracker would cut it; 0 disables a draw.

    The drift of a frame is 0.9 times that of the frame before plus a normal draw, truncated at 2.5
    deviations: over many frames its deviation converges to 2.3 times that of one draw. Frame 0 has
    no drift. Measured the same way, the boxes of the released tracker deviate from those of the
    labels by 0.005, 0.007 and 0.4 degrees (root mean square over 29 real clips); the defaults are
    larger, to cover worse trackers.

    Attributes:
        shift: sides of the landmarks' box, standard deviation of one frame's draw on each axis.
        log_scale: logarithm of the crop's side, standard deviation of one frame's draw.
        rotation: degrees, standard deviation of one frame's draw.

    Raises:
        RednetError: a number is below 0.
    """

    shift: float = 0.01
    log_scale: float = 0.01
    rotation: float = 0.5

    def __post_init__(self) -> None:
        """Raises RednetError for numbers out of range."""
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
