"""A narrow network on generated faces: all of training in a minute, without prepared data.

    rednet train experiments/smoke.py --run-dir RUN

Hardware: anything; on 2 CPU cores most of its minute goes to compiling. Faces of 32 px are drawn on
the device in each step. AdamW has a large epsilon and a slow warm-up, so that it does not amplify
rounding: 8 steps on one device and on a mesh of four agree within 1e-4 in every parameter. The
validation NME is 33 % at step 60 and 28 % at the end.
"""

from rednet_jax.data.synthetic.generate import SyntheticConfig
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import Experiment, GeneratedData, OptimiserConfig, Stage

experiment = Experiment(
    name="smoke",
    model=RedNetConfig.preset(
        "compact",
        image_size=32,
        widths=(8, 12, 16, 24, 32, 32, 12),
        code_width=32,
        recurrent_width=8,
        regression_width=24,
    ),
    stages=(
        Stage(
            data=GeneratedData(SyntheticConfig(size=32), validation=32),
            optimiser=OptimiserConfig(learning_rate=0.3, warmup_steps=60, epsilon=1.0),
            steps=120,
            batch=16,
        ),
    ),
    evaluate_every=20,
    log_every=10,
)
