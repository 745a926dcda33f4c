"""The sections of a card on training, training data and terms."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

_CURVE_ROWS = 12
"""Approximate number of rows of the training curve."""


def training(result: dict[str, Any]) -> str:
    """Returns the card's section on training, without its heading."""
    stages = stages_of(result)
    augmentation = stages[0]["augmentation"]
    runs = _all_runs(result)
    return f"""- Data: {_data(result)}
{_schedule_before(result.get("begun_with"))}{_runs(runs)}
- Augmentation: rotation by {augmentation["rotation"]:g} degrees and log-size by \
{augmentation["log_scale"]:g} (standard deviations),
  shift by {augmentation["shift"]:g} of the box, mirror, brightness, contrast, saturation, tint, \
gamma, grey,
  blur up to {augmentation["blur"]:g} px, noise, two rectangles with probability \
{augmentation["occlusion"]:g} each.

Validation curve of the averaged weights \
({stages[-1]["data"].get("validation", "300w/validation")}, NME in percent, by K):

{_curves(runs)}"""


def terms(result: dict[str, Any], licences: Mapping[str, str]) -> str:
    """Returns a line for each training data set, and for the initial weights."""
    names = ["300w", *(split.split("/")[0] for split in _splits(result) if "/" in split)]
    lines = [
        textwrap.fill(
            f"- {name}: {licences[name]}", 100, subsequent_indent="  ", break_long_words=False
        )
        for name in dict.fromkeys(names)
    ]
    if initial := result.get("init_from"):
        lines.append(f"- the initial weights, `{initial}`: see its card.")
    return "\n".join(lines)


def chosen_by(stages: list[dict[str, Any]]) -> str:
    """Returns a sentence on the choice of the released step, from the stages of its run."""
    split = stages[-1]["data"].get("validation")
    # Old results have the split without its data set.
    if split in ("validation", "300w/validation"):
        return "The released step was chosen on\nthem, so the figures are optimistic."
    return (
        f"The released step was chosen on\n{split}, and the confidence calibrated on these faces."
    )


def stages_of(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the stages of a run."""
    # Old results have the fields of their only stage at the top level.
    stages: list[dict[str, Any]] = run["experiment"].get("stages", [run["experiment"]])
    return stages


def _all_runs(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The run of the released weights, or the runs of which they are the mean."""
    return [result, *result.get("averaged_with", [])]


def _data(result: dict[str, Any]) -> str:
    """Sentences on the training data."""
    splits = _splits(result)
    if initial := result.get("init_from"):
        note = result.get("note") or "The card of the initial weights has their training data."
        return f"{', '.join(splits)}; initial weights: `{initial}`.\n  {note}"
    others = [split for split in splits if split != "300w/train" and "/" in split]
    note = f"\n  {result['note']}" if result.get("note") else ""
    more = f"\n  In addition {', '.join(others)}." if others else ""
    return (
        f"{result['training_faces']:,} faces of the 300-W training folders, without the validation"
        f"\n  split.{more}{note}"
    )


def _splits(result: dict[str, Any]) -> list[str]:
    """The training splits of all runs, each once. Generated data have no splits."""
    before = result.get("begun_with")
    runs = [*([before] if before else []), *_all_runs(result)]
    # Old results have only 300-W, without a split.
    trained = (stage["data"].get("train", []) for run in runs for stage in stages_of(run))
    return list(dict.fromkeys(split for splits in trained for split in splits))


def _runs(runs: list[dict[str, Any]]) -> str:
    """List items on the run of the released weights, or the runs of which they are the mean."""
    if len(runs) == 1:
        (run,) = runs
        return (
            f"{_schedule(stages_of(run), run)}\n"
            f"  The released step is {run['best_step']:,}.{_ended(run)}"
        )
    items = [
        f"- The released weights are the mean of {len(runs)} runs with the same initial weights "
        "(Wortsman et al.,\n  ICML 2022)."
    ]
    for number, run in enumerate(runs, 1):
        for stage in stages_of(run):
            mix = zip(stage["data"]["train"], stage["data"]["weights"], strict=True)
            data = ", ".join(f"{split} ({weight:g})" for split, weight in mix)
            rates = ", ".join(rate.replace("*", " ") for rate in stage["optimiser"]["rates"])
            data += f"; factors of the learning rate: {rates}" if rates else ""
            items.append(
                f"{textwrap.fill(f'- Run {number}: {data}.', 100, subsequent_indent='  ')}\n"
                f"  {_stage(stage, run['experiment']['seed'])}"
            )
        items[-1] += f"\n  Its step {run['best_step']:,} is used.{_ended(run)}"
    return "\n".join(items)


def _schedule(stages: list[dict[str, Any]], run: dict[str, Any]) -> str:
    """A list item for each stage; further sentences can follow the last one."""
    items, start = [], 0
    for stage in stages:
        name = f"Stage `{stage['name']}`" if len(stages) > 1 else "Schedule"
        if start < run["last_step"]:
            items.append(f"- {name}: {_stage(stage, run['experiment']['seed'])}")
        else:
            items.append(f"- {name}, {stage['steps']:,} steps, was not reached.")
        start += stage["steps"]
    return "\n".join(items)


def _stage(stage: dict[str, Any], seed: int) -> str:
    rate = stage["optimiser"]
    passes = {0: "", stage["steps"]: ", all with one pass"}.get(
        stage["one_pass_steps"], f", the first {stage['one_pass_steps']:,} with one pass"
    )
    return (
        f"{stage['steps']:,} steps of {_batch(stage)}{passes}; AdamW, learning rate\n"
        f"  {rate['learning_rate']:g} after {rate['warmup_steps']} steps of warm-up, then cosine "
        f"decay to 0, weight decay {rate['weight_decay']:g},\n"
        f"  gradients clipped at norm {rate['clip_norm']:g}, weights averaged with decay "
        f"{rate['average']:g}; seed {seed}."
    )


def _schedule_before(run: dict[str, Any] | None) -> str:
    """List items on the stages of the run that gave the initial weights."""
    if run is None:
        return ""
    experiment = run["experiment"]
    return (
        f"{_schedule(experiment['stages'], run)}\n"
        f"  The next stage starts from step {run['best_step']:,} of this run, "
        f"`{experiment['name']}`.{_ended(run)}\n"
    )


def _ended(run: dict[str, Any]) -> str:
    """Sentences on the device and the end of a run; "" for old results without them."""
    if "trained_on" not in run:
        return ""
    machine, versions = run["trained_on"]["machine"], run["trained_on"]["versions"]
    device = f"{machine['cores']} CPU cores" if machine["device"] == "cpu" else machine["device"]
    text = f"\n  Trained on {device} with jax {versions['jax']}"
    steps = sum(stage["steps"] for stage in run["experiment"]["stages"])
    if run["last_step"] < steps:
        text += f"; stopped after step {run['last_step']:,} of {steps:,}"
    if "training_seconds" in run:
        return f"{text}.\n  The steps took {run['training_seconds'] / 3600:.1f} hours."
    return (
        f"{text}.\n  The total time was not recorded; `experiments/{run['experiment']['name']}.py` "
        "has the time per step."
    )


def _batch(stage: dict[str, Any]) -> str:
    clips = stage.get("clips")
    if clips:
        return f"{stage['batch']} clips of {clips['frames']} frames"
    return f"{stage['batch']} faces"


def _curves(runs: list[dict[str, Any]]) -> str:
    """A table for each run."""
    tables = [_curve(run["training_curve"]) for run in runs]
    if len(tables) == 1:
        return tables[0]
    return "\n\n".join(f"Run {number}:\n\n{table}" for number, table in enumerate(tables, 1))


def _curve(curve: list[dict[str, Any]]) -> str:
    """A table of about `_CURVE_ROWS` validations, with the best and the last one."""
    best = min(range(len(curve)), key=lambda i: curve[i]["validation_nme"][-1])
    every = -(-len(curve) // _CURVE_ROWS)
    rows = [
        row for i, row in enumerate(curve) if i % every == every - 1 or i in (best, len(curve) - 1)
    ]
    passes = max(len(row["validation_nme"]) for row in curve)
    lines = [
        "| step | " + " | ".join(f"K = {k}" for k in range(1, passes + 1)) + " |",
        "|---" * (passes + 1) + "|",
    ]
    for row in rows:
        cells = [f"{nme:.2f}" for nme in row["validation_nme"]]
        cells += ["not run"] * (passes - len(cells))
        lines.append(f"| {row['step']:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
