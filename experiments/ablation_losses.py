"""Detection loss, regression loss, or both: the contribution of each.

    rednet ablate experiments/ablation_losses.py --runs-dir RUNS --data-dir PREPARED

The papers train both: f_DET on heat maps, f_REG on coordinates. The journal's abstract says that
each part helps; we found no published figures of one loss alone. Without the regression loss f_REG
is untrained, so the landmarks of that arm are read from the maps, and it has no confidence. The
landmarks of the other arms are those of f_REG. The baseline is measured with both readouts, from
the same runs.

The weights are those of the last step, the only one that is validated: validation uses f_REG's
landmarks, which one of the arms lacks, so it must not select a checkpoint.

Expects 300w prepared. Hardware: 9 runs of 1,000 steps; 2 CPU cores take about 20 minutes for each,
an H100 about one, most of it compiling.
"""

import dataclasses

from rednet_jax.ablate.plan import Ablation, Arm, Cell, Claim
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import Experiment, OptimiserConfig, Stage
from rednet_jax.train.losses import LossConfig

STEPS = 1_000

baseline = Experiment(
    name="baseline",
    model=RedNetConfig.preset("compact"),
    stages=(Stage(optimiser=OptimiserConfig(warmup_steps=100), steps=STEPS, batch=32),),
    evaluate_every=STEPS,
)


def _with(losses: LossConfig) -> Experiment:
    (stage,) = baseline.stages
    return dataclasses.replace(baseline, stages=(dataclasses.replace(stage, losses=losses),))


ablation = Ablation(
    name="ablation_losses",
    question="Does training on detection and on regression give more than either alone?",
    arms=(
        Arm("both", baseline),
        Arm("both, read off the maps", baseline, readout="maps"),
        Arm(
            "detection alone",
            _with(LossConfig(map_landmarks=0.0, landmarks=0.0, confidence=0.0)),
            readout="maps",
        ),
        Arm("regression alone", _with(LossConfig(detection=0.0, map_landmarks=0.0))),
    ),
    baseline="both",
    claims=(
        Claim(
            "Detection and regression together err less than detection alone.",
            Cell("both", 2),
            Cell("detection alone", 2),
            by="IJCV 2018",
        ),
        Claim(
            "Detection and regression together err less than regression alone.",
            Cell("both", 2),
            Cell("regression alone", 2),
            by="IJCV 2018",
        ),
        Claim(
            "Regressed landmarks err less than those read off the same network's maps.",
            Cell("both", 2),
            Cell("both, read off the maps", 2),
        ),
    ),
)
