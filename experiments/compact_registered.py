"""`compact` with re-crops between passes, on four data sets: the released weights.

    rednet train experiments/compact_registered.py --run-dir RUN --data-dir PREPARED

Human labels make two fifths of each batch, machine labels the rest; the last stage is on human
labels alone. Expects 300w, helen, ytf68 and lfw prepared (see data/).

Hardware: one H100, about 5 minutes: 9 ms a step of 128 faces with one pass, 16 with two. On 2 CPU
cores a step with two passes takes about 6 s.
"""

from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import DataConfig, Experiment, OptimiserConfig, Stage

experiment = Experiment(
    name="compact_registered",
    model=RedNetConfig.preset("compact", recrop="similarity", context=1.5, recrop_margin=1.15),
    stages=(
        Stage(
            name="all",
            data=DataConfig(
                train=("300w/train", "helen/train", "ytf68/train", "lfw/train"),
                weights=(0.4, 0.2, 0.25, 0.15),
                cached_size=320,
                cover=2.0,
            ),
            optimiser=OptimiserConfig(learning_rate=3e-3, warmup_steps=500, weight_decay=0.05),
            steps=10_000,
            one_pass_steps=5_000,
            batch=128,
        ),
        Stage(
            name="human labels",
            data=DataConfig(cached_size=320, cover=2.0),
            optimiser=OptimiserConfig(learning_rate=6e-4, warmup_steps=100, weight_decay=0.05),
            steps=2_500,
            batch=128,
        ),
    ),
    evaluate_every=1_000,
    log_every=250,
)
