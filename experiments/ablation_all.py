"""All arms of four ablations in one plan, to train several runs at the same time on one machine.

    rednet ablate experiments/ablation_all.py --train-only --jobs 6 --runs-dir RUNS --data-dir DATA

A run is identified by its experiment and seed, so each ablation can make its table of these runs:

    rednet ablate experiments/ablation_passes.py --table-only --runs-dir RUNS

Expects 300w and ytf68 prepared. Hardware: 48 runs; an H100 with 16 CPU cores takes about 10 minutes
with six at a time, most of it compiling; 2 CPU cores take about 25 minutes for each run.
"""

import dataclasses
import runpy
from pathlib import Path

from rednet_jax.ablate.plan import Ablation, Arm

NAMES = ("passes", "feedback", "losses", "identity")


def _arms(name: str) -> list[Arm]:
    file = Path(__file__).with_name(f"ablation_{name}.py")
    ablation: Ablation = runpy.run_path(str(file))["ablation"]
    return [dataclasses.replace(arm, name=f"{name}: {arm.name}") for arm in ablation.arms]


_all = tuple(arm for name in NAMES for arm in _arms(name))

ablation = Ablation(
    name="ablation_all",
    question="What do all arms of the ablations reach?",
    arms=_all,
    baseline=_all[0].name,
)
