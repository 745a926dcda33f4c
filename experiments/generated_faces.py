"""The error on real faces of a network trained on generated faces alone, and of the mean shape.

    python experiments/generated_faces.py RUN_DIR --data-dir PREPARED

measures the best weights of the run, and the mean shape at the centre of each crop, on the
validation split of 300-W with boxes around the labels, and writes
experiments/results/generated_faces.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from rednet_jax.data.sources import read_split
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.metrics import face_errors
from rednet_jax.evaluate.protocols import evaluate_split
from rednet_jax.evaluate.provenance import provenance
from rednet_jax.files import write_json
from rednet_jax.landmarks.builtin import IBUG68
from rednet_jax.landmarks.normalisers import normaliser_text

RESULT = Path(__file__).parent / "results" / "generated_faces.json"


def mean_shape_nme(data_dir: Path | None) -> float:
    """Returns the NME of the mean shape in the box of each face's labels, percent."""
    faces = list(read_split("300w", "validation", data_dir))
    boxes = np.stack([face.box for face in faces]).astype(np.float64)
    middle, side = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(1)
    guessed = middle[:, None] + side[:, None, None] * IBUG68.shape
    truth = np.stack([face.landmarks for face in faces])
    labelled = np.stack([face.labelled for face in faces])
    return float(face_errors(guessed, truth, IBUG68, labelled).mean())


def main(run_dir: Path, data_dir: Path | None) -> None:
    """Measures and writes.

    Raises:
        RednetError: a folder that holds no run, or data that cannot be read.
    """
    try:
        experiment = json.loads((run_dir / "config.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise RednetError(f"{error.filename}: {error.strerror}") from error
    measured = evaluate_split(str(run_dir), "300w", "validation", data_dir=data_dir)
    command = "python experiments/generated_faces.py RUN_DIR --data-dir PREPARED"
    result = {
        **provenance(command, experiment["seed"]),
        "split": "300w validation, not used for selection",
        "normaliser": normaliser_text(IBUG68),
        "mean_shape_nme": mean_shape_nme(data_dir),
        "trained_on_generated_faces": measured,
        "experiment": experiment,
    }
    write_json(RESULT, result)
    nme = measured["per_step"][0]["nme"]
    print(f"{RESULT}: NME {nme:.2f} %, of the mean shape {result['mean_shape_nme']:.2f} %")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    parser.add_argument("--data-dir", type=Path, metavar="PREPARED")
    arguments = parser.parse_args()
    try:
        main(arguments.run_dir, arguments.data_dir)
    except RednetError as error:
        parser.error(str(error))
