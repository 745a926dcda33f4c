"""The card of released weights, in Markdown, written from the figures measured of them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from rednet_jax.fields import current_names
from rednet_jax.landmarks.builtin import scheme_of
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.card_training import chosen_by, stages_of, terms, training

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
    stages = stages_of(result)
    model = current_names(experiment["model"], RedNetConfig)
    landmarks = scheme_of(model["scheme"]).count
    drawn, losses = stages[0]["augmentation"], stages[-1]["losses"]
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

Finds the {landmarks} landmarks of 300-W in a crop of one face, with a confidence for each.
It is the `{model["architecture"]}` form of RED-Net: an encoder-decoder whose response maps go back
to its input, K times an image.

| | |
|---|---|
| parameters | {result["parameters"]:,} |
| file | {result["file_bytes"] / 1e6:.1f} MB, kernels in float16 |
| GFLOP a crop | {gflop["1"]:.2f} at K = 1, {gflop["3"]:.2f} at K = 3 |
| crop | {model["image_size"]} px, {model["crop_margin"]:g} times the landmarks' box (larger side) |
{_recrops(model)}| trained with | K = {model["feedback_steps"]}; any K from 1 on runs |

## Training

{training(result)}

## Terms

The labels of 300-W (iBUG) are for research only and exclude commercial products; so are these
weights. Of what they were made of:

{terms(result, licences)}

No image of these sets is in this project. The cards in `data/` say where each comes from.

## Figures: validation, used for selection

{truth["images"]} faces held out of the 300-W training folders. {chosen_by(stages)}
All in percent; errors are over the {truth["normaliser"]}.
`jitter`: the labels' box displaced at random, its centre by 6 % of its side on each axis, its size
by 10 %. `detector`: YuNet, crops upright by its points. A face that it does not find has no error,
so mean and median are of those found; above 8 % and 10 %, and in the area, it counts as a failure.

| boxes | K | mean (NME) | median | above 8 % | above 10 % | area to 8 % | found | not found |
|---|---|---|---|---|---|---|---|---|
{_rows(result["results"])}

NME by part of the face, with 95 % intervals ({truth["interval"]["over"]} resampled):

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
images being black and white or their cheeks too small. Yaw is estimated from the labels, in
degrees to either side.

{_slices(real["slices"])}

## Confidence

`confidence` is the network's estimate of the probability that a point lies within {within} of the
inter-ocular distance. {_calibrated(result.get("calibration"))}

## Where it fails

- Poor boxes: at K = 1 the error is {nme["truth", 1]:.2f} % with boxes around the labels and
  {nme["jitter", 1]:.2f} % with displaced ones; at K = 3 {nme["truth", 3]:.2f} and \
{nme["jitter", 3]:.2f} %.
- Faces that the detector does not find: {detector["missed"]} of {asked} here,
  {_not_found(real["slices"])}.
- Heads on their side or upside down: the rotations that were drawn seldom exceed \
{2 * drawn["rotation"]:g} degrees.
- Profiles: 300-W labels 68 points, hidden ones by guess, and shows few faces turned so far.
- Not measured: other data sets, small faces, and groups of people, of which 300-W says nothing.

By pose and light it was measured on generated faces, {generated["faces"]} people, boxes around \
the exact
points. They are frontal but for what the row says. Degrees: yaw to the image's right, pitch
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


def _recrops(model: dict[str, Any]) -> str:
    """Rows of the card's table that say where later passes look; none where all look alike."""
    if model.get("recrop", "none") == "none":
        return ""
    size = round(model["image_size"] * model["context"])
    what = model["recrop"].replace("_", " and ")
    return (
        f"| image | {size} px; the first pass sees its middle |\n"
        f"| later passes | a re-crop by the points found ({what}), "
        f"{model['recrop_margin']:g} times their box |\n"
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
        return "It was trained on single images. Its f_tRNN is untrained and adds nothing."
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


def _rows(results: list[dict[str, Any]]) -> str:
    return "\n".join(
        f"| {measured['boxes']} | {row['feedback_steps']} | {row['nme']:.2f} | {row['median']:.2f} "
        f"| {row['with_missed']['failure_rate_8']:.1f} "
        f"| {row['with_missed']['failure_rate_10']:.1f} | {row['with_missed']['auc_8']:.1f} "
        f"| {measured['images']} | {measured['missed']} |"
        for measured in results
        for row in measured["per_step"]
    )
