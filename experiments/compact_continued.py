"""Released `compact` trained on: more faces, most with machine labels, then clips.

    rednet train experiments/compact_continued.py --run-dir RUN --data-dir PREPARED \
        --init-from compact

Expects 300w, helen, ytf68, lfw and 300vw prepared (see data/). Hardware: 2 CPU cores, alone: about
0.6 s a step of pictures with one pass, 1.0 s with two, and one second a step of clips: 40 minutes. The
clips have the low rate on the encoder because their 20 people are few; frames run through the loop
once, as in streaming, where every frame goes on from the map of the frame before.
"""

from rednet_jax.data.pipeline import ClipConfig
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import DataConfig, Experiment, OptimiserConfig, Stage
from rednet_jax.train.losses import LossConfig

experiment = Experiment(
    name="compact_continued",
    model=RedNetConfig.preset("compact"),
    stages=(
        Stage(
            name="images",
            data=DataConfig(
                train=("300w/train", "helen/train", "ytf68/train", "lfw/train", "300vw/train"),
                weights=(0.5, 0.15, 0.15, 0.1, 0.1),
            ),
            optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=200),
            steps=2_000,
            one_pass_steps=1_800,
            batch=32,
        ),
        Stage(
            name="clips",
            data=DataConfig(train=("300vw/train",)),
            clips=ClipConfig(frames=8, largest_stride=2, reverse=0.5),
            losses=LossConfig(stability=10.0),
            optimiser=OptimiserConfig(learning_rate=5e-4, warmup_steps=100, rates=("encoder*0.1",)),
            steps=800,
            one_pass_steps=799,
            batch=8,
        ),
    ),
    evaluate_every=400,
)
