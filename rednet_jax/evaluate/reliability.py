"""Reliability of probabilities: scores, the reliability curve, and its plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from rednet_jax.files import replacing

Floats = NDArray[np.floating]

BINS = 15
"""Number of equal bins of [0, 1]; as in Guo et al. (2017), so that the ECE is comparable."""

_NORMAL_95 = 1.96


def scores(logits: Floats, right: NDArray[np.bool_]) -> dict[str, float]:
    """Returns scores of probabilities, given as logits; 0 is the best value of each.

    Args:
        logits: of the probability of being correct, any shape.
        right: mask of the correct points, the same shape.

    Returns:
        `ece`, the expected calibration error over `BINS`; `brier`, the mean squared difference from
        1 or 0; `log_loss`, the mean negative log-likelihood in nats.
    """
    probability = expit(logits)
    bins = _bin(probability)
    gap = np.bincount(bins.ravel(), (probability - right).ravel(), minlength=BINS)
    return {
        "ece": float(np.abs(gap).sum() / right.size),
        "brier": float(np.mean((probability - right) ** 2)),
        "log_loss": float(np.mean(np.logaddexp(0, np.where(right, -logits, logits)))),
    }


def reliability_bins(
    logits: Floats, right: NDArray[np.bool_], photos: NDArray[np.int64]
) -> list[dict[str, float | int | None]]:
    """Returns the reliability curve, a row for each bin of [0, 1] that has points.

    Args:
        logits: [R, P], of the probability of being correct.
        right: [R, P], mask of the correct points.
        photos: [P], index of the point's photo.

    Returns:
        Rows of `low`, `high` (the bin), `points`, `confidence` (mean), `right` (the share of
        correct points), and `error`, half the 95 % interval of that share, with photos as clusters,
        since points of one photo are correlated within and across runs. `error` is None if all
        points are of one photo.
    """
    probability = expit(logits)
    bins = _bin(probability)
    owner = np.broadcast_to(photos, right.shape)
    rows: list[dict[str, float | int | None]] = []
    for number in np.unique(bins):
        inside = bins == number
        count, share = int(inside.sum()), float(right[inside].mean())
        _, places = np.unique(owner[inside], return_inverse=True)
        surplus = np.bincount(places, right[inside] - share)
        clusters = len(surplus)
        variance = clusters / max(clusters - 1, 1) * float(surplus @ surplus) / count**2
        rows.append(
            {
                "low": float(number / BINS),
                "high": float((number + 1) / BINS),
                "points": count,
                "confidence": float(probability[inside].mean()),
                "right": share,
                "error": _NORMAL_95 * variance**0.5 if clusters > 1 else None,
            }
        )
    return rows


def draw_reliability(result: dict[str, Any], path: Path) -> None:
    """Plots the reliability curves before and after calibration, with histograms of the confidence.

    Args:
        result: of `rednet_jax.evaluate.calibration.calibrate`.
        path: of the PNG file.

    Raises:
        RednetError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 6), dpi=150, layout="constrained")
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    curve.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="calibrated")
    for when, colour, words in (
        ("before", "tab:orange", "before"),
        ("after", "tab:blue", "after, cross-validated"),
    ):
        bins = result[when]["bins"]
        curve.errorbar(
            [row["confidence"] for row in bins],
            [row["right"] for row in bins],
            [row["error"] or 0 for row in bins],
            color=colour,
            marker="o",
            markersize=3,
            capsize=2,
            linewidth=1,
            label=f"{words}: ECE {result[when]['ece']:.3f}, Brier {result[when]['brier']:.4f}",
        )
        counts.stairs(
            np.bincount(
                [round(row["low"] * BINS) for row in bins],
                [row["points"] for row in bins],
                minlength=BINS,
            ),
            np.linspace(0, 1, BINS + 1),
            color=colour,
        )
    curve.set(
        title=f"{result['name']}: {result['data']} {result['split']}",
        ylabel=f"share within {result['within']:g} % of {result['normaliser']}",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    curve.legend(loc="upper left", frameon=False, fontsize=8)
    counts.set(xlabel="confidence", ylabel="points", yscale="log")
    with replacing(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})


def _bin(probability: Floats) -> NDArray[np.int64]:
    return np.minimum((probability * BINS).astype(np.int64), BINS - 1)
