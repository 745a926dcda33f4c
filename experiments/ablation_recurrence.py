"""f_tRNN on C_pe, on the whole code, or not at all.

    rednet ablate experiments/ablation_recurrence.py --runs-dir RUNS --data-dir PREPARED

The ECCV paper lets the LSTM see C_pe alone, because identity does not change from frame to frame.
Every arm learns images first, then clips with the feedback map carried from frame to frame; what
differs is the memory. Clips are followed as the tracker does, at every frame and at every second.

Expects 300w and 300vw prepared. Hardware: 9 runs of 1,000 steps on images and 300 on clips; 2 CPU
cores take about 40 minutes for each.
"""

from rednet_jax.ablate.plan import Ablation, Arm, Cell, Claim
from rednet_jax.data.pipeline import ClipConfig
from rednet_jax.model.config import Recurrence, RedNetConfig
from rednet_jax.train.experiment import DataConfig, Experiment, OptimiserConfig, Stage
from rednet_jax.train.losses import LossConfig


def _with(recurrence: Recurrence) -> Experiment:
    return Experiment(
        name=recurrence,
        model=RedNetConfig.preset("compact", recurrence=recurrence),
        stages=(
            Stage(
                name="pictures",
                optimiser=OptimiserConfig(warmup_steps=100),
                steps=1_000,
                one_pass_steps=1_000,
                batch=32,
            ),
            # Of few people: running statistics, as they have no moments of their own.
            Stage(
                name="clips",
                data=DataConfig(train=("300vw/train",), validation="300vw/validation"),
                clips=ClipConfig(),
                losses=LossConfig(stability=30.0),
                optimiser=OptimiserConfig(
                    learning_rate=5e-4, warmup_steps=50, rates=("encoder*0.05",)
                ),
                statistics="running",
                steps=300,
                one_pass_steps=300,
                batch=6,
            ),
        ),
        evaluate_every=1_300,
    )


ablation = Ablation(
    name="ablation_recurrence",
    question="Does a memory help in video, and what should it remember?",
    arms=(
        Arm("C_pe", _with("pose_expression")),
        Arm("the whole code", _with("code")),
        Arm("no memory", _with("none")),
    ),
    baseline="no memory",
    claims=(
        Claim(
            "An LSTM on C_pe lowers the error in video.",
            Cell("C_pe", 1, "clips"),
            Cell("no memory", 1, "clips"),
            by="ECCV 2016",
        ),
        Claim(
            "An LSTM on C_pe lowers the error in video at half the frame rate.",
            Cell("C_pe", 1, "clips-halved"),
            Cell("no memory", 1, "clips-halved"),
            by="ECCV 2016",
        ),
        Claim(
            "An LSTM on C_pe lowers the jitter in video.",
            Cell("C_pe", 1, "clips", "jitter"),
            Cell("no memory", 1, "clips", "jitter"),
            by="both papers",
        ),
        Claim(
            "An LSTM on C_pe errs less than one on the whole code.",
            Cell("C_pe", 1, "clips"),
            Cell("the whole code", 1, "clips"),
            by="ECCV 2016",
        ),
    ),
    on=("clips", "clips-halved"),
    feedback_steps=(1, 2),
)
