"""The error of the faster architecture, and whether more layers, channels or pixels reduce it.

    rednet ablate experiments/ablation_shapes.py --runs-dir RUNS --data-dir PREPARED

`separable` takes about half of `compact`'s time on two CPU cores; `experiments/shape_times.py`
measures the time of every arm. Every arm re-crops between passes, as the released network does.

One arm is distilled: half of its faces have the landmarks of the released `compact` at K = 3 in
place of the labels by people. Expects 300w prepared, and for that arm

    rednet eval compact --data 300w --split train --feedback-steps 3 --predictions TAUGHT.csv
    rednet data prepare folder --name taught --from 300W --scheme ibug68 --labels TAUGHT.csv \\
        --shares 1,0,0

Hardware: 21 runs of 1,000 steps; two quiet CPU cores take 5 to 10 minutes for each.
"""

import dataclasses
from typing import Any

from rednet_jax.ablate.plan import Ablation, Arm, Cell, Claim
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.separable import SeparableDecoder, SeparableEncoder
from rednet_jax.train.experiment import DataConfig, Experiment, OptimiserConfig, Stage

STEPS = 1_000


class DeepEncoder(SeparableEncoder):
    """Twice the blocks at 1/4 and 1/8 of the crop."""

    depths = (2, 4, 2, 1)


class DeepDecoder(SeparableDecoder):
    """A block at every level."""

    depths = (1, 1, 1)


class WideKernelEncoder(SeparableEncoder):
    """Depthwise kernels of 5 x 5."""

    kernel = 5


LABELS = DataConfig(cached_size=320, cover=2.0)
DISTILLED = dataclasses.replace(LABELS, train=("300w/train", "taught/train"), weights=(0.5, 0.5))


def _trained(preset: str, data: DataConfig = LABELS, **fields: Any) -> Experiment:
    model = RedNetConfig.preset(
        preset, recrop="similarity", context=1.5, recrop_margin=1.15, **fields
    )
    stage = Stage(
        data=data,
        optimiser=OptimiserConfig(warmup_steps=100),
        steps=STEPS,
        batch=32,
    )
    return Experiment(name=preset, model=model, stages=(stage,), evaluate_every=STEPS)


ablation = Ablation(
    name="ablation_shapes",
    question="What does the faster architecture cost in error?",
    arms=(
        Arm("compact", _trained("compact")),
        Arm("separable", _trained("separable")),
        Arm("separable, deeper", _trained("separable", encoder=DeepEncoder, decoder=DeepDecoder)),
        Arm("separable, wider", _trained("separable", widths=(64, 160, 224))),
        Arm("separable, narrower", _trained("separable", widths=(32, 96, 160))),
        Arm("separable, 5 x 5 kernels", _trained("separable", encoder=WideKernelEncoder)),
        Arm("separable, distilled", _trained("separable", DISTILLED)),
    ),
    baseline="compact",
    claims=(
        Claim(
            "`compact` errs less than `separable`, three passes, boxes of the labels.",
            Cell("compact", 3),
            Cell("separable", 3),
        ),
        Claim(
            "`separable` errs less with more blocks, three passes, boxes of the labels.",
            Cell("separable, deeper", 3),
            Cell("separable", 3),
        ),
        Claim(
            "`separable` errs less with more channels, three passes, boxes of the labels.",
            Cell("separable, wider", 3),
            Cell("separable", 3),
        ),
        Claim(
            "`separable` errs less if half of its labels are landmarks of `compact`, three passes, "
            "boxes of the labels.",
            Cell("separable, distilled", 3),
            Cell("separable", 3),
        ),
    ),
)
