"""What a card tells of how weights were trained, on what, and on whose terms."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

_CURVE_ROWS = 12
"""Of the training curve, about."""


def training(result: dict[str, Any]) -> str:
    """Returns the card's part on training, but for its heading."""
    stages = stages_of(result)
    drawn = stages[0]["augmentation"]
    runs = _all_runs(result)
    return f"""- Data: {_data(result)}
{_schedule_before(result.get("begun_with"))}{_runs(runs)}
- Augmentation: rotation by {drawn["rotation"]:g} degrees and log-size by {drawn["log_scale"]:g} \
(standard deviations),
  shift by {drawn["shift"]:g} of the box, mirror, brightness, contrast, saturation, tint, gamma,
  grey, blur up to {drawn["blur"]:g} px, noise, two rectangles with probability \
{drawn["occlusion"]:g} each.

The curve, of the averaged weights ({stages[-1]["data"].get("validation", "300w/validation")}, NME \
in percent, in columns the K's):

{_curves(runs)}"""


def terms(result: dict[str, Any], licences: Mapping[str, str]) -> str:
    """Returns a line for each data set that was trained on, and for the weights begun with."""
    names = ["300w", *(split.split("/")[0] for split in _splits(result) if "/" in split)]
    lines = [
        textwrap.fill(
            f"- {name}: {licences[name]}", 100, subsequent_indent="  ", break_long_words=False
        )
        for name in dict.fromkeys(names)
    ]
    if begun := result.get("init_from"):
        lines.append(f"- the weights of `{begun}`: what its card says.")
    return "\n".join(lines)


def chosen_by(stages: list[dict[str, Any]]) -> str:
    """Returns how the released step was chosen, given the stages of its run."""
    split = stages[-1]["data"].get("validation")
    # Results from before there were splits of several data sets name it without its set.
    if split in ("validation", "300w/validation"):
        return "The released step was chosen by\nthem, so they flatter."
    return f"The released step was chosen by\n{split}, and the confidence calibrated on them."


def stages_of(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the stages of a run."""
    # Results from before there were stages have the fields of their only one at the top.
    stages: list[dict[str, Any]] = run["experiment"].get("stages", [run["experiment"]])
    return stages


def _all_runs(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The run that gave the weights, or those whose mean they are."""
    return [result, *result.get("averaged_with", [])]


def _data(result: dict[str, Any]) -> str:
    """What was trained on, as sentences of the card."""
    splits = _splits(result)
    if begun := result.get("init_from"):
        said = result.get("note") or "Its card says what it saw."
        return f"{', '.join(splits)}, from the weights of `{begun}` on.\n  {said}"
    others = [split for split in splits if split != "300w/train" and "/" in split]
    note = f"\n  {result['note']}" if result.get("note") else ""
    beside = f"\n  Beside them {', '.join(others)}." if others else ""
    return (
        f"{result['training_faces']:,} faces of the 300-W training folders, those of the validation"
        f"\n  split left out.{beside}{note}"
    )


def _splits(result: dict[str, Any]) -> list[str]:
    """What all runs were trained on, each once. Generated data have no splits."""
    before = result.get("begun_with")
    runs = [*([before] if before else []), *_all_runs(result)]
    # Results from before there were stages name 300-W alone, without a split.
    trained = (stage["data"].get("train", []) for run in runs for stage in stages_of(run))
    return list(dict.fromkeys(split for splits in trained for split in splits))


def _runs(runs: list[dict[str, Any]]) -> str:
    """The items of the run that gave the weights, or of those whose mean they are."""
    if len(runs) == 1:
        (run,) = runs
        return (
            f"{_schedule(stages_of(run), run['experiment']['seed'])}\n"
            f"  Released is step {run['best_step']:,}.{_ended(run)}"
        )
    items = [
        f"- Released is the mean of the weights of {len(runs)} runs that began with the same "
        "(Wortsman et al.,\n  ICML 2022)."
    ]
    for number, run in enumerate(runs, 1):
        for stage in stages_of(run):
            mix = zip(stage["data"]["train"], stage["data"]["weights"], strict=True)
            told = ", ".join(f"{split} ({weight:g})" for split, weight in mix)
            rates = ", ".join(rate.replace("*", " at ") for rate in stage["optimiser"]["rates"])
            told += f"; of the learning rate {rates}" if rates else ""
            items.append(
                f"{textwrap.fill(f'- Run {number}: {told}.', 100, subsequent_indent='  ')}\n"
                f"  {_stage(stage, run['experiment']['seed'])}"
            )
        items[-1] += f"\n  Of it step {run['best_step']:,} is taken.{_ended(run)}"
    return "\n".join(items)


def _schedule(stages: list[dict[str, Any]], seed: int) -> str:
    """One item of the card for each stage; the last one ends in the middle of a list item."""
    names = [f"Stage `{stage['name']}`" if len(stages) > 1 else "Schedule" for stage in stages]
    return "\n".join(
        f"- {name}: {_stage(stage, seed)}" for name, stage in zip(names, stages, strict=True)
    )


def _stage(stage: dict[str, Any], seed: int) -> str:
    rate = stage["optimiser"]
    return (
        f"{stage['steps']:,} steps of {_batch(stage)}, the first "
        f"{stage['one_pass_steps']:,} with one pass; AdamW, learning rate\n"
        f"  {rate['learning_rate']:g} after {rate['warmup_steps']} steps of warm-up and down a "
        f"cosine to 0, weight decay {rate['weight_decay']:g},\n"
        f"  gradients clipped at norm {rate['clip_norm']:g}, weights averaged with decay "
        f"{rate['average']:g}; seed {seed}."
    )


def _schedule_before(run: dict[str, Any] | None) -> str:
    """The items of the stages of the run that this one began with."""
    if run is None:
        return ""
    experiment = run["experiment"]
    return (
        f"{_schedule(experiment['stages'], experiment['seed'])}\n"
        f"  This run, `{experiment['name']}`, gave its step {run['best_step']:,}, from which the "
        f"next stage went on.{_ended(run)}\n"
    )


def _ended(run: dict[str, Any]) -> str:
    """Where a run was trained and cut off; nothing of old results that do not say."""
    if "trained_on" not in run:
        return ""
    machine, versions = run["trained_on"]["machine"], run["trained_on"]["versions"]
    device = f"{machine['cores']} CPU cores" if machine["device"] == "cpu" else machine["device"]
    text = f"\n  Trained on {device} with jax {versions['jax']}"
    steps = sum(stage["steps"] for stage in run["experiment"]["stages"])
    if run["last_step"] < steps:
        text += f"; cut off after step {run['last_step']:,} of {steps:,}"
    if "training_seconds" in run:
        return f"{text}.\n  The steps took {run['training_seconds'] / 3600:.1f} hours."
    text += f".\n  How long it took was not kept; `experiments/{run['experiment']['name']}.py` has "
    text += "the time of a step"
    return f"{text}."


def _batch(stage: dict[str, Any]) -> str:
    clips = stage.get("clips")
    return (
        f"{stage['batch']} clips of {clips['frames']} frames"
        if clips
        else (f"{stage['batch']} faces")
    )


def _curves(runs: list[dict[str, Any]]) -> str:
    """A table for each run."""
    tables = [_curve(run["training_curve"]) for run in runs]
    if len(tables) == 1:
        return tables[0]
    return "\n\n".join(f"Run {number}:\n\n{table}" for number, table in enumerate(tables, 1))


def _curve(curve: list[dict[str, Any]]) -> str:
    """The validations as a table, some of them where there are many, the best among them."""
    best = min(range(len(curve)), key=lambda i: curve[i]["validation_nme"][-1])
    every = -(-len(curve) // _CURVE_ROWS)
    shown = [
        row for i, row in enumerate(curve) if i % every == every - 1 or i in (best, len(curve) - 1)
    ]
    passes = max(len(row["validation_nme"]) for row in curve)
    lines = [
        "| step | " + " | ".join(f"K = {k}" for k in range(1, passes + 1)) + " |",
        "|---" * (passes + 1) + "|",
    ]
    for row in shown:
        told = [f"{nme:.2f}" for nme in row["validation_nme"]]
        told += ["not run"] * (passes - len(told))
        lines.append(f"| {row['step']:,} | " + " | ".join(told) + " |")
    return "\n".join(lines)
