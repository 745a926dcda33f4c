"""Tables and verdicts from measurements; weights and data are not needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rednet_jax.ablate.folder import read_failure, read_measured
from rednet_jax.ablate.plan import (
    CLIPS,
    FEEDBACK_STEPS,
    IMAGES,
    Ablation,
    Arm,
    Cell,
    Claim,
    run_of,
)
from rednet_jax.ablate.verdict import NOT_DECIDED, decide
from rednet_jax.data.builders.tree_300w import photo
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.bootstrap import bootstrap_interval, mean_difference, paired_interval
from rednet_jax.evaluate.provenance import provenance

MEASURED, FAILED, MISSING, ABSENT = "measured", "failed", "not decided", "not measured"
"""States of a cell: all seeds measured; a run failed; seeds missing; the arm has no such figure."""

_FEWEST = 2
"""Smallest number of seeds for an interval; claims are decided only with all seeds."""

_SEED = 0
"""Seed of the bootstrap, the default of the intervals."""


class Values(NamedTuple):
    """Measurements of a cell.

    Attributes:
        state: one of `MEASURED`, `FAILED`, `MISSING`, `ABSENT`.
        seeds: the S measured seeds.
        errors: [S, N], percent.
        names: of the N faces or clips.
        groups: N groups for the bootstrap: the photo of a face; a clip is its own group.
    """

    state: str
    seeds: list[int]
    errors: NDArray[np.float64]
    names: list[str]
    groups: list[str]


class _Measured:
    """Measurements and failures of every run of an ablation."""

    def __init__(self, ablation: Ablation, runs_dir: Path) -> None:
        self.ablation = ablation
        self.runs: dict[tuple[str, int], dict[str, Any]] = {}
        self.failed: dict[tuple[str, int], str] = {}
        for arm in ablation.arms:
            for seed in ablation.seeds:
                run = run_of(arm, seed)
                measured = read_measured(runs_dir, run)
                if measured is not None:
                    self.runs[arm.name, seed] = measured
                elif reason := read_failure(runs_dir, run):
                    self.failed[arm.name, seed] = reason
        if not self.runs and not self.failed:
            raise RednetError(f"{runs_dir}: contains no measured run of {ablation.name}")

    def same_runs(self, first: str, second: str) -> bool:
        """Returns whether two arms have the same runs: they are equal except for the readout."""
        return run_of(self.ablation.arm(first), 0) == run_of(self.ablation.arm(second), 0)

    def of(self, cell: Cell) -> Values:
        """Returns the measurements of a cell."""
        arm, seeds = self.ablation.arm(cell.arm), self.ablation.seeds
        measured = [seed for seed in seeds if (arm.name, seed) in self.runs]
        rows: list[list[float]] = []
        names: list[str] = []
        kept: list[int] = []
        for seed in measured:
            row = _row(self.runs[arm.name, seed], cell, arm)
            if row is None:
                continue
            if names and row[0] != names:
                raise RednetError(f"{arm.name}: its seeds are measured on different faces")
            names = row[0]
            rows.append(row[1])
            kept.append(seed)
        if any((arm.name, seed) in self.failed for seed in seeds):
            state = FAILED
        elif len(measured) < len(seeds):
            state = MISSING
        else:
            state = MEASURED if len(kept) == len(seeds) else ABSENT
        errors = np.asarray(rows, np.float64).reshape(len(rows), len(names))
        groups = [photo(name) for name in names] if cell.on in IMAGES else names
        return Values(state, kept, errors, names, groups)


def _row(measured: dict[str, Any], cell: Cell, arm: Arm) -> tuple[list[str], list[float]] | None:
    """Returns names and figures [N] of a cell in one run's measurements, or None."""
    if cell.on in IMAGES:
        part = measured.get("pictures")
        by_steps = part and part["errors"].get(cell.on, {}).get(arm.readout)
    else:
        # Clips are tracked with f_REG's points, so the maps are not measured on them.
        part = measured.get("clips") if arm.readout == "regression" else None
        by_steps = part and part[arm.video][cell.figure].get(cell.on)
    if not part or not by_steps or cell.feedback_steps > len(by_steps):
        return None
    return part["names"], by_steps[cell.feedback_steps - 1]


def tabulate(ablation: Ablation, runs_dir: Path, command: str) -> dict[str, Any]:
    """Returns an ablation's results as plain JSON.

    Args:
        ablation: that is tabulated.
        runs_dir: contains the folders of its runs.
        command: that computes the results.

    Returns:
        `name`, `question`, `baseline`, `seeds`, `data`, `normaliser`, `arms`, `rows` (a row for
        each figure of each arm: `mean` over seeds and faces, `spread` over seeds, their 95 %
        `interval`, the `difference` from the baseline and its paired `difference_interval`),
        `claims` with verdicts, `runs` and `provenance`.

    Raises:
        RednetError: no run is measured, or arms are measured on different faces.
    """
    measured = _Measured(ablation, runs_dir)
    parts = [
        run[part] for run in measured.runs.values() for part in ("pictures", "clips") if part in run
    ]
    data: dict[str, int] = {}
    for part in parts:
        data.update({", ".join(part["data"]): len(part["names"])})
    return {
        "name": ablation.name,
        "question": ablation.question,
        "baseline": ablation.baseline,
        "seeds": list(ablation.seeds),
        "data": data,
        "normaliser": next((run["normaliser"] for run in measured.runs.values()), None),
        "arms": [
            {"name": arm.name, "readout": arm.readout, "video": arm.video} for arm in ablation.arms
        ],
        "rows": [_figures(measured, cell) for cell in _cells(ablation)],
        "claims": [_decide(measured, claim) for claim in ablation.claims],
        "runs": list(_provenance_of_runs(measured)),
        "provenance": provenance(command, _SEED),
    }


def _cells(ablation: Ablation) -> Iterator[Cell]:
    """Yields the cells of the tables."""
    for on in ablation.on:
        for figure in ("nme", "jitter") if on in CLIPS else ("nme",):
            for arm in ablation.arms:
                for steps in ablation.feedback_steps:
                    if steps in FEEDBACK_STEPS[on]:
                        yield Cell(arm.name, steps, on, figure)


def _figures(measured: _Measured, cell: Cell) -> dict[str, Any]:
    values = measured.of(cell)
    means = values.errors.mean(axis=1) if values.seeds else np.empty(0)
    row: dict[str, Any] = {
        "arm": cell.arm,
        "on": cell.on,
        "figure": cell.figure,
        "feedback_steps": cell.feedback_steps,
        "state": values.state,
        "by_seed": {str(s): float(m) for s, m in zip(values.seeds, means, strict=True)},
        "mean": float(means.mean()) if len(means) else None,
        "spread": float(means.std(ddof=1)) if len(means) > 1 else None,
        "interval": None,
        "difference": None,
        "difference_interval": None,
    }
    if len(values.seeds) >= _FEWEST:
        row["interval"] = _pair(bootstrap_interval(values.errors, values.groups))
        baseline = Cell(measured.ablation.baseline, cell.feedback_steps, cell.on, cell.figure)
        if cell.arm != baseline.arm:
            row["difference"], row["difference_interval"] = _difference(measured, cell, baseline)
    return row


def _difference(
    measured: _Measured, first: Cell, second: Cell
) -> tuple[float | None, list[float] | None]:
    """Returns first - second and its interval over the common seeds; None for fewer than two."""
    a, b = measured.of(first), measured.of(second)
    common = [seed for seed in a.seeds if seed in b.seeds]
    if len(common) < _FEWEST:
        return None, None
    if a.names != b.names:
        raise RednetError(f"measured on different faces: {first}; {second}")
    lower, higher = (cell.errors[[cell.seeds.index(s) for s in common]] for cell in (a, b))
    if measured.same_runs(first.arm, second.arm):
        # Both cells are of the same networks, so seeds are paired, too.
        interval = bootstrap_interval(lower - higher, a.groups)
    else:
        interval = paired_interval(lower, higher, a.groups)
    return mean_difference(lower, higher), _pair(interval)


def _pair(interval: tuple[float, float]) -> list[float] | None:
    """Returns an interval as JSON, which has no nan."""
    return list(interval) if np.isfinite(interval).all() else None


def _decide(measured: _Measured, claim: Claim) -> dict[str, Any]:
    difference, interval = _difference(measured, claim.lower, claim.higher)
    values = [measured.of(cell) for cell in (claim.lower, claim.higher)]
    states = [cell.state for cell in values]
    if interval is None or set(states) != {MEASURED}:
        verdict = NOT_DECIDED
        reasons = {FAILED: "a run failed", MISSING: "seeds are missing", ABSENT: "not measured"}
        why: str | None = next(
            (reasons[s] for s in (FAILED, MISSING, ABSENT) if s in states), "too few faces"
        )
    else:
        verdict, why = decide(interval)
    return {
        "sentence": claim.sentence,
        "by": claim.by,
        "lower": str(claim.lower),
        "higher": str(claim.higher),
        "difference": difference,
        "interval": interval,
        "seeds": len(set(values[0].seeds).intersection(values[1].seeds)),
        "verdict": verdict,
        "why": why,
    }


def _provenance_of_runs(measured: _Measured) -> Iterator[dict[str, Any]]:
    for arm in measured.ablation.arms:
        for seed in measured.ablation.seeds:
            row = {"arm": arm.name, "seed": seed, "run": run_of(arm, seed).folder}
            if run := measured.runs.get((arm.name, seed)):
                origin = run["provenance"]
                yield {
                    **row,
                    "state": MEASURED,
                    "git_commit": origin["git_commit"],
                    "device": origin["machine"]["device"],
                }
            elif reason := measured.failed.get((arm.name, seed)):
                yield {**row, "state": FAILED, "reason": reason}
            else:
                yield {**row, "state": MISSING}
