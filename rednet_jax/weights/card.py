"""The card of released weights, in Markdown, written from the figures measured of them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

_CURVE_ROWS = 12
"""Of the training curve, about."""

_BROKEN = 10
"""Percent of generated faces above 10 % NME from which a pose or a light is named as a failure."""


def model_card(result: dict[str, Any], slices: dict[str, Any], licences: Mapping[str, str]) -> str:
    """Returns the card; every figure in it is one of the JSON's.

    Args:
        result: of experiments/results/NAME_300w_validation.json.
        slices: of experiments/results/NAME_slices.json.
        licences: a sentence for each data set.
    """
    experiment, gflop = result["experiment"], result["gflop"]
    stages = _stages(result)
    model, drawn, losses = experiment["model"], stages[0]["augmentation"], stages[-1]["losses"]
    before = result.get("begun_with")
    earlier = before["experiment"]["stages"] if before else []
    runs = [result, *result.get("averaged_with", [])]
    trained = [*earlier, *(stage for run in runs for stage in _stages(run))]
    by_boxes = {row["boxes"]: row for row in result["results"]}
    nme = {
        (boxes, row["feedback_steps"]): row["nme"]
        for boxes, measured in by_boxes.items()
        for row in measured["per_step"]
    }
    truth, detector = by_boxes["truth"], by_boxes["detector"]
    asked = detector["images"] + detector["missed"]
    within = f"{100 * losses['correct_below']:g} %"
    real, generated = slices["real"], slices["generated"]
    return f"""# {result["name"]}

Finds the {model["landmarks"]} landmarks of 300-W in a crop of one face, with a confidence for each.
It is the `{model["architecture"]}` form of RED-Net: an encoder-decoder whose response maps go back
to its input, K times a picture.

| | |
|---|---|
| parameters | {result["parameters"]:,} |
| file | {result["file_bytes"] / 1e6:.1f} MB, kernels in float16 |
| GFLOP a crop | {gflop["1"]:.2f} at K = 1, {gflop["3"]:.2f} at K = 3 |
| crop | {model["image_size"]} px, {model["crop_margin"]:g} times the landmarks' box (larger side) |
{_registered(model)}| trained with | K = {model["feedback_steps"]}; any K from 1 on runs |

## Training

- Data: {_data(result, trained)}
{_schedule_before(before)}{_runs(runs)}
- Augmentation: rotation by {drawn["rotation"]:g} degrees and log-size by {drawn["log_scale"]:g} \
(standard deviations),
  shift by {drawn["shift"]:g} of the box, mirror, brightness, contrast, saturation, tint, gamma,
  grey, blur up to {drawn["blur"]:g} px, noise, two rectangles with probability \
{drawn["occlusion"]:g} each.

The curve, of the averaged weights ({stages[-1]["data"].get("validation", "300w/validation")}, NME \
in percent, in columns the K's):

{_curves(runs)}

## Terms

The labels of 300-W (iBUG) are for research only and exclude commercial products; so are these
weights. Of what they were made of:

{_terms(result, trained, licences)}

No picture of these sets is in this project. The cards in `data/` say where each comes from.

## Figures: validation, used for selection

{truth["images"]} faces held out of the 300-W training folders. {_chosen_by(stages)}
All in percent; errors are over the {truth["normaliser"]}.
`jitter`: the labels' box displaced at random, its centre by 6 % of its side on each axis, its size
by 10 %. `detector`: dlib's; a face that it does not find is counted, not measured.

| boxes | K | mean (NME) | median | above 8 % | above 10 % | area to 8 % | faces | not found |
|---|---|---|---|---|---|---|---|---|
{_rows(result["results"])}

NME by part of the face, with 95 % intervals ({truth["interval"]["over"]} drawn again):

{_parts([(truth, 1), (truth, 3), (detector, 3)])}

Measured on {result["machine"]["cores"]} cores ({result["machine"]["cpu"]}) with jax \
{result["versions"]["jax"]}. The commands stand in
`experiments/results/{result["name"]}_300w_validation.json` and, of the next two parts, in
`{result["name"]}_slices.json` beside it, which this page is written from.

## By kind of face

The same faces, NME with 95 % intervals. Skin tone is the angle ITA of the cheeks in the photograph
(of CIE L\\*a\\*b\\*, D65), in degrees: above 55 very light, below -30 dark. Light and white balance
move it by as much as people differ: faces in the shade have low values, overexposed ones high
ones. So a third says little of people and nothing of one person. {real["without_tone"]} faces \
have none, their
pictures being black and white or their cheeks too small. Yaw is estimated from the labels, in
degrees to either side.

{_slices(real["slices"])}

## Confidence

`confidence` is the network's estimate of the probability that a point lies within {within} of the
inter-ocular distance. {_calibrated(result.get("calibration"))}

## Where it fails

- Poor boxes: at K = 1 the error is {nme["truth", 1]:.2f} % with boxes around the labels and
  {nme["jitter", 1]:.2f} % with displaced ones; at K = 3 {nme["truth", 3]:.2f} and \
{nme["jitter", 3]:.2f} %.
- Faces that dlib's detector does not find: {detector["missed"]} of {asked} here,
  {_not_found(real["slices"])}.
- Heads on their side or upside down: the rotations that were drawn seldom exceed \
{2 * drawn["rotation"]:g} degrees.
- Profiles: 300-W labels 68 points, hidden ones by guess, and shows few faces turned so far.
- Not measured: other data sets, small faces, and groups of people, of which 300-W says nothing.

By pose and light it was measured on generated faces, {generated["faces"]} people, boxes around \
the exact
points. They are frontal but for what the row says. Degrees: yaw to the picture's right, pitch
upwards, roll clockwise. Exposure in stops from the middle of what is drawn. As a head turns, the
distance of the eyes shrinks, which errors are divided by; the last column is in percent of the
box's diagonal, which does not.

{_generated(generated["settings"])}

{_breaks(generated["settings"])}
`experiments/results/{result["name"]}_slices.png` shows of each row the face that K = 3 errs most
on.

## Video

{_video(result.get("steadiness"))}
"""


def _stages(run: dict[str, Any]) -> list[dict[str, Any]]:
    # Results from before there were stages have the fields of their only one at the top.
    stages: list[dict[str, Any]] = run["experiment"].get("stages", [run["experiment"]])
    return stages


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


def _splits(stages: list[dict[str, Any]]) -> list[str]:
    """What was trained on, each once. Generated data have no splits."""
    # Results from before there were stages name 300-W alone, without a split.
    trained = (stage["data"].get("train", []) for stage in stages)
    return list(dict.fromkeys(split for splits in trained for split in splits))


def _terms(
    result: dict[str, Any], stages: list[dict[str, Any]], licences: Mapping[str, str]
) -> str:
    names = ["300w", *(split.split("/")[0] for split in _splits(stages) if "/" in split)]
    lines = [
        textwrap.fill(
            f"- {name}: {licences[name]}", 100, subsequent_indent="  ", break_long_words=False
        )
        for name in dict.fromkeys(names)
    ]
    if begun := result.get("init_from"):
        lines.append(f"- the weights of `{begun}`: what its card says.")
    return "\n".join(lines)


def _with_interval(nme: float | None, bounds: list[float] | None) -> str:
    if nme is None:
        return "none"
    return f"{nme:.2f}" + ("" if bounds is None else f" ({bounds[0]:.2f} to {bounds[1]:.2f})")


def _parts(columns: list[tuple[dict[str, Any], int]]) -> str:
    """A table with a row for each part of the face and a column for each (boxes' result, K)."""
    rows = [
        next(row for row in measured["per_step"] if row["feedback_steps"] == steps)
        for measured, steps in columns
    ]
    heads = [f"{measured['boxes']}, K = {steps}" for measured, steps in columns]
    lines = ["| part | " + " | ".join(heads) + " |", "|---" * (len(rows) + 1) + "|"]
    for part in rows[0]["groups"]:
        told = [
            _with_interval(row["groups"][part], row["intervals"]["groups"][part]) for row in rows
        ]
        lines.append(f"| {part} | " + " | ".join(told) + " |")
    return "\n".join(lines)


def _slices(rows: list[dict[str, Any]]) -> str:
    steps = [row["feedback_steps"] for row in rows[0]["per_step"]]
    heads = ["boxes", "slice", "faces", "not found", *(f"K = {k}" for k in steps)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in sorted(rows, key=lambda row: row["by"]):
        name = row["slice"]
        if row["range"] is not None:
            low, high = row["range"]
            name = f"{row['by']} {name}: {low:.0f} to {high:.0f}"
        told = [_with_interval(one["nme"], one["interval"]) for one in row["per_step"]]
        cells = [row["boxes"], name, str(row["faces"]), str(row["missed"]), *told]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _not_found(rows: list[dict[str, Any]]) -> str:
    """How many faces of two thirds the detector missed."""
    told = [
        f"{row['missed']} of {row['faces'] + row['missed']} in the {row['slice']} third"
        for row in rows
        if row["boxes"] == "detector" and row["slice"] in ("darkest", "most turned")
    ]
    return " and ".join(told)


def _generated(settings: list[dict[str, Any]]) -> str:
    steps = [row["feedback_steps"] for row in settings[0]["per_step"]]
    last = f"K = {steps[-1]}"
    heads = ["set", *(f"K = {k}" for k in steps), f"above 10 %, {last}", f"of the diagonal, {last}"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in settings:
        told = [_with_interval(one["nme"], one["interval"]) for one in row["per_step"]]
        end = row["per_step"][-1]
        cells = [_set(row), *told, f"{end['above_10']:.0f}", f"{end['nme_of_diagonal']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _set(row: dict[str, Any]) -> str:
    if row["varied"] == "light":
        return f"hard light from {row['value']}"
    return (
        "frontal, all else as drawn"
        if row["varied"] == "nothing"
        else (f"{row['varied']} {row['value']:+g}")
    )


def _breaks(settings: list[dict[str, Any]]) -> str:
    """Where more than one generated face in ten is above 10 %, in words."""
    broken = [_set(row) for row in settings if row["per_step"][-1]["above_10"] > _BROKEN]
    steps = settings[0]["per_step"][-1]["feedback_steps"]
    if not broken:
        return f"At K = {steps} no row has more than one face in ten above 10 %."
    said = f"At K = {steps} more than one face in ten is above 10 % with {', '.join(broken)}."
    return textwrap.fill(said, 100)


def _registered(model: dict[str, Any]) -> str:
    """Rows of the card's table that say where later passes look; none where all look alike."""
    if model.get("register", "none") == "none":
        return ""
    size = round(model["image_size"] * model["context"])
    what = model["register"].replace("_", " and ")
    return (
        f"| picture | {size} px; the first pass sees its middle |\n"
        f"| later passes | a crop taken anew by the points found ({what}), "
        f"{model['registered_margin']:g} times their box |\n"
    )


def _calibrated(calibration: dict[str, Any] | None) -> str:
    if calibration is None:
        return "It was trained on the training faces and is not calibrated on others."
    ece = calibration["ece"]
    return (
        f"It was calibrated on the validation\nfaces, by a line through its logits "
        f"({calibration['slope']:.3f} times, {calibration['intercept']:+.3f}): the expected "
        f"calibration\nerror went from {ece['before']:.4f} to {ece['after']:.4f}, cross-validated."
    )


def _video(steadiness: dict[str, Any] | None) -> str:
    if steadiness is None:
        return "It was trained on single pictures. Its f_tRNN is untrained and adds nothing."
    rows = "\n".join(
        f"| {row['way']} | {row['nme_inner']:.2f} | {row['nme_all']:.2f} "
        f"| {row['jitter_inner']:.2f} | {row['jitter_all']:.2f} | {row['lost']:.1f} |"
        for row in steadiness["ways"]
    )
    return f"""{steadiness["clips"]} clips of the 300-VW form held out of training, \
{steadiness["labelled_frames"]:,} frames with machine labels, tracked from
the detector on; means over clips, percent of the inter-ocular distance. NME and jitter of the inner
51 points and of all 68; frames lost in percent of the labelled ones. The labels' own jitter, which
holds what the faces really moved, is {steadiness["label_jitter_inner"]:.2f} and \
{steadiness["label_jitter_all"]:.2f}.

| way | NME, inner | NME, all | jitter, inner | jitter, all | lost |
|---|---|---|---|---|---|
{rows}"""


def _runs(runs: list[dict[str, Any]]) -> str:
    """The items of the run that gave the weights, or of those whose mean they are."""
    if len(runs) == 1:
        (run,) = runs
        return (
            f"{_schedule(_stages(run), run['experiment']['seed'])}\n"
            f"  Released is step {run['best_step']:,}.{_ended(run)}"
        )
    items = [
        f"- Released is the mean of the weights of {len(runs)} runs that began with the same "
        "(Wortsman et al.,\n  ICML 2022)."
    ]
    for number, run in enumerate(runs, 1):
        for stage in _stages(run):
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


def _data(result: dict[str, Any], stages: list[dict[str, Any]]) -> str:
    """What was trained on, as sentences of the card."""
    splits = _splits(stages)
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


def _chosen_by(stages: list[dict[str, Any]]) -> str:
    split = stages[-1]["data"].get("validation")
    # Results from before there were splits of several data sets name it without its set.
    if split in ("validation", "300w/validation"):
        return "The released step was chosen by\nthem, so they flatter."
    return f"The released step was chosen by\n{split}, and the confidence calibrated on them."


def _rows(results: list[dict[str, Any]]) -> str:
    return "\n".join(
        f"| {measured['boxes']} | {row['feedback_steps']} | {row['nme']:.2f} | {row['median']:.2f} "
        f"| {row['failure_rate_8']:.1f} | {row['failure_rate_10']:.1f} | {row['auc_8']:.1f} "
        f"| {measured['images']} | {measured['missed']} |"
        for measured in results
        for row in measured["per_step"]
    )
