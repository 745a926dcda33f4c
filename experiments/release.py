"""Releases the best weights of a finished run: the file, its figures and its model card.

    python experiments/release.py RUN_DIR --name compact
    python experiments/release.py RUN_DIR RUN_DIR --name compact_video --init-from compact
    python experiments/release.py --measure compact
    python experiments/release.py --card compact
    python experiments/release.py --check compact

The first calibrates the confidence, writes rednet_jax/weights/NAME.safetensors (float16) and
measures it: by `rednet eval`, and by `rednet bench steadiness` if it was trained on clips, into
experiments/results/NAME_300w_validation.json; by kind of face, and on generated faces by pose and
light, into NAME_slices.json and NAME_slices.png beside it. The card rednet_jax/weights/NAME.md is
written from these files alone. 300-W must be prepared, and 300-VW for networks trained on clips.
2 CPU cores, alone: about ten minutes, three more with clips.

The second releases the mean of several runs' best weights; the runs must have the same initial
weights. --measure measures a released file again, without its run, and keeps the record of its
training. --card only writes the card. --check measures on 300-W and lists differences from the
committed figures of 0.01 points or more; its exit status is then 1.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from rednet_jax import cli
from rednet_jax.bench.scan import python_loop
from rednet_jax.bench.steadiness import bench_steadiness
from rednet_jax.data.folder import data_folder
from rednet_jax.data.sources import read_split
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.calibration import calibrate
from rednet_jax.evaluate.generated import measure_generated
from rednet_jax.evaluate.provenance import provenance
from rednet_jax.evaluate.slices import measure_slices
from rednet_jax.files import write_json, write_text
from rednet_jax.inference.streams import is_recurrent
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig
from rednet_jax.weights.blend import blend
from rednet_jax.weights.card import model_card
from rednet_jax.weights.store import load, parameter_count, write_weights

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "rednet_jax" / "weights"
RESULTS = ROOT / "experiments" / "results"
BOXES = ("truth", "jitter", "detector")
STEPS = (1, 2, 3)


def release(
    run_dirs: Sequence[Path],
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
        run_dirs: of the run, or of several whose weights are averaged; need not be finished.
        name: of the release.
        data_dir: the folder of prepared data; None for $REDNET_JAX_DATA or ~/.cache/rednet_jax.
        init_from: initial weights of the runs: a released name, or the folder of another run, whose
            record is then stored, too.
        note: a sentence for the card's part on data.
        weights_dir: where weights and card go.
        results_dir: where the figures go.

    Raises:
        RednetError: a folder that holds no run, runs of different networks, or 300-W is not
            prepared.
    """
    run, *others = map(_read_run, run_dirs)
    config, variables = blend(run_dirs)
    begun_with = None
    if init_from is not None and (Path(init_from) / "config.json").exists():
        begun_with = _read_run(Path(init_from))
    command = (
        f"python experiments/release.py {' '.join(['RUN_DIR'] * len(run_dirs))} --name {name}"
        + (f" --init-from {'RUN_DIR' if begun_with else init_from}" if init_from else "")
        + (f" --note '{note}'" if note else "")
    )
    # Before anything is written, which would make the checkout another than its commit.
    origin = provenance(command, run["experiment"]["seed"])
    path = weights_dir / f"{name}.safetensors"
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw" / path.name
        write_weights(raw, config, variables)
        calibration = calibrate(raw, folder, data_dir=data_dir)
        config, variables = load(Path(folder) / path.name)
    write_weights(path, config, variables, dtype="float16")
    recorded = {
        "init_from": None if begun_with else init_from,
        "begun_with": begun_with,
        **run,
        **({"averaged_with": others} if others else {}),
        "note": note,
        "training_faces": len(read_split("300w", "train", data_dir)),
        "calibration": {
            "slope": calibration["slope"],
            "intercept": calibration["intercept"],
            "ece": {when: calibration[when]["ece"] for when in ("before", "after")},
        },
    }
    _measure(name, {"name": name, **origin, **recorded}, data_dir, weights_dir, results_dir)


def measure(
    name: str,
    data_dir: Path | None = None,
    *,
    weights_dir: Path = WEIGHTS,
    results_dir: Path = RESULTS,
) -> None:
    """Measures a released file again and writes figures and card; arguments as in `release`.

    Raises:
        RednetError: nothing of that name is released, or 300-W is not prepared.
    """
    before = _read_result(results_dir / f"{name}_300w_validation.json")
    origin = provenance(f"python experiments/release.py --measure {name}", before["seed"])
    by = {key: before[key] for key in ("command", "git_commit")}
    recorded = {"released_by": by, **before, **origin}
    _measure(name, recorded, data_dir, weights_dir, results_dir)


def write_card(name: str, *, weights_dir: Path = WEIGHTS, results_dir: Path = RESULTS) -> None:
    """Writes the card of a release from its figures; arguments as in `release`.

    Raises:
        RednetError: its figures cannot be read, or the card cannot be written.
    """
    result = _read_result(results_dir / f"{name}_300w_validation.json")
    slices = _read_result(results_dir / f"{name}_slices.json")
    write_text(weights_dir / f"{name}.md", model_card(result, slices, licences()))


def check(
    name: str,
    data_dir: Path | None = None,
    *,
    weights_dir: Path = WEIGHTS,
    results_dir: Path = RESULTS,
) -> list[str]:
    """Returns the differences of new from recorded figures, and of the card from the figures.

    Arguments as in `release`. A figure differs by 0.01 points or more, a count by anything.
    Generated faces are not measured.

    Raises:
        RednetError: nothing of that name is released, or 300-W is not prepared.
    """
    result = _read_result(results_dir / f"{name}_300w_validation.json")
    slices = _read_result(results_dir / f"{name}_slices.json")
    card = weights_dir / f"{name}.md"
    lines = []
    if card.read_text(encoding="utf-8") != model_card(result, slices, licences()):
        lines.append(f"{card.name}: is not the output of --card {name}")
    checkpoint = _checkpoint(name, weights_dir)
    pairs = [
        (
            f"boxes {recorded['boxes']}",
            recorded,
            _evaluate(checkpoint, name, recorded["boxes"], data_dir),
        )
        for recorded in result["results"]
    ]
    again = measure_slices(checkpoint, data_dir=data_dir)["slices"]
    for recorded, now in zip(slices["real"]["slices"], again, strict=True):
        pairs.append(
            (f"boxes {recorded['boxes']}, {recorded['by']} {recorded['slice']}", recorded, now)
        )
    for what, recorded, now in pairs:
        # Where and when they were measured is expected to differ.
        recorded, now = (
            {k: v for k, v in of.items() if k != "provenance"} for of in (recorded, now)
        )
        lines += [f"{what}: {difference}" for difference in _differences(recorded, now)]
    return lines


def _differences(recorded: Any, now: Any, where: str = "") -> Iterator[str]:
    """What differs in two trees of JSON: numbers with a fraction by 0.01, all else by anything."""
    if isinstance(recorded, dict) and isinstance(now, dict) and recorded.keys() == now.keys():
        for key in recorded:
            yield from _differences(recorded[key], now[key], f"{where} {key}")
    elif isinstance(recorded, list) and isinstance(now, list) and len(recorded) == len(now):
        for number, (one, other) in enumerate(zip(recorded, now, strict=True)):
            yield from _differences(one, other, f"{where} {number}")
    elif isinstance(recorded, float) and isinstance(now, float):
        if not abs(recorded - now) < 0.01:
            yield f"{where.strip()} is {now:.3f}, recorded as {recorded:.3f}"
    elif recorded != now:
        yield f"{where.strip()} is {now}, recorded as {recorded}"


def _measure(
    name: str, recorded: dict[str, Any], data_dir: Path | None, weights_dir: Path, results_dir: Path
) -> None:
    """Measures a released file; writes its record with the figures, and its card."""
    path = weights_dir / f"{name}.safetensors"
    checkpoint = _checkpoint(name, weights_dir)
    config, variables = load(checkpoint)
    result = {
        **recorded,
        "parameters": parameter_count(variables),
        "file_bytes": path.stat().st_size,
        "gflop": {str(steps): _gflop(config, steps) for steps in STEPS},
        "results": [_evaluate(checkpoint, name, boxes, data_dir) for boxes in BOXES],
        "steadiness": _steadiness(checkpoint, data_dir) if is_recurrent(variables) else None,
    }
    image = results_dir / f"{name}_slices.png"
    slices = {
        "name": name,
        **provenance(recorded["command"], recorded["seed"]),
        "real": measure_slices(checkpoint, data_dir=data_dir),
        "generated": measure_generated(checkpoint, sheet=image),
    }
    for what, figures in (("300w_validation", result), ("slices", slices)):
        write_json(results_dir / f"{name}_{what}.json", figures)
    write_card(name, weights_dir=weights_dir, results_dir=results_dir)


def licences() -> dict[str, str]:
    """Returns the first sentence on the licence of every data set, from the cards in data/."""
    found = {}
    for card in sorted((ROOT / "data").glob("*.md")):
        licence = card.read_text(encoding="utf-8").partition("## Licence\n")[2]
        found[card.stem] = " ".join(re.split(r"(?<=\.)\s", licence.strip())[0].split())
    return found


def _checkpoint(name: str, weights_dir: Path) -> str:
    return name if weights_dir == WEIGHTS else str(weights_dir / f"{name}.safetensors")


def _read_result(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RednetError(f"{path}: cannot be read ({error.strerror})") from error
    return found


def _read_run(run_dir: Path) -> dict[str, Any]:
    """A run as plain JSON: its `experiment`, `best_step`, `last_step`, `training_curve` (step and
    validation NME of each validation), `training_seconds` of all steps, without validations, and
    `trained_on`, machine and versions of its beginning."""
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
        "training_seconds": _training_seconds(experiment, rows),
        "trained_on": {name: first[name] for name in ("git_commit", "machine", "versions")},
    }


def _training_seconds(experiment: dict[str, Any], rows: list[dict[str, Any]]) -> float:
    """What the steps took by the speed in the rows, each of the steps since the row before."""
    ends = [0]
    for stage in experiment["stages"]:
        ends.append(ends[-1] + stage["steps"])
    seconds, before = 0.0, 0
    for row in rows:
        if not row.keys() & {"frames_per_second", "images_per_second"}:
            continue
        # No row goes beyond the end of a stage, since the last step of each is saved.
        stage = next(
            stage
            for stage, end in zip(experiment["stages"], ends[1:], strict=True)
            if row["step"] <= end
        )
        size = stage["batch"]
        if "frames_per_second" in row:
            size *= stage["clips"]["frames"] if stage["clips"] else 1
            speed = row["frames_per_second"]
        else:
            # Older runs counted a clip as one image.
            speed = row["images_per_second"]
        seconds += (row["step"] - before) * size / speed
        before = row["step"]
    return seconds


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
    crop = jax.ShapeDtypeStruct((1, config.input_size, config.input_size, 3), jnp.float32)

    def align(variables: rednet.Tree, crop: jax.Array) -> jax.Array:
        out, _ = rednet.align_image(
            config, variables, crop, feedback_steps=feedback_steps, scan=python_loop
        )
        return out.landmarks

    cost = jax.jit(align).lower(variables, crop).cost_analysis()
    return round(cost["flops"] / 1e9, 4)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dirs", type=Path, nargs="*", metavar="RUN_DIR")
    parser.add_argument("--name", help="of the release")
    parser.add_argument("--init-from", metavar="NAME", help="initial weights of the runs")
    parser.add_argument("--note", metavar="TEXT", help="a sentence for the card's part on data")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder of prepared data")
    parser.add_argument("--measure", metavar="NAME", help="measure a released file again")
    parser.add_argument("--card", metavar="NAME", help="write the card of a release again")
    parser.add_argument("--check", metavar="NAME", help="measure 300-W and compare with the card")
    arguments = parser.parse_args()
    given = (arguments.measure, arguments.card, arguments.check)
    if bool(arguments.run_dirs) + sum(one is not None for one in given) != 1:
        parser.error("name a RUN_DIR, or a release by one of --measure, --card and --check")
    if bool(arguments.run_dirs) != (arguments.name is not None):
        parser.error("RUN_DIR and --name belong together")
    if not arguments.run_dirs and (arguments.init_from or arguments.note):
        parser.error("--init-from and --note are for a RUN_DIR")
    try:
        if arguments.measure is not None:
            measure(arguments.measure, arguments.data_dir)
        elif arguments.card is not None:
            write_card(arguments.card)
        elif arguments.check is not None:
            found = check(arguments.check, arguments.data_dir)
            print(
                "\n".join(found) or f"{arguments.check}: all figures agree with the recorded ones"
            )
            raise SystemExit(bool(found))
        else:
            release(
                arguments.run_dirs,
                arguments.name,
                arguments.data_dir,
                init_from=arguments.init_from,
                note=arguments.note,
            )
    except RednetError as error:
        parser.error(str(error))
