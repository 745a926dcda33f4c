"""The journal form on the data of `compact_registered`: the bigger network, where a GPU is at hand.

    rednet train experiments/ijcv_resnet_registered.py --run-dir RUN --data-dir PREPARED
    rednet eval RUN --data 300w --split validation --data-dir PREPARED

The same data sets, mix, re-crops, validation and table as the released `compact`; network,
losses and batch are those of ijcv_resnet_300w.py, at full size. Expects 300w, helen, ytf68 and lfw
prepared; their faces, cached at 512 px, take 6.6 GB.

Hardware: one GPU. A face is 46 GFLOP forward with one pass, 70 with two (counted by XLA), and three
times that a step, so 90 PFLOP in all: two and a half hours at 10 TFLOP/s. That is calculated; the
network's accuracy was not measured, and no GPU has run it.

Tried on 2 CPU cores under a load of 8 to 13 from other work: 20 steps at full size in crops and
widths, one pass each as in the first half of the first stage, with `--stop-after 20
--batch 4 --log-every 1`. Loss 620.6 at the first step, 586.2 at the last, 649.1 as the highest in
between, the rate still at 4 % of its height; gradients finite, of norm 739 to 944 before they were
clipped.
The first step took 12 minutes, nearly all to compile, the others 55 to 89 s; memory 6.4 GB at most.
The validation that follows the last step was not seen to its end: within five minutes the process
was gone without a message. Other work shared the machine's 23 GB; whether they ran out is not
known. With the batch of 20 in five parts (`--accumulate 5`) one step ran: loss 618.6, memory
5.2 GB. Two passes were not tried at this size.
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
