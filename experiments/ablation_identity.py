"""The identity loss of f_CLS on C_id: with it and without, on faces with known identities.

    rednet ablate experiments/ablation_identity.py --runs-dir RUNS --data-dir PREPARED

The ECCV paper trains f_CLS on C_id, so that C_pe need not represent identity. Half of each batch
are faces of the 300 people of ytf68; the other half are faces of 300-W, without an identity.

Expects 300w and ytf68 prepared. Hardware: 6 runs of 1,000 steps with two passes; 2 CPU cores take
about 25 minutes for each, an H100 about one, most of it compiling.
"""

import dataclasses

from rednet_jax.ablate.plan import Ablation, Arm, Cell, Claim
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import DataConfig, Experiment, OptimiserConfig, Stage
from rednet_jax.train.losses import LossConfig

STEPS = 1_000

without = Experiment(
    name="no identity term",
    model=RedNetConfig.preset("compact"),
    stages=(
        Stage(
            data=DataConfig(train=("300w/train", "ytf68/train"), weights=(0.5, 0.5)),
            optimiser=OptimiserConfig(warmup_steps=100),
            steps=STEPS,
            batch=32,
        ),
    ),
    evaluate_every=STEPS,
)
(_stage,) = without.stages
with_term = dataclasses.replace(
    without, stages=(dataclasses.replace(_stage, losses=LossConfig(identity=0.1)),)
)

ablation = Ablation(
    name="ablation_identity",
    question="Does the identity loss on C_id lower the error of the landmarks?",
    arms=(Arm("no identity term", without), Arm("identity term", with_term)),
    baseline="no identity term",
    claims=(
        Claim(
            "The identity loss lowers the error, boxes of the labels.",
            Cell("identity term", 2),
            Cell("no identity term", 2),
            by="ECCV 2016",
        ),
        Claim(
            "The identity loss lowers the error, jittered boxes.",
            Cell("identity term", 2, "jitter"),
            Cell("no identity term", 2, "jitter"),
            by="ECCV 2016",
        ),
    ),
)
