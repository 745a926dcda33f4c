"""`compact` for video: images, then people, then clips, from fresh weights.

    rednet train experiments/compact_video.py --run-dir RUN --data-dir PREPARED

For the clips alone, from weights trained on images, see compact_clips.py. The identities are those
of ytf68: f_CLS of the released network has 300 classes, too few for lfw.

Expects 300w, helen, ytf68, lfw and 300vw prepared (see data/). Hardware: 2 CPU cores, alone: about
0.6 s a step of images with one pass, 1.0 s with two, about 1.1 s a step of clips. So less than
three hours. The error of a finished run was not measured. The last stage is validated on two
windows of 32 frames of each clip, tracked frame by frame; its best weights are selected from that
stage alone.
"""

from rednet_jax.data.pipeline import ClipConfig
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import DataConfig, Experiment, OptimiserConfig, Stage
from rednet_jax.train.losses import LossConfig

experiment = Experiment(
    name="compact_video",
    model=RedNetConfig.preset("compact"),
    stages=(
        Stage(
            name="images",
            data=DataConfig(
                train=("300w/train", "helen/train", "ytf68/train", "lfw/train", "300vw/train"),
                weights=(0.5, 0.15, 0.15, 0.1, 0.1),
            ),
            optimiser=OptimiserConfig(learning_rate=2e-3, warmup_steps=500),
            steps=9_000,
            one_pass_steps=8_000,
            batch=32,
        ),
        Stage(
            name="people",
            data=DataConfig(train=("300w/train", "ytf68/train"), weights=(0.5, 0.5)),
            losses=LossConfig(identity=0.05),
            optimiser=OptimiserConfig(learning_rate=5e-4, warmup_steps=200),
            steps=2_000,
            batch=32,
        ),
        Stage(
            name="clips",
            data=DataConfig(train=("300vw/train",), validation="300vw/validation"),
            clips=ClipConfig(frames=10, largest_stride=2, reverse=0.5),
            losses=LossConfig(stability=30.0),
            # 20 people are few: they may not move the encoder far or have their own moments.
            statistics="running",
            optimiser=OptimiserConfig(
                learning_rate=5e-4, warmup_steps=100, rates=("encoder*0.05",)
            ),
            # In streaming, too, a frame runs through the loop once, from the map before.
            steps=1_000,
            one_pass_steps=1_000,
            batch=6,
        ),
    ),
    evaluate_every=500,
)
