"""Frame rates of videos."""

from __future__ import annotations

import math
from fractions import Fraction

from rednet_jax.errors import RednetError


def frame_rate(fps: Fraction | float) -> Fraction:
    """Returns frames per second as a fraction with a denominator of at most 60,000.

    Raises:
        RednetError: fps is not positive or not finite, or too small or too large for a video.
    """
    rate = Fraction(fps).limit_denominator(60_000) if math.isfinite(fps) else Fraction(0)
    # FFmpeg stores 32-bit integers.
    if not 0 < rate.numerator < 2**31:
        raise RednetError(f"fps: {fps} is not a frame rate that a video can have")
    return rate
