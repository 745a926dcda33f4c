"""The card of released weights in Markdown, written from their measured figures."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from rednet_jax.fields import current_names
from rednet_jax.landmarks.builtin import scheme_of
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.card_training import chosen_by, stages_of, terms, training

_BROKEN = 10
"""Percent of generated faces above 10 % NME beyond which a pose or light is listed as a failure."""


def model_card(result: dict[str, Any], slices: dict[str, Any], licences: Mapping[str, str]) -> str:
    """Returns the card; every figure in it is from the JSON.

    Args:
        result: content of experiments/results/NAME_300w_validation.json.
        slices: content of experiments/results/NAME_slices.json.
        licences: a sentence for each data set.
    """
    experiment, gflop = result["experiment"], result["gflop"]
    stages = stages_of(result)
    model = current_names(experiment["model"], RedNetConfig)
    landmarks = scheme_of(model["scheme"]).count
    augmentation, losses = stages[0]["augmentation"], stages[-1]["losses"]
    by_boxes = {row["boxes"]: row for row in result["results"]}
    nme = {
        (boxes, row["feedback_steps"]): row["nme"]
        for boxes, measured in by_boxes.items()
        for row in measured["per_step"]
    }
    truth, detector = by_boxes["truth"], by_boxes["detector"]
    faces = detector["images"] + detector["missed"]
    within = f"{100 * losses['correct_below']:g} %"
    real, generated = slices["real"], slices["generated"]
    return f"""# {result["name"]}

Predicts the {landmarks} landmarks of 300-W in a crop of one face, with a confidence for each.
The architecture is the preset `{model["architecture"]}` of RED-Net: an encoder-decoder whose
response maps are fed back to its input, in K passes per image.

| | |
|---|---|
| parameters | {result["parameters"]:,} |
| file | {result["file_bytes"] / 1e6:.1f} MB, kernels in float16 |
| GFLOP per crop | {gflop["1"]:.2f} at K = 1, {gflop["3"]:.2f} at K = 3 |
| crop | {model["image_size"]} px, {model["crop_margin"]:g} times the landmarks' box (larger side) |
{_recrops(model)}| trained with | K = {model["feedback_steps"]}; any K >= 1 can be used |

## Training

{training(result)}

## Terms

The labels of 300-W (iBUG) are for research only and exclude commercial products; so are these
weights. Terms of the training data:

{terms(result, licences)}

This project has no images of these data sets. The cards in `data/` describe their sources.

## Figures: validation, used for selection

{truth["images"]} faces held out of the 300-W training folders. {chosen_by(stages)}
All figures are in percent. Normaliser of the errors: {truth["normaliser"]}.
`jitter`: the labels' box displaced at random, its centre by 6 % of its side on each axis, its size
by 10 % (standard deviations). `detector`: YuNet, crops rotated upright by its points. Mean and
median are of the faces that it finds; faces that it does not find count as failures (above 8 % and
10 %, and in the area under the curve of cumulative errors).

| boxes | K | mean (NME) | median | above 8 % | above 10 % | area to 8 % | found | not found |
|---|---|---|---|---|---|---|---|---|
{_rows(result["results"])}

NME by part of the face, with 95 % intervals ({truth["interval"]["over"]} resampled):

{_parts([(truth, 1), (truth, 3), (detector, 3)])}

Measured on {result["machine"]["cores"]} cores ({result["machine"]["cpu"]}) with jax \
{result["versions"]["jax"]}. This page is generated from
`experiments/results/{result["name"]}_300w_validation.json` and, for the next section and the
generated faces, `{result["name"]}_slices.json`, which have the commands.

## By kind of face

The same faces, NME with 95 % intervals. Skin tone is the angle ITA of the cheeks in the photograph
(CIE L\\*a\\*b\\*, D65), in degrees: above 55 very light, below -30 dark. Light and white balance
change it as much as people differ: it is low for faces in the shade and high for overexposed ones.
So a difference between thirds says little about groups of people, and nothing about a person.
{real["without_tone"]} faces have no value, because the image is black and white or the cheeks are
too small. Yaw is estimated from the labels, in degrees to either side.

{_slices(real["slices"])}

## Confidence

`confidence` is the predicted probability that a landmark's error is at most {within} of the
inter-ocular distance. {_calibrated(result.get("calibration"))}

## Where it fails

- Poor boxes: at K = 1 the error is {nme["truth", 1]:.2f} % with boxes around the labels and
  {nme["jitter", 1]:.2f} % with displaced ones; at K = 3 {nme["truth", 3]:.2f} and \
{nme["jitter", 3]:.2f} %.
- Faces that the detector does not find: {detector["missed"]} of {faces} here,
  {_not_found(real["slices"])}.
- Heads on their side or upside down: rotations in training seldom exceed \
{2 * augmentation["rotation"]:g} degrees.
- Profiles: 300-W has guessed labels for hidden landmarks, and few faces with a large yaw.
- Not measured: other data sets, small faces, and groups of people, for which 300-W has no labels.

The errors by pose and light are of generated faces of {generated["faces"]} people, with boxes
around the exact landmarks. Faces are frontal unless the row sets a pose; all else is random.
Degrees: yaw to the image's right, pitch upwards, roll clockwise. Exposure is in stops relative to
the middle of its random range. The inter-ocular distance, by which errors are divided, shrinks with
yaw; the last column is in percent of the box's diagonal, which does not.

{_generated(generated["settings"])}

{_breaks(generated["settings"])}
`experiments/results/{result["name"]}_slices.png` shows for each row the face with the largest error
at K = 3.

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
        cells = [
            _with_interval(row["groups"][part], row["intervals"]["groups"][part]) for row in rows
        ]
        lines.append(f"| {part} | " + " | ".join(cells) + " |")
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
        errors = [_with_interval(step["nme"], step["interval"]) for step in row["per_step"]]
        cells = [row["boxes"], name, str(row["faces"]), str(row["missed"]), *errors]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _not_found(rows: list[dict[str, Any]]) -> str:
    """The numbers of missed faces in two of the slices."""
    texts = [
        f"{row['missed']} of {row['faces'] + row['missed']} in the {row['slice']} third"
        for row in rows
        if row["boxes"] == "detector" and row["slice"] in ("darkest", "most turned")
    ]
    return " and ".join(texts)


def _generated(settings: list[dict[str, Any]]) -> str:
    steps = [row["feedback_steps"] for row in settings[0]["per_step"]]
    last = f"K = {steps[-1]}"
    heads = ["set", *(f"K = {k}" for k in steps), f"above 10 %, {last}", f"of the diagonal, {last}"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in settings:
        errors = [_with_interval(step["nme"], step["interval"]) for step in row["per_step"]]
        end = row["per_step"][-1]
        cells = [_set(row), *errors, f"{end['above_10']:.0f}", f"{end['nme_of_diagonal']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _set(row: dict[str, Any]) -> str:
    if row["varied"] == "light":
        return f"hard light from {row['value']}"
    if row["varied"] == "nothing":
        return "frontal, all else random"
    return f"{row['varied']} {row['value']:+g}"


def _breaks(settings: list[dict[str, Any]]) -> str:
    """A sentence with the settings in which more than one generated face in ten is above 10 %."""
    broken = [_set(row) for row in settings if row["per_step"][-1]["above_10"] > _BROKEN]
    steps = settings[0]["per_step"][-1]["feedback_steps"]
    if not broken:
        return f"At K = {steps} no row has more than one face in ten above 10 %."
    text = f"At K = {steps} more than one face in ten is above 10 % with {', '.join(broken)}."
    return textwrap.fill(text, 100)


def _recrops(model: dict[str, Any]) -> str:
    """Rows of the card's table on re-crops, or "" without them."""
    if model.get("recrop", "none") == "none":
        return ""
    size = round(model["image_size"] * model["context"])
    transform = model["recrop"].replace("_", " and ")
    return (
        f"| input | {size} px; the first pass has the crop at its centre |\n"
        f"| later passes | a re-crop around the last landmarks ({transform}), "
        f"{model['recrop_margin']:g} times their box |\n"
    )


def _calibrated(calibration: dict[str, Any] | None) -> str:
    if calibration is None:
        return "It was trained on the training faces, and not calibrated on others."
    ece = calibration["ece"]
    return (
        f"It was calibrated on the validation\nfaces with a linear function of its logits "
        f"({calibration['slope']:.3f} times, {calibration['intercept']:+.3f}). The expected "
        f"calibration\nerror is {ece['before']:.4f} before and {ece['after']:.4f} after it "
        "(cross-validated)."
    )


def _video(steadiness: dict[str, Any] | None) -> str:
    if steadiness is None:
        return "It was trained on single images. Its f_tRNN is untrained and has no effect."
    rows = "\n".join(
        f"| {row['way']} | {row['nme_inner']:.2f} | {row['nme_all']:.2f} "
        f"| {row['jitter_inner']:.2f} | {row['jitter_all']:.2f} | {row['lost']:.1f} |"
        for row in steadiness["ways"]
    )
    return f"""{steadiness["clips"]} clips in the format of 300-VW, held out of training, with \
{steadiness["labelled_frames"]:,} frames with machine labels.
The tracker starts with the detector. It carries nothing ("each frame alone"), the feedback maps,
or these and the LSTM's state ("recurrence"); "filter" is a one-euro filter. Means over clips in
percent of the inter-ocular distance: NME and jitter of the inner 51 landmarks and of all 68; lost
frames are in percent of the labelled ones.
The labels' jitter, which includes the true motion of the faces, is \
{steadiness["label_jitter_inner"]:.2f} and {steadiness["label_jitter_all"]:.2f}.

| carried | NME, inner | NME, all | jitter, inner | jitter, all | lost |
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
