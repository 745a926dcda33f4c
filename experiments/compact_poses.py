"""`compact` trained on from its release, with rolled heads, infants and generated faces.

    rednet train experiments/compact_poses.py --run-dir RUN --data-dir PREPARED --init-from compact

`compact` was trained on crops rotated by up to 30 degrees, and on adults. `Aligner` cuts upright
crops where the detector finds the eyes; what remains is the detector's error. Half of the images of
infants are for validation. Expects 300w, helen, ytf68, lfw and synthetic prepared, and infants:

    rednet data prepare folder --name infants --from INFANFACE --scheme ibug68 --shares 0.5,0.5,0

One run gave experiments/weights/compact_poses.safetensors, which is not released: far better on
infants, but 3.42 % on 300-W validation at K = 3, where `compact` has 3.33 (results/tried.md).
Hardware: two hours of one CPU core.
"""

from rednet_jax.data.augment import Augmentation
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import DataConfig, Experiment, OptimiserConfig, Stage

experiment = Experiment(
    name="compact_poses",
    model=RedNetConfig.preset("compact", recrop="similarity", context=1.5, recrop_margin=1.15),
    stages=(
        Stage(
            data=DataConfig(
                train=(
                    "300w/train",
                    "helen/train",
                    "ytf68/train",
                    "lfw/train",
                    "infants/train",
                    "synthetic/train",
                ),
                weights=(0.5, 0.14, 0.14, 0.08, 0.08, 0.06),
                cached_size=320,
                cover=2.0,
            ),
            augmentation=Augmentation(rotation=18.0),
            optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=200, weight_decay=0.05),
            steps=10_000,
            one_pass_steps=6_000,
            batch=32,
        ),
    ),
    evaluate_every=1_000,
    log_every=100,
)
