"""Jitter of the arms of ablation_video.py on generated clips, whose labels do not jitter.

    python experiments/video_jitter.py --runs-dir RUNS --data-dir PREPARED

runs `rednet bench steadiness` with K = 1 on the validation clips of synthetic_clips for every
trained run of the ablation, and compares each arm with single frames. The jitter is that of the
errors, so that the motion of heads cancels. Labels of real clips jitter as much as the predictions
do, and cannot tell.

Writes experiments/results/video_jitter.json and a table beside it; needs the weights of the runs.
2 CPU cores, shared with other work: a minute for each of the 15 runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rednet_jax.ablate.plan import OURS, Video, load_ablation, run_of
from rednet_jax.ablate.run import RUNS
from rednet_jax.ablate.verdict import decide
from rednet_jax.bench.steadiness import bench_steadiness
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.bootstrap import mean_difference, paired_interval
from rednet_jax.evaluate.provenance import provenance
from rednet_jax.files import write_json, write_text

EXPERIMENTS = Path(__file__).parent
RESULT = EXPERIMENTS / "results" / "video_jitter.json"
DATA = "synthetic_clips"
SINGLE = "each frame alone"
FIGURES = ("error_jitter", "nme_all")
WAYS: dict[Video, str] = {
    "alone": "each frame alone",
    "smoothed": "each frame alone + filter",
    "carried": "recurrence",
}
"""The rows of `bench_steadiness` by the way in which an arm's clips are tracked."""


def main(runs_dir: Path, data_dir: Path | None) -> None:
    """Measures and writes.

    Raises:
        RednetError: a run without weights, or clips that are not prepared.
    """
    origin = provenance("python experiments/video_jitter.py", 0)
    ablation = load_ablation(EXPERIMENTS / "ablation_video.py")
    of_runs: dict[str, dict[str, Any]] = {}
    arms: dict[str, dict[str, NDArray[np.float64]]] = {}
    for arm in ablation.arms:
        of_seeds = []
        for seed in ablation.seeds:
            run = run_of(arm, seed).folder
            if run not in of_runs:
                of_runs[run] = bench_steadiness(str(runs_dir / run), DATA, data_dir=data_dir)
            rows = [row for row in of_runs[run]["of_clips"] if row["way"] == WAYS[arm.video]]
            of_seeds.append([[row[figure] for row in rows] for figure in FIGURES])
        arms[arm.name] = dict(zip(FIGURES, np.asarray(of_seeds).swapaxes(0, 1), strict=True))
    rows = [_row(name, values, arms[SINGLE]) for name, values in arms.items()]
    result = {
        "clips": next(iter(of_runs.values()))["clips"],
        "data": f"{DATA}/validation",
        "feedback_steps": 1,
        "rows": rows,
        "claims": [
            _claim(row, len(ablation.seeds)) for row in rows if row["arm"] == "maps carried"
        ],
        "provenance": origin,
    }
    write_json(RESULT, result)
    write_text(RESULT.with_suffix(".md"), _page(result))


def _row(
    name: str, values: dict[str, NDArray[np.float64]], baseline: dict[str, NDArray[np.float64]]
) -> dict[str, Any]:
    """Means over seeds and clips [S, N], and the jitter's difference from the baseline."""
    jitters, of_baseline = (arm["error_jitter"] for arm in (values, baseline))
    return {
        "arm": name,
        **{figure: float(np.nanmean(values[figure])) for figure in FIGURES},
        "difference": mean_difference(jitters, of_baseline),
        "interval": list(paired_interval(jitters, of_baseline)),
        "share": float(np.nanmean(jitters) / np.nanmean(of_baseline) - 1),
    }


def _claim(row: dict[str, Any], seeds: int) -> dict[str, Any]:
    verdict, why = decide(row["interval"])
    return {
        "sentence": "Maps carried over frames lower the jitter of single frames in generated "
        "clips, against exact labels.",
        "by": OURS,
        "difference": row["difference"],
        "interval": row["interval"],
        "unit": "percent",
        "seeds": seeds,
        "verdict": verdict,
        "why": why,
    }


def _page(result: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = [
        "# Jitter on generated clips",
        "",
        f"{result['clips']} validation clips of {DATA}, tracked from the detector with K = 1 by "
        "the networks of [ablation_video](ablation_video.md). Percent of the inter-ocular "
        "distance, means over seeds and clips; differences from single frames with 95 % intervals "
        "over seeds and clips.",
        "",
        "| arm | jitter against the labels | difference | NME |",
        "|---|---|---|---|",
    ]
    for row in result["rows"]:
        low, high = row["interval"]
        difference = f"{row['difference']:+.2f}, {low:+.2f} to {high:+.2f} ({row['share']:+.0%})"
        lines.append(
            f"| {row['arm']} | {row['error_jitter']:.2f} "
            f"| {'-' if row['arm'] == SINGLE else difference} | {row['nme_all']:.2f} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs-dir", type=Path, default=RUNS)
    parser.add_argument("--data-dir", type=Path)
    asked = parser.parse_args()
    try:
        main(asked.runs_dir, asked.data_dir)
    except RednetError as error:
        raise SystemExit(f"video_jitter: {error}") from error
