"""A tiny ablation, and constructed measurements."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from rednet_jax.ablate.plan import Ablation, Arm, Cell, Claim, run_of
from rednet_jax.data.synthetic.generate import SyntheticConfig
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import Experiment, GeneratedData, OptimiserConfig, Stage

# Worker processes need the path of the tests.
FILE = f"""
import dataclasses, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from ablate.tiny import tiny
ablation = dataclasses.replace(tiny(), name={{name!r}})
"""


def experiment(**changes):
    stage = Stage(
        data=GeneratedData(SyntheticConfig(size=32), validation=6),
        optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=1),
        steps=2,
        batch=2,
    )
    return Experiment(
        name="tiny",
        model=RedNetConfig.preset(
            "compact",
            image_size=32,
            widths=(4, 6, 8, 10, 12, 14, 5),
            code_width=16,
            recurrent_width=4,
            regression_width=6,
        ),
        stages=(dataclasses.replace(stage, **changes),),
        evaluate_every=2,
        log_every=1,
    )


def tiny(**changes):
    """Returns an ablation of two arms; the claim is that the second has a lower error."""
    fields = {
        "name": "tiny",
        "question": "Do longer batches help?",
        "arms": (Arm("short", experiment()), Arm("long", experiment(batch=4))),
        "baseline": "short",
        "claims": (Claim("Long errs less.", Cell("long", 1), Cell("short", 1)),),
        "on": ("truth",),
        "feedback_steps": (1, 2),
        **changes,
    }
    return Ablation(**fields)


def write_measured(runs_dir, arm, seed, by_steps, maps=None, clips=None):
    """Writes measurements with errors [K][N], for boxes of the labels."""
    run = run_of(arm, seed)
    count = len(by_steps[0])
    measured = {
        "run": run.folder,
        "init_from": None,
        "normaliser": "inter-ocular",
        "pictures": {
            "data": ["300w/validation"],
            "names": [f"300w/validation/{i:04d}" for i in range(count)],
            "errors": {"truth": {"regression": by_steps, "maps": maps or by_steps}},
        },
        "experiment": run.experiment.to_json(),
        "provenance": {"git_commit": "abc", "machine": {"device": "cpu"}},
    }
    if clips is not None:
        measured["clips"] = clips
    folder = runs_dir / run.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "measured.json").write_text(json.dumps(measured))
    return folder
