"""A narrow network on generated faces: the whole of training in seconds, with nothing prepared.

    rednet train experiments/smoke.py --run-dir RUN

Hardware: anything; 2 CPU cores, alone: a quarter of a minute, most of it compiling. Faces of 64 px
are drawn on the device in each step, and the validation NME falls from about 30 % to half of that.
"""

from rednet_jax.data.synthetic.generate import SyntheticConfig
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import Experiment, GeneratedData, OptimiserConfig, Stage

experiment = Experiment(
    name="smoke",
    model=RedNetConfig.preset(
        "compact",
        image_size=64,
        widths=(8, 12, 16, 24, 32, 32, 12),
        code_width=32,
        recurrent_width=8,
        regression_width=24,
    ),
    stages=(
        Stage(
            data=GeneratedData(SyntheticConfig(size=64), validation=64),
            optimiser=OptimiserConfig(learning_rate=5e-3, warmup_steps=10, epsilon=1e-3),
            steps=80,
            batch=16,
        ),
    ),
    evaluate_every=40,
    log_every=10,
)
