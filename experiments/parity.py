"""How far the landmarks of every export of released weights are from the network's.

    python experiments/parity.py compact FOLDER --data-dir PREPARED

writes each export into a folder of FOLDER and, from what `export.json` says there,
experiments/results/compact_parity.json. Takes the extras [onnx] and [tf], and half an hour or an
hour on 2 cores, most of it ONNX at three passes. Exports of the same weights that FOLDER holds
already are taken as they are, so that an interrupted run resumes.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

from rednet_jax.data.folder import data_folder
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.provenance import provenance
from rednet_jax.export.folder import EXPORT, read_export
from rednet_jax.files import write_json
from rednet_jax.weights.store import fingerprint, load

RESULTS = Path(__file__).parent / "results"
TARGETS = ("stablehlo", "torch", "onnx", "savedmodel", "litert")
FEEDBACK_STEPS = (1, 3)
DTYPES = ("float32", "float16")
COPIED_FIELDS = (
    "max_difference_px_still",
    "max_difference_px_stream",
    "max_difference_px_excused",
    "max_difference_px_apart",
    "max_difference_confidence",
    "max_difference_confidence_excused",
    "bar_px",
    "points",
    "points_excused",
    "frames",
    "states_excused",
    "compared_on",
)


def main(checkpoint: str, folder: Path, data_dir: Path) -> None:
    """Exports with every target, K and dtype; writes and prints the differences."""
    weights = fingerprint(load(checkpoint)[1])
    rows: list[dict[str, Any]] = []
    versions: dict[str, str] = {}
    for each in itertools.product(TARGETS, FEEDBACK_STEPS, DTYPES):
        row, used = _row(checkpoint, weights, *each, folder, data_dir)
        rows.append(row)
        versions |= used
        print(
            *each, row.get("refused") or " ".join(f"{row[name]:.1e}" for name in COPIED_FIELDS[:2])
        )
    command = f"python experiments/parity.py {checkpoint} FOLDER --data-dir PREPARED"
    result = provenance(command, seed=0)
    result["versions"] |= versions
    result |= {"checkpoint": checkpoint, "weights": weights, "per_row": rows}
    write_json(RESULTS / f"{checkpoint}_parity.json", result)


def _row(
    checkpoint: str,
    weights: str,
    target: str,
    steps: int,
    dtype: str,
    folder: Path,
    data_dir: Path,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns fields of an export.json, or why the export was refused, and versions of packages."""
    out = folder / f"{checkpoint}_{target}_{steps}_{dtype}"
    row = {"target": target, "feedback_steps": steps, "dtype": dtype}
    described = out / EXPORT
    if not described.exists() or read_export(described).get("weights") != weights:
        # TensorFlow and PyTorch do not free their memory, so each export has a process of its own.
        done = subprocess.run(
            [
                *(sys.executable, "-m", "rednet_jax", "export", checkpoint, "--to", target),
                *("--out", str(out), "--feedback-steps", str(steps), "--dtype", dtype),
                *("--data-dir", str(data_dir)),
            ],
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            return {**row, "refused": (done.stderr.splitlines() or ["no reason"])[-1]}, {}
    written = read_export(described)
    return {**row, **{name: written[name] for name in COPIED_FIELDS}}, written["versions"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the name of released weights")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--data-dir", type=Path, metavar="PREPARED")
    arguments = parser.parse_args()
    try:
        main(arguments.checkpoint, arguments.folder, data_folder(arguments.data_dir))
    except RednetError as error:
        parser.error(str(error))
