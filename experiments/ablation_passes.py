"""The number of feedback passes in training and at inference.

    rednet ablate experiments/ablation_passes.py --runs-dir RUNS --data-dir PREPARED

The papers run three or four passes and report diminishing gains. Here every pass after the first
re-crops the image around the landmarks of the pass before (`recrop`), and z is resampled into the
new crop.

Expects 300w prepared. Hardware: 12 runs of 1,000 steps; 2 CPU cores take 15 minutes (K = 1) to an
hour (K = 4) for each, an H100 about one minute, most of it compiling.
"""

from rednet_jax.ablate.plan import Ablation, Arm, Cell, Claim
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import DataConfig, Experiment, OptimiserConfig, Stage

STEPS = 1_000


def _trained_with(passes: int) -> Experiment:
    return Experiment(
        name=f"K = {passes}",
        model=RedNetConfig.preset(
            "compact", recrop="similarity", context=1.5, feedback_steps=passes
        ),
        stages=(
            Stage(
                data=DataConfig(cached_size=320, cover=2.0),
                optimiser=OptimiserConfig(warmup_steps=100),
                steps=STEPS,
                batch=32,
            ),
        ),
        evaluate_every=STEPS,
    )


ablation = Ablation(
    name="ablation_passes",
    question="How many passes to train with, and how many to run?",
    arms=tuple(Arm(f"trained with K = {k}", _trained_with(k)) for k in (1, 2, 3, 4)),
    baseline="trained with K = 2",
    claims=(
        Claim(
            "With re-crops, three passes err less than one, boxes of the labels.",
            Cell("trained with K = 2", 3),
            Cell("trained with K = 2", 1),
            by="both papers",
        ),
        Claim(
            "With re-crops, three passes err less than one, jittered boxes.",
            Cell("trained with K = 2", 3, "jitter"),
            Cell("trained with K = 2", 1, "jitter"),
            by="both papers",
        ),
        Claim(
            "With re-crops, the third pass errs less than the second, jittered boxes.",
            Cell("trained with K = 2", 3, "jitter"),
            Cell("trained with K = 2", 2, "jitter"),
            by="ECCV 2016",
        ),
        Claim(
            "Two passes, trained with two, err less than one pass, trained with one.",
            Cell("trained with K = 2", 2),
            Cell("trained with K = 1", 1),
        ),
        Claim(
            "At three passes, training with three errs less than with two, jittered boxes.",
            Cell("trained with K = 3", 3, "jitter"),
            Cell("trained with K = 2", 3, "jitter"),
        ),
    ),
    feedback_steps=(1, 2, 3, 4),
)
