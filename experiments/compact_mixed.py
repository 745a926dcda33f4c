"""`compact` on five data sets: half of each batch has human labels, half machine labels.

    rednet train experiments/compact_mixed.py --run-dir RUN --data-dir PREPARED

Expects 300w, helen, ytf68, lfw and 300vw prepared (see data/). Hardware: 2 CPU cores, alone: about
0.6 s a step with one pass, 1.0 s with two, so two and a half hours.
"""

from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import DataConfig, Experiment, OptimiserConfig, Stage

experiment = Experiment(
    name="compact_mixed",
    model=RedNetConfig.preset("compact"),
    stages=(
        Stage(
            data=DataConfig(
                train=("300w/train", "helen/train", "ytf68/train", "lfw/train", "300vw/train"),
                weights=(0.5, 0.15, 0.15, 0.1, 0.1),
            ),
            optimiser=OptimiserConfig(learning_rate=2e-3, warmup_steps=500),
            steps=13_000,
            one_pass_steps=11_500,
            batch=32,
        ),
    ),
    evaluate_every=500,
)
