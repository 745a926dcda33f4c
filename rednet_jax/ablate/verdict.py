"""The verdict on a claim."""

from __future__ import annotations

SUPPORTED, NOT_SUPPORTED, NOT_DECIDED = "supported", "not supported", "not decided"


def decide(interval: tuple[float, float] | list[float]) -> tuple[str, str | None]:
    """Returns the verdict on the claim that a difference is below 0, and the reason if it fails.

    With complete measurements every claim is decided: an interval that spans 0 does not support
    it. `NOT_DECIDED` is for missing measurements.

    Args:
        interval: lower and upper end of the difference's 95 % interval.
    """
    low, high = interval
    if high < 0:
        return SUPPORTED, None
    return NOT_SUPPORTED, "the opposite holds" if low > 0 else "the interval spans 0"
