"""The cumulative error distribution (CED): its figures and its plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rednet_jax.files import replacing

Floats = NDArray[np.floating]


def failure_rate(errors: Floats, cut: float) -> float:
    """Returns the percentage of errors [N] that are above `cut` or nan (no prediction)."""
    return float(100 * np.mean(~(errors <= cut)))


def cumulative_auc(errors: Floats, cut: float) -> float:
    """Returns the area under the cumulative error distribution of errors [N], up to `cut`.

    It is in percent, 100 if all errors are 0, and exact, without a histogram. nan (no prediction)
    contributes 0.
    """
    return float(np.mean(face_areas(errors, cut)))


def face_areas(errors: Floats, cut: float) -> Floats:
    """Returns the contribution of each face [N] to `cumulative_auc`, their mean, percent."""
    areas: Floats = 100 * np.fmax(cut - errors, 0) / cut
    return areas


def cumulative_distribution(errors: Floats) -> tuple[Floats, Floats]:
    """Returns the steps of the CED of errors [N].

    Returns:
        The distinct errors [M] in ascending order, and the percentage [M] of all N faces with at
        most that error. nan (no prediction) gives no step, but counts in N.
    """
    known, counts = np.unique(errors[np.isfinite(errors)], return_counts=True)
    share: Floats = 100 * np.cumsum(counts) / max(errors.size, 1)
    return known, share


def draw_cumulative(
    curves: Mapping[str, Floats], path: Path, *, title: str, normaliser: str, cut: float = 10
) -> None:
    """Plots the CED of one or more networks, up to an error.

    Args:
        curves: errors [N] of the faces in percent, nan for no prediction, by the curve's name.
        path: of the PNG file.
        title: of the plot.
        normaliser: of the errors, for the axis label.
        cut: the largest error shown.

    Raises:
        RednetError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    # Curves of one network for several K overlap; with dashes both remain visible.
    for number, (name, errors) in enumerate(curves.items()):
        steps, share = cumulative_distribution(errors)
        axes.step(
            [0, *steps[steps <= cut], cut],
            [0, *share[steps <= cut], 100 - failure_rate(errors, cut)],
            where="post",
            label=name,
            linestyle=("-", (0, (5, 2)), (0, (1, 1.5)))[number % 3],
            linewidth=1.5,
        )
    axes.set(xlabel=f"NME, % of {normaliser}", ylabel="% of faces", xlim=(0, cut), ylim=(0, 100))
    axes.set_title(title, fontsize=10)
    axes.grid(color="0.9")
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})
