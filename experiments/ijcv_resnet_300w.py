"""The journal form on 300-W: a coarse pass of 7 maps, then a pass of 68 heat maps.

    rednet train experiments/ijcv_resnet_300w.py --run-dir RUN --data-dir PREPARED

As in the authors' released code: crops of 256 px, two passes, a batch of 20, 100 epochs of the
3,148 faces, discs of 3 px that weigh as much as the background, heat maps with a standard deviation
of 2.12 px. Ours are the cross entropy of the heat maps (rednet_jax/train/terms.py says why), AdamW,
and fresh weights in place of ImageNet's (`--init-from`).

Expects 300w prepared; its faces are cached at 512 px, 0.8 MB each. Hardware: one GPU. A face is
0.13 TFLOP a step, three times the 44 GFLOP forward: an hour and a quarter at 10 TFLOP/s. That is
calculated; time, memory and accuracy were not measured. Two CPU cores that were shared with other
work took 20 s a step with `--batch 4`.
"""

from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import DataConfig, Experiment, OptimiserConfig, Stage
from rednet_jax.train.losses import LossConfig

experiment = Experiment(
    name="ijcv_resnet_300w",
    model=RedNetConfig.preset("ijcv_resnet"),
    stages=(
        Stage(
            data=DataConfig(cached_size=512),
            losses=LossConfig(sigma=2.12, background_share=1.0),
            optimiser=OptimiserConfig(
                learning_rate=1e-3, warmup_steps=500, frozen=("identity", "temporal")
            ),
            steps=16_000,
            batch=20,
        ),
    ),
)
