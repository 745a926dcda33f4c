"""A network of your own landmarks, fine-tuned from `compact`: docs/tutorials/own_landmarks.md.

    rednet train experiments/own_landmarks/experiment.py --run-dir RUN --data-dir PREPARED \
        --init-from compact \
        --fresh detection,encoder/squeeze,regression/points,regression/squeeze

Hardware: any.
"""

from pathlib import Path

import rednet_jax as rednet
from rednet_jax.train.experiment import DataConfig, OptimiserConfig

SCHEME = rednet.load_scheme(Path(__file__).with_name("mine98.json"))

# Parts with an array for each landmark start from fresh weights; the others have a smaller learning
# rate.
OPTIMISER = OptimiserConfig(
    learning_rate=2e-3,
    warmup_steps=50,
    average=0.99,
    rates=("detection*1", "regression*1", "encoder/squeeze*1", "encoder*0.2", "decoder*0.2"),
)

experiment = rednet.Experiment(
    name="own_landmarks",
    # All but the scheme is `compact`'s, so that its weights fit.
    model=rednet.RedNetConfig.preset(
        "compact", scheme=SCHEME, recrop="similarity", context=1.5, recrop_margin=1.15
    ),
    stages=(
        rednet.Stage(
            data=DataConfig(train=("mine98/train",), validation="mine98/validation"),
            optimiser=OPTIMISER,
            steps=600,
            one_pass_steps=400,
            batch=16,
        ),
    ),
    evaluate_every=100,
)
