"""What the two halves of a released network's code know: linear probes on people held out.

    python experiments/probes.py compact --data-dir PREPARED

fits and scores the probes of `rednet_jax.evaluate.probes`: pose and expression of generated faces,
and whether two faces are one person's, of LFW and of generated ones. It writes
experiments/results/NAME_probes.json and a table beside it. lfw must be prepared.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rednet_jax.errors import RednetError
from rednet_jax.evaluate.probes import HALVES, measure_probes
from rednet_jax.evaluate.provenance import provenance
from rednet_jax.files import write_text

RESULTS = Path(__file__).parent / "results"


def main(checkpoint: str, data_dir: Path | None) -> None:
    """Measures and writes.

    Raises:
        RednetError: no such checkpoint, or lfw is not prepared.
    """
    origin = provenance(f"python experiments/probes.py {checkpoint}", 0)
    found = measure_probes(
        checkpoint,
        data_dir=data_dir,
        report=lambda done, total: print(f"{done} of {total}", flush=True),
    )
    path = RESULTS / f"{checkpoint}_probes.json"
    result = {"checkpoint": checkpoint, **found, "provenance": origin}
    write_text(path, json.dumps(result, indent=2) + "\n")
    write_text(path.with_suffix(".md"), _page(checkpoint, found))


def _page(checkpoint: str, found: dict[str, Any]) -> str:
    """The tables as Markdown."""
    held = found["people"] - found["people"] * 2 // 3
    lines = [
        f"# What the code of {checkpoint} holds",
        "",
        "Linear probes of the two halves of the code of the first pass, each averaged over space.",
        "Intervals are 95 %, over people.",
        "",
        "## Pose and expression",
        "",
        f"Share of the variance that is not explained, on {held} generated people held out: 0 is "
        "exact, 1 knows nothing.",
        "",
        f"| target | {' | '.join(HALVES)} | C_pe less C_id |",
        "|---|---|---|---|",
    ]
    for row in found["regression"]:
        cells = [_cell(row["unexplained"][half], row["intervals"][half]) for half in HALVES]
        lines.append(f"| {row['target']} | {' | '.join(cells)} | {_interval(row['difference'])} |")
    lines += [
        "",
        "## Identity",
        "",
        "Confusion: share of the pairs of two people that look more alike than a pair of one "
        "person; 0 is exact, 0.5 knows nothing.",
        "",
        "| faces of | people | pairs of one person | half | equal error rate | confusion |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["verification"]:
        for half in HALVES:
            confusion = _cell(row["confusion"][half], row["intervals"][half])
            rate = f"{100 * row['equal_error_rate'][half]:.1f} %"
            lines.append(
                f"| {row['faces_of']} | {row['people']} | {row['pairs']} | {half} | {rate} | "
                f"{confusion} |"
            )
    lines += [
        "",
        "Difference of confusion, C_id less C_pe: "
        + "; ".join(
            f"{row['faces_of']} {_interval(row['difference'])}" for row in found["verification"]
        )
        + ".",
        "",
    ]
    return "\n".join(lines)


def _cell(value: float, bounds: list[float]) -> str:
    return f"{value:.2f} [{bounds[0]:.2f}, {bounds[1]:.2f}]"


def _interval(bounds: list[float]) -> str:
    return f"{bounds[0]:+.2f} to {bounds[1]:+.2f}"


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
        raise SystemExit(f"probes: {error}") from error
