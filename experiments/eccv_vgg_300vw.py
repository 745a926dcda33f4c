"""The ECCV paper's network in the paper's three stages: images, people, clips.

    rednet train experiments/eccv_vgg_300vw.py --run-dir RUN --data-dir PREPARED

The first stage trains all but f_CLS and f_tRNN, through three passes of the loop; the second adds
f_CLS, on the people of ytf68 and lfw; the third f_tRNN, on clips of ten frames that run forwards or
backwards. The paper's weights, rates and batches are not known: these are ours, as are AdamW, L1 in
place of Euclidean distances, and fresh weights in place of VGG-16's (`--init-from`).
`--model.feedback label_map` feeds back the paper's one-channel map.

Expects 300w, ytf68, lfw and 300vw prepared (see data/). Hardware: one GPU. A face is 0.24 TFLOP a
step, three times the 81 GFLOP of K = 3 forward, and the stages go through 700,000: five hours at
10 TFLOP/s. That is calculated; time, memory and accuracy were not measured. Two CPU cores that were
shared with other work took 10 s a step with `--batch 2`.

On a large mesh, give each device a larger batch and its own moments, for 64 devices
`--mesh data=8,fsdp=8 --images.batch 4096 --images.batch_statistics device`, and the same for
`people` (see experiments/scaling.md). The learning rate for such a batch was not tuned.
"""

import dataclasses

from rednet_jax.data.pipeline import ClipConfig
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import DataConfig, Experiment, OptimiserConfig, Stage
from rednet_jax.train.losses import LossConfig

# The paper's terms; confidence is ours.
LOSSES = LossConfig(map_landmarks=0.0, sigma=2.0)

experiment = Experiment(
    name="eccv_vgg_300vw",
    model=RedNetConfig.preset("eccv_vgg", identities=1_654),
    stages=(
        Stage(
            name="images",
            losses=LOSSES,
            optimiser=OptimiserConfig(
                learning_rate=1e-3, warmup_steps=500, frozen=("identity", "temporal")
            ),
            steps=20_000,
            batch=20,
        ),
        Stage(
            name="people",
            data=DataConfig(
                train=("300w/train", "ytf68/train", "lfw/train"), weights=(0.4, 0.3, 0.3)
            ),
            losses=dataclasses.replace(LOSSES, identity=0.05),
            optimiser=OptimiserConfig(learning_rate=2e-4, warmup_steps=200, frozen=("temporal",)),
            steps=5_000,
            batch=20,
        ),
        Stage(
            name="clips",
            data=DataConfig(train=("300vw/train",)),
            clips=ClipConfig(frames=10, reverse=0.5),
            losses=LOSSES,
            optimiser=OptimiserConfig(learning_rate=2e-4, warmup_steps=200, frozen=("identity",)),
            steps=5_000,
            batch=4,
        ),
    ),
)
