"""The end of `compact_registered`: the learning rate decays to zero, mostly on human labels.

    rednet train experiments/compact_cooled.py --run-dir RUN --data-dir PREPARED \\
        --init-from RUN_OF_COMPACT_REGISTERED/best.safetensors

That run was stopped at step 8,831 of 12,500, with its best weights at step 8,000; these steps
replace its last ones. Expects 300w, helen, ytf68 and lfw prepared. Hardware: 2 CPU cores, alone:
about 1.5 s a step, so 20 minutes.
"""

from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import DataConfig, Experiment, OptimiserConfig, Stage

experiment = Experiment(
    name="compact_cooled",
    model=RedNetConfig.preset("compact", recrop="similarity", context=1.5, recrop_margin=1.15),
    stages=(
        Stage(
            data=DataConfig(
                train=("300w/train", "helen/train", "ytf68/train", "lfw/train"),
                weights=(0.7, 0.1, 0.12, 0.08),
                cached_size=320,
                cover=2.0,
            ),
            optimiser=OptimiserConfig(learning_rate=3e-4, warmup_steps=50, weight_decay=0.05),
            steps=800,
            batch=32,
        ),
    ),
    evaluate_every=200,
)
