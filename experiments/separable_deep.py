"""`separable` with more blocks and 5 x 5 kernels, from the weights of separable_continued.py.

    python experiments/grow.py experiments/separable_deep.py --checkpoint WEIGHTS --out FILE
    rednet train experiments/separable_deep.py --run-dir RUN --data-dir PREPARED \\
        --init-from FILE

`separable` has 3.5 % on its training faces, where `compact` has 2.9: it is too small or too
shallow. Data as in separable_continued.py.
"""

from rednet_jax.data.augment import Augmentation
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.separable import SeparableDecoder, SeparableEncoder
from rednet_jax.train.experiment import DataConfig, Experiment, OptimiserConfig, Stage


class DeepEncoder(SeparableEncoder):
    """Twice the blocks at every level, and depthwise kernels of 5 x 5."""

    depths = (2, 4, 4, 2)
    kernel = 5


class DeepDecoder(SeparableDecoder):
    """A block at every level."""

    depths = (1, 1, 1)


experiment = Experiment(
    name="separable_deep",
    model=RedNetConfig.preset(
        "separable",
        recrop="similarity",
        context=1.5,
        recrop_margin=1.15,
        encoder=DeepEncoder,
        decoder=DeepDecoder,
    ),
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
                weights=(0.42, 0.18, 0.2, 0.12, 0.04, 0.04),
                cached_size=320,
                cover=2.0,
            ),
            augmentation=Augmentation(rotation=18.0),
            optimiser=OptimiserConfig(learning_rate=2e-3, warmup_steps=200, weight_decay=0.05),
            steps=12_000,
            one_pass_steps=8_000,
            batch=32,
        ),
    ),
    evaluate_every=1_000,
    log_every=100,
)
