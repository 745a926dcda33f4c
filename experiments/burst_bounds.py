"""How much of the error in bursts of corrupted frames can the frames before a burst explain?

    python experiments/burst_bounds.py compact_video --data-dir PREPARED

tracks the windows of `burst_windows` on 300-VW with K = 1 and compares, within bursts: the network
with its state carried; the last landmarks before the burst, held; the same, extrapolated with their
mean velocity, which is damped; and the better of network and extrapolation in each frame. Holding
and extrapolation use the true position of the bursts, and the better one is selected by the labels,
so it bounds what a tracker can gain from the motion before a burst. The damping is the best of
`DAMPINGS` on the training clips.

Writes experiments/results/NAME_burst_bounds.json and a table beside it. Two CPU cores, shared with
other work: 5 minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rednet_jax.errors import RednetError
from rednet_jax.evaluate.burst_windows import BurstWindows, burst_windows
from rednet_jax.evaluate.clips import Followed, clip_windows, follow, track_of
from rednet_jax.evaluate.corrupt import BURST_KINDS
from rednet_jax.evaluate.provenance import provenance
from rednet_jax.files import write_json, write_text
from rednet_jax.landmarks.crops import apply_affine, invert_affine
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.store import fingerprint, load

RESULTS = Path(__file__).parent / "results"
DAMPINGS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Factors on the velocity from frame to frame; with 0 the landmarks are held."""

FRAMES = 2
"""Frame steps before a burst that the velocity is the mean of."""

COVER, SIZE = 2.0, 320
"""Side of the cached frames in crops, and in pixels."""


class Burst(NamedTuple):
    """A tracked kind of burst: the windows, the network's landmarks, and their errors, percent."""

    burst: BurstWindows
    network: Followed
    errors: NDArray[np.floating]


def main(checkpoint: str, data_dir: Path | None) -> None:
    """Measures and writes.

    Raises:
        RednetError: no such checkpoint, or data that are not prepared.
    """
    origin = provenance(f"python experiments/burst_bounds.py {checkpoint}", 0)
    config, variables = load(checkpoint)
    tracked = {
        split: _tracked(config, variables, split, data_dir) for split in ("train", "validation")
    }
    damping = min(
        DAMPINGS,
        key=lambda factor: np.mean(
            [_extrapolated(config, burst, factor).mean() for burst in tracked["train"].values()]
        ),
    )
    rows = []
    for split, bursts in tracked.items():
        for kind, burst in bursts.items():
            extrapolated = _extrapolated(config, burst, damping)
            rows.append(
                {
                    "split": split,
                    "kind": kind,
                    "frames": len(extrapolated),
                    "network": float(burst.errors.mean()),
                    "held": float(_extrapolated(config, burst, 0.0).mean()),
                    "extrapolated": float(extrapolated.mean()),
                    "better": float(np.minimum(burst.errors, extrapolated).mean()),
                }
            )
    result = {
        "checkpoint": checkpoint,
        "weights": fingerprint(variables),
        "damping": damping,
        "rows": rows,
        "provenance": origin,
    }
    path = RESULTS / f"{checkpoint}_burst_bounds.json"
    write_json(path, result)
    write_text(path.with_suffix(".md"), _page(result))


def _tracked(
    config: RedNetConfig, variables: dict[str, Any], split: str, data_dir: Path | None
) -> dict[str, Burst]:
    margin = config.crop_margin * COVER
    windows = clip_windows("300vw", split, margin=margin, size=SIZE, data_dir=data_dir)
    full = (windows.frames >= 0).all(1)
    windows = windows._replace(frames=windows.frames[full])
    bursts = {}
    for kind in BURST_KINDS:
        burst = burst_windows(windows, kind, margin=margin)
        network = follow(config, variables, burst.windows, feedback_steps=1)
        bursts[kind] = Burst(burst, network, _errors_within(config, burst, network))
    return bursts


def _errors_within(
    config: RedNetConfig, burst: BurstWindows, followed: Followed
) -> NDArray[np.floating]:
    """Returns the NME of every labelled frame within a burst, percent."""
    track = track_of(config, burst.windows, followed)
    return track.errors[track.known & burst.within.ravel()]


def _extrapolated(config: RedNetConfig, burst: Burst, damping: float) -> NDArray[np.floating]:
    """Returns the NME within bursts of landmarks that are extrapolated from before, percent."""
    points = apply_affine(burst.network.affines, burst.network.landmarks)
    for window, within in zip(points, burst.burst.within, strict=True):
        frames = np.flatnonzero(within)
        last = frames[0] - 1
        velocity = ((window[last] - window[last - FRAMES]) / FRAMES).mean(0)
        for number, frame in enumerate(frames, 1):
            window[frame] = window[last] + velocity * np.sum(damping ** np.arange(1, number + 1))
    landmarks = apply_affine(invert_affine(burst.network.affines), points).astype(np.float32)
    return _errors_within(config, burst.burst, burst.network._replace(landmarks=landmarks))


def _page(result: dict[str, Any]) -> str:
    ways = {
        "network": "network, state carried",
        "held": "held",
        "extrapolated": "extrapolated",
        "better": "better of network and extrapolation, by the labels",
    }
    lines = [
        f"# Bounds of the error within bursts, {result['checkpoint']}",
        "",
        "NME in percent of the inter-ocular distance, K = 1. Held and extrapolated landmarks are "
        "those before the burst; the damping of the velocity, "
        f"{result['damping']:g}, was chosen on the training clips. The last column takes in each "
        "frame the better of the network and the extrapolation, selected by the labels: it bounds "
        "what the motion before a burst can add to the image.",
    ]
    for split in ("train", "validation"):
        rows = [row for row in result["rows"] if row["split"] == split]
        lines += [
            "",
            f"## 300-VW {split}",
            "",
            f"| kind | frames | {' | '.join(ways.values())} |",
            f"|---|---|{'---|' * len(ways)}",
        ]
        lines += [
            f"| {row['kind']} | {row['frames']} | {' | '.join(f'{row[way]:.2f}' for way in ways)} |"
            for row in rows
        ]
        means = {way: np.mean([row[way] for row in rows]) for way in ways}
        cells = [
            f"{mean:.2f} ({100 * (mean / means['network'] - 1):+.0f} %)" for mean in means.values()
        ]
        lines.append(f"| mean of the kinds | | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--data-dir", type=Path)
    asked = parser.parse_args()
    try:
        main(asked.checkpoint, asked.data_dir)
    except RednetError as error:
        raise SystemExit(f"burst_bounds: {error}") from error
