"""Tracks clips with bursts of corrupted frames, of each kind, at K = 1.

    python experiments/corrupted_clips.py compact_video --data-dir PREPARED

runs `rednet eval compact_video --data 300vw --split validation --corrupt KIND` for every kind
(`clean` is the same frames, unchanged), and the same on synthetic_clips, whose labels are exact. It
writes experiments/results/compact_video_corrupt.json and a table beside it. Both data sets must be
prepared. 2 CPU cores, shared with other work: 16 minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from rednet_jax.errors import RednetError
from rednet_jax.evaluate.corrupt import Corruption, Kind
from rednet_jax.evaluate.provenance import provenance
from rednet_jax.evaluate.tracked_clips import evaluate_clips
from rednet_jax.files import write_json, write_text

RESULTS = Path(__file__).parent / "results"
DATA = ("300vw", "synthetic_clips")
KINDS = ("clean", *(kind for kind in get_args(Kind) if kind != "clean"))


def main(checkpoint: str, data_dir: Path | None) -> None:
    """Measures and writes; after every kind, so that nothing is lost.

    Raises:
        RednetError: no such checkpoint, or data that are not prepared.
    """
    origin = provenance(f"python experiments/corrupted_clips.py {checkpoint}", 0)
    of_data: dict[str, dict[str, Any]] = {data: {} for data in DATA}
    for data, of_kinds in of_data.items():
        for kind in KINDS:
            found = evaluate_clips(
                checkpoint, data, "validation", data_dir=data_dir, corrupt=Corruption(kind)
            )
            of_kinds[kind] = found
            path = RESULTS / f"{checkpoint}_corrupt.json"
            result = {"checkpoint": checkpoint, "clips": of_data, "provenance": origin}
            write_json(path, result)
            write_text(path.with_suffix(".md"), _page(checkpoint, of_data))


def _page(checkpoint: str, of_data: dict[str, dict[str, Any]]) -> str:
    """The tables as Markdown."""
    lines = [f"# {checkpoint} on corrupted clips", ""]
    for data, of_kinds in of_data.items():
        if not of_kinds:
            continue
        corruption = of_kinds["clean"]["corruption"]
        lines += [
            f"## {data} validation, used for selection",
            "",
            f"{corruption['frames']} frames in {corruption['bursts']} bursts, the same for every "
            "kind. NME and jitter are in percent of the inter-ocular distance, with 95 % intervals "
            "over clips. Lost frames are labelled frames without a result; they have no error, so "
            "a tracker that loses hard frames has a lower NME.",
            "",
            "| kind | frames | lost | NME | jitter | jitter against labels |",
            "|---|---|---|---|---|---|",
        ]
        for kind, found in of_kinds.items():
            for part, figures in found["per_step"][0]["parts"].items():
                labelled = figures["images"] + figures["missed"]
                cells = [kind, part, f"{figures['missed']} of {labelled}"]
                cells += [_cell(figures, name) for name in ("nme", "jitter", "error_jitter")]
                lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(figures: dict[str, Any], name: str) -> str:
    if figures[name] is None:
        return "-"
    bounds = figures["intervals"][name]
    ends = "" if bounds is None else f" [{bounds[0]:.2f}, {bounds[1]:.2f}]"
    return f"{figures[name]:.2f}{ends}"


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
        raise SystemExit(f"corrupted_clips: {error}") from error
