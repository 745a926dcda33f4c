"""`separable` on four data sets, with re-crops between passes: a third of `compact`'s training.

    rednet train experiments/separable.py --run-dir RUN --data-dir PREPARED

One run gave 3.96, 3.74 and 3.76 % at K = 1, 2, 3 on the 300-W validation faces, where `compact`,
trained on 3.5 times as many faces, has 3.47, 3.33 and 3.33. separable_continued.py trains on from
there.

Human labels make two fifths of each batch, machine labels the rest. Crops are rotated by up to 45
degrees; `Aligner` cuts upright crops. Expects 300w, helen, ytf68 and lfw
prepared (see data/). Hardware: 2 CPU cores shared with other work took 69 minutes.
"""

from rednet_jax.data.augment import Augmentation
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import DataConfig, Experiment, OptimiserConfig, Stage

experiment = Experiment(
    name="separable",
    model=RedNetConfig.preset("separable", recrop="similarity", context=1.5, recrop_margin=1.15),
    stages=(
        Stage(
            data=DataConfig(
                train=("300w/train", "helen/train", "ytf68/train", "lfw/train"),
                weights=(0.4, 0.2, 0.25, 0.15),
                cached_size=320,
                cover=2.0,
            ),
            augmentation=Augmentation(rotation=18.0),
            optimiser=OptimiserConfig(learning_rate=3e-3, warmup_steps=500, weight_decay=0.05),
            steps=10_000,
            one_pass_steps=7_000,
            batch=32,
        ),
    ),
    evaluate_every=1_000,
    log_every=100,
)
