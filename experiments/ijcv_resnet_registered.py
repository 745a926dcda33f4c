"""The journal form on the data of `compact_registered`: a larger network, for a GPU.

    rednet train experiments/ijcv_resnet_registered.py --run-dir RUN --data-dir PREPARED
    rednet eval RUN --data 300w --split validation --data-dir PREPARED

The same data sets, mix, re-crops, validation and table as the released `compact`; network,
losses and batch are those of ijcv_resnet_300w.py, at full size. Expects 300w, helen, ytf68 and lfw
prepared; their faces, cached at 512 px, take 6.6 GB.

Hardware: one GPU. A face is 46 GFLOP forward with one pass, 70 with two (counted by XLA), and three
times that a step, so 90 PFLOP in all: two and a half hours at 10 TFLOP/s. That is calculated; the
network's accuracy was not measured, and no GPU has run it.

Tested on 2 CPU cores under a load of 8 to 13: 20 steps of one pass at full size (`--stop-after 20
--batch 4 --log-every 1`). The loss was 620.6 at the first step and 586.2 at the last, with the
learning rate at 4 % of its peak; gradient norms were 739 to 944 before clipping. The first step
took 12 minutes, most of it compilation, the others 55 to 89 s; memory was 6.4 GB at most. The
validation after the last step did not finish: the process ended without a message, on a machine
whose 23 GB were shared. With the batch of 20 in five parts (`--accumulate 5`) one step ran: loss
618.6, 5.2 GB. Two passes were not tested at this size.
"""

import dataclasses
from pathlib import Path

from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import Experiment, OptimiserConfig
from rednet_jax.train.load import load_experiment
from rednet_jax.train.losses import LossConfig

_compact = load_experiment(Path(__file__).with_name("compact_registered.py"))
_everything, _human = _compact.stages
_recrops = {name: getattr(_compact.model, name) for name in ("recrop", "context", "recrop_margin")}
_losses = LossConfig(sigma=2.12, background_share=1.0)
_frozen = ("identity", "temporal")

experiment = Experiment(
    name="ijcv_resnet_registered",
    model=RedNetConfig.preset("ijcv_resnet", feedback_steps=2, **_recrops),
    stages=(
        dataclasses.replace(
            _everything,
            data=dataclasses.replace(_everything.data, cached_size=512),
            losses=_losses,
            optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=500, frozen=_frozen),
            steps=20_000,
            one_pass_steps=10_000,
            batch=20,
        ),
        dataclasses.replace(
            _human,
            data=dataclasses.replace(_human.data, cached_size=512),
            losses=_losses,
            optimiser=OptimiserConfig(learning_rate=2e-4, warmup_steps=100, frozen=_frozen),
            steps=5_000,
            batch=20,
        ),
    ),
    evaluate_every=1_000,
    log_every=50,
)
