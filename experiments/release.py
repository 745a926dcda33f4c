"""Releases the best weights of a finished run: the file, its figures and its model card.

    python experiments/release.py RUN_DIR --name compact

calibrates the confidence, writes rednet_jax/weights/NAME.safetensors (float16), measures it by
`rednet eval`, and by `rednet bench steadiness` if it was trained on clips, into
experiments/results/NAME_300w_validation.json, and writes rednet_jax/weights/NAME.md from that JSON
alone. 300-W must be prepared, and 300-VW for what was trained on clips. 2 CPU cores: about two
minutes, five with clips.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from rednet_jax import cli
from rednet_jax.bench.scan import python_loop
from rednet_jax.bench.steadiness import bench_steadiness
from rednet_jax.data.prepare import data_folder
from rednet_jax.data.sources import read_split
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.calibration import calibrate
from rednet_jax.evaluate.provenance import provenance
from rednet_jax.files import write_text
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig
from rednet_jax.tracking.streams import is_recurrent
from rednet_jax.weights.store import load, parameter_count, write_weights

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "rednet_jax" / "weights"
RESULTS = ROOT / "experiments" / "results"
BOXES = ("truth", "jitter", "detector")
STEPS = (1, 2, 3)


def release(
    run_dir: Path,
    name: str,
    data_dir: Path | None = None,
    *,
    init_from: str | None = None,
    note: str | None = None,
    weights_dir: Path = WEIGHTS,
    results_dir: Path = RESULTS,
) -> None:
    """Writes weights, figures and card.

    Args:
        run_dir: of the run; need not be finished.
        name: of the release.
        data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.
        init_from: what the run began with, if anything: the name of released weights, or the
            folder of another run, which is then told of with this one.
        note: a sentence for the card's part on data.
        weights_dir: where weights and card go.
        results_dir: where the figures go.

    Raises:
        RednetError: a folder that holds no run, or 300-W is not prepared.
    """
    run = _read_run(run_dir)
    begun_with = None
    if init_from is not None and (Path(init_from) / "config.json").exists():
        begun_with = _read_run(Path(init_from))
    path = weights_dir / f"{name}.safetensors"
    with tempfile.TemporaryDirectory() as folder:
        calibration = calibrate(run_dir.resolve(), folder, data_dir=data_dir)
        config, variables = load(Path(folder) / f"{calibration['name']}.safetensors")
    write_weights(path, config, variables, dtype="float16")
    checkpoint = name if weights_dir == WEIGHTS else str(path)
    result = {
        "name": name,
        **provenance(
            f"python experiments/release.py RUN_DIR --name {name}"
            + (f" --init-from {'RUN_DIR' if begun_with else init_from}" if init_from else "")
            + (f" --note '{note}'" if note else ""),
            run["experiment"]["seed"],
        ),
        "init_from": None if begun_with else init_from,
        "begun_with": begun_with,
        **run,
        "note": note,
        "training_faces": len(read_split("300w", "train", data_dir)),
        "parameters": parameter_count(variables),
        "file_bytes": path.stat().st_size,
        "gflop": {str(steps): _gflop(config, steps) for steps in STEPS},
        "results": [_evaluate(checkpoint, name, boxes, data_dir) for boxes in BOXES],
        "calibration": {
            "slope": calibration["slope"],
            "intercept": calibration["intercept"],
            "ece": {when: calibration[when]["ece"] for when in ("before", "after")},
        },
        "steadiness": _steadiness(checkpoint, data_dir) if is_recurrent(variables) else None,
    }
    write_text(results_dir / f"{name}_300w_validation.json", json.dumps(result, indent=2) + "\n")
    write_text(weights_dir / f"{name}.md", model_card(result))


def _read_run(run_dir: Path) -> dict[str, Any]:
    """A run as plain JSON: its `experiment`, `best_step`, `last_step`, `training_curve` (step and
    validation NME of each validation) and `trained_on`, machine and versions of its beginning."""
    try:
        experiment = json.loads((run_dir / "config.json").read_text(encoding="utf-8"))
        lines, places = (
            (run_dir / name).read_text(encoding="utf-8").splitlines()
            for name in ("metrics.jsonl", "environment.jsonl")
        )
    except OSError as error:
        raise RednetError(f"{error.filename}: {error.strerror}") from error
    rows = [json.loads(line) for line in lines]
    curve = [row for row in rows if "validation_nme" in row]
    first = json.loads(places[0])
    return {
        "experiment": experiment,
        "best_step": min(curve, key=lambda row: row["validation_nme"][-1])["step"],
        "last_step": rows[-1]["step"],
        "training_curve": curve,
        "trained_on": {name: first[name] for name in ("git_commit", "machine", "versions")},
    }


def _evaluate(checkpoint: str, name: str, boxes: str, data_dir: Path | None) -> dict[str, Any]:
    def words(checkpoint: str, out: str) -> list[str]:
        return [
            *("eval", checkpoint, "--data", "300w", "--split", "validation"),
            *("--feedback-steps", ",".join(map(str, STEPS)), "--boxes", boxes, "--json", out),
        ]

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        where = ["--data-dir", str(data_folder(data_dir))]
        if cli.main([*words(checkpoint, str(out)), *where]) != 0:
            raise RednetError(f"{checkpoint}: could not be evaluated with boxes {boxes}")
        measured: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    command = " ".join(["rednet", *words(name, "OUT.json")])
    return {"command": command, **measured}


def _steadiness(checkpoint: str, data_dir: Path | None) -> dict[str, Any]:
    measured = bench_steadiness(checkpoint, data_dir=data_dir)
    kept = ("clips", "labelled_frames", "label_jitter_inner", "label_jitter_all", "ways")
    return {"command": measured["provenance"]["command"], **{key: measured[key] for key in kept}}


def _gflop(config: RedNetConfig, feedback_steps: int) -> float:
    """Of one crop. Unrolled: the compiler counts the body of a loop once, however often it runs."""
    variables = jax.eval_shape(lambda: rednet.init(config, jax.random.key(0)))
    crop = jax.ShapeDtypeStruct((1, config.picture_size, config.picture_size, 3), jnp.float32)

    def align(variables: rednet.Tree, crop: jax.Array) -> jax.Array:
        out, _ = rednet.align_image(
            config, variables, crop, feedback_steps=feedback_steps, scan=python_loop
        )
        return out.landmarks

    cost = jax.jit(align).lower(variables, crop).cost_analysis()
    return round(cost["flops"] / 1e9, 4)


def model_card(result: dict[str, Any]) -> str:
    """The card in Markdown; every number in it is one of the JSON's."""
    experiment, gflop = result["experiment"], result["gflop"]
    # Results from before there were stages have the fields of their only one at the top.
    stages = experiment.get("stages", [experiment])
    model, drawn, losses = experiment["model"], stages[0]["augmentation"], stages[-1]["losses"]
    before = result.get("begun_with")
    earlier = before["experiment"]["stages"] if before else []
    by_boxes = {row["boxes"]: row for row in result["results"]}
    nme = {
        (boxes, row["feedback_steps"]): row["nme"]
        for boxes, measured in by_boxes.items()
        for row in measured["per_step"]
    }
    truth, detector = by_boxes["truth"], by_boxes["detector"]
    asked = detector["images"] + detector["missed"]
    within = f"{100 * losses['correct_below']:g} %"
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

- Data: {_data(result, [*earlier, *stages])}
- Terms: the labels of 300-W (iBUG) are for research only and exclude commercial products; so are
  these weights.
{_schedule_before(before)}{_schedule(stages, result["seed"])}
  Released is step {result["best_step"]:,}.{_ended(result)}
- Augmentation: rotation by {drawn["rotation"]:g} degrees and log-size by {drawn["log_scale"]:g} \
(standard deviations),
  shift by {drawn["shift"]:g} of the box, mirror, brightness, contrast, saturation, tint, gamma,
  grey, blur up to {drawn["blur"]:g} px, noise, two rectangles with probability \
{drawn["occlusion"]:g} each.

## Figures: validation, used for selection

{truth["images"]} faces held out of the 300-W training folders. {_chosen_by(stages)}
All in percent; errors are over the {truth["normaliser"]}.
`jitter`: the labels' box displaced at random, its centre by 6 % of its side on each axis, its size
by 10 %. `detector`: dlib's; a face that it does not find is counted, not measured.

| boxes | K | mean (NME) | median | above 8 % | above 10 % | area to 8 % | faces | not found |
|---|---|---|---|---|---|---|---|---|
{_rows(result["results"])}

Measured on {result["machine"]["cores"]} cores ({result["machine"]["cpu"]}) with jax \
{result["versions"]["jax"]}. The commands stand in
`experiments/results/{result["name"]}_300w_validation.json`, which this page is written from.

## Confidence

`confidence` is the network's estimate of the probability that a point lies within {within} of the
inter-ocular distance. {_calibrated(result.get("calibration"))}

## Where it is likely to fail

- Poor boxes: at K = 1 the error is {nme["truth", 1]:.2f} % with boxes around the labels and
  {nme["jitter", 1]:.2f} % with displaced ones; at K = 3 {nme["truth", 3]:.2f} and \
{nme["jitter", 3]:.2f} %.
- Faces that dlib's detector does not find: {detector["missed"]} of {asked} here.
- Heads on their side or upside down: the rotations that were drawn seldom exceed \
{2 * drawn["rotation"]:g} degrees.
- Profiles: 300-W labels 68 points, hidden ones by guess, and shows few faces turned so far.
- Not measured: other data sets, small faces, poor light, and differences between groups of people,
  of which 300-W says nothing.

## Video

{_video(result.get("steadiness"))}
"""


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


def _schedule(stages: list[dict[str, Any]], seed: int) -> str:
    """One item of the card for each stage; the last one ends in the middle of a list item."""
    items = []
    for stage in stages:
        rate = stage["optimiser"]
        which = f"Stage `{stage['name']}`" if len(stages) > 1 else "Schedule"
        items.append(
            f"- {which}: {stage['steps']:,} steps of {_batch(stage)}, the first "
            f"{stage['one_pass_steps']:,} with one pass; AdamW, learning rate\n"
            f"  {rate['learning_rate']:g} after {rate['warmup_steps']} steps of warm-up and down a "
            f"cosine to 0, weight decay {rate['weight_decay']:g},\n"
            f"  gradients clipped at norm {rate['clip_norm']:g}, weights averaged with decay "
            f"{rate['average']:g}; seed {seed}."
        )
    return "\n".join(items)


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
    # Generated data have no splits, and results from before there were stages name 300-W alone.
    trained = (stage["data"].get("train", []) for stage in stages)
    splits = list(dict.fromkeys(split for splits in trained for split in splits))
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    parser.add_argument("--name", required=True)
    parser.add_argument("--init-from", metavar="NAME", help="what the run began with, if anything")
    parser.add_argument("--note", metavar="TEXT", help="a sentence for the card's part on data")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder of prepared data")
    arguments = parser.parse_args()
    try:
        release(
            arguments.run_dir,
            arguments.name,
            arguments.data_dir,
            init_from=arguments.init_from,
            note=arguments.note,
        )
    except RednetError as error:
        parser.error(str(error))
