"""Linear probes of the two halves of a network's code, on people held out.

    python experiments/probes.py compact --data-dir PREPARED
    python experiments/probes.py RUN_DIR --name identity_loss --data-dir PREPARED

fits and scores the probes of `rednet_jax.evaluate.probes`: pose and expression of generated faces,
and verification (whether two faces are of one person) on LFW and generated faces. It writes
experiments/results/NAME_probes.json, with the paper's claims and their verdicts, and a table beside
it. The second form names a network that is not released. lfw must be prepared.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rednet_jax.ablate.verdict import decide
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.probes import HALVES, MEANS, measure_probes
from rednet_jax.evaluate.provenance import provenance
from rednet_jax.files import write_json, write_text

RESULTS = Path(__file__).parent / "results"


def main(checkpoint: str, name: str | None, data_dir: Path | None) -> None:
    """Measures and writes.

    Args:
        checkpoint: a released name, a safetensors file or a run folder.
        name: in the files' names and the claims; None for that of the checkpoint.
        data_dir: the folder of prepared data.

    Raises:
        RednetError: no such checkpoint, or lfw is not prepared.
    """
    given = checkpoint if name is None else f"RUN_DIR --name {name}"
    name = name or checkpoint
    origin = provenance(f"python experiments/probes.py {given}", 0)
    found = measure_probes(
        checkpoint,
        data_dir=data_dir,
        report=lambda done, total: print(f"{done} of {total}", flush=True),
    )
    path = RESULTS / f"{name}_probes.json"
    result = {"network": name, **found, "claims": list(_claims(name, found)), "provenance": origin}
    write_json(path, result)
    write_text(path.with_suffix(".md"), _page(name, found))


def _claims(name: str, found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """That each half holds what the paper assigns to it, and more of it than the other half."""
    regression = {row["target"]: row for row in found["regression"]}
    for what in MEANS:
        yield _claim(
            f"`{name}`: C_pe holds more of {what} than C_id.",
            regression[what]["unexplained"],
            ("C_pe", "C_id"),
            regression[what]["difference"],
            "of the variance",
        )
    for row in found["verification"]:
        yield _claim(
            f"`{name}`: C_id tells people apart better than C_pe ({row['faces_of']} faces).",
            row["confusion"],
            ("C_id", "C_pe"),
            row["difference"],
            "of the pairs confused",
        )


def _claim(
    sentence: str,
    figures: dict[str, float],
    halves: tuple[str, str],
    interval: list[float],
    unit: str,
) -> dict[str, Any]:
    verdict, why = decide(interval)
    return {
        "sentence": sentence,
        "by": "ECCV 2016",
        "difference": figures[halves[0]] - figures[halves[1]],
        "interval": interval,
        "unit": unit,
        "seeds": 1,
        "verdict": verdict,
        "why": why,
    }


def _page(name: str, found: dict[str, Any]) -> str:
    """The tables as Markdown."""
    held = found["people"] - found["people"] * 2 // 3
    lines = [
        f"# What the code of {name} holds",
        "",
        "Linear probes of the two halves of the code of the first pass, each averaged over space.",
        "Intervals are 95 %, over people.",
        "",
        "## Pose and expression",
        "",
        f"Share of the variance that is not explained, on {held} generated people held out: 0 is "
        "exact, 1 is the mean.",
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
        "person; 0 is exact, 0.5 is chance.",
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
    parser.add_argument("--name")
    parser.add_argument("--data-dir", type=Path)
    asked = parser.parse_args()
    try:
        main(asked.checkpoint, asked.name, asked.data_dir)
    except RednetError as error:
        raise SystemExit(f"probes: {error}") from error
