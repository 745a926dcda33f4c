"""`compact` on images: the image stage on the 300-W training faces.

    rednet train experiments/compact_300w.py --run-dir RUN --data-dir PREPARED

Hardware: 2 CPU cores, alone: about 0.6 s a step with one pass, 1.0 s with two, so an hour.
Weights of an earlier release were begun with `steps` and `one_pass_steps` of 7,000 and 5,000: their
first 2,500 steps had the slower decay of that schedule.
"""

from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import Experiment, OptimiserConfig, Stage

experiment = Experiment(
    name="compact_300w",
    model=RedNetConfig.preset("compact"),
    stages=(
        Stage(
            optimiser=OptimiserConfig(learning_rate=2e-3, warmup_steps=300),
            steps=4_500,
            one_pass_steps=3_500,
            batch=32,
        ),
    ),
    evaluate_every=250,
)
