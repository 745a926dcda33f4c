"""`compact` on pictures: the image stage on the 300-W training faces.

    rednet train experiments/compact_300w.py --run-dir RUN --data-dir FOLDER_OF_300W

Hardware: 2 CPU cores. Expected: about 1.5 hours, 0.6 s a step with one pass and 1.0 s with two.
"""

from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import Experiment, OptimiserConfig

experiment = Experiment(
    name="compact_300w",
    model=RedNetConfig.preset("compact"),
    optimiser=OptimiserConfig(learning_rate=2e-3, warmup_steps=300, weight_decay=0.01),
    steps=7_000,
    one_pass_steps=5_000,
    batch=32,
    evaluate_every=250,
)
