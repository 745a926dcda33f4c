"""What is fed back, and whether the crop moves with it.

    rednet ablate experiments/ablation_feedback.py --runs-dir RUNS --data-dir PREPARED

The first arms are the papers' feedback loop: the crop is fixed, and a label map (ECCV) or response
maps (journal) are fed back to the input. The others re-crop around the landmarks after each pass
(ours), with and without fed-back maps.

Expects 300w prepared. Hardware: 27 runs of 1,000 steps with two passes; 2 CPU cores take about 25
minutes for each, an H100 about one, most of it compiling.
"""

import dataclasses
from typing import Any

from rednet_jax.ablate.plan import Ablation, Arm, Cell, Claim
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import DataConfig, Experiment, OptimiserConfig, Stage

STEPS = 1_000

standing = Experiment(
    name="baseline",
    model=RedNetConfig.preset("compact"),
    stages=(Stage(optimiser=OptimiserConfig(warmup_steps=100), steps=STEPS, batch=32),),
    evaluate_every=STEPS,
)


def _standing(**fields: Any) -> Experiment:
    return dataclasses.replace(standing, model=RedNetConfig.preset("compact", **fields))


def _recropped(recrop: str = "similarity", **fields: Any) -> Experiment:
    (stage,) = standing.stages
    return dataclasses.replace(
        _standing(recrop=recrop, context=1.5, **fields),
        stages=(dataclasses.replace(stage, data=DataConfig(cached_size=320, cover=2.0)),),
    )


ablation = Ablation(
    name="ablation_feedback",
    question="Which feedback lowers the error: maps, re-crops, or both?",
    arms=(
        Arm("response maps", standing),
        Arm("label map", _standing(feedback="label_map")),
        Arm("response maps, gradient through the loop", _standing(open_feedback_gradient=True)),
        Arm("response maps, statistics shared", _standing(statistics_per_pass=False)),
        Arm("shift and scale, response maps", _recropped("shift_scale")),
        Arm("similarity, response maps", _recropped()),
        Arm("similarity, label map", _recropped(feedback="label_map")),
        Arm("similarity, no maps", _recropped(feedback="none")),
        Arm("similarity, response maps, tighter crop", _recropped(recrop_margin=1.1)),
    ),
    baseline="response maps",
    claims=(
        Claim(
            "Response maps fed back: three passes err less than one, boxes of the labels.",
            Cell("response maps", 3),
            Cell("response maps", 1),
            by="IJCV 2018",
        ),
        Claim(
            "Response maps fed back: three passes err less than one, jittered boxes.",
            Cell("response maps", 3, "jitter"),
            Cell("response maps", 1, "jitter"),
            by="IJCV 2018",
        ),
        Claim(
            "A label map fed back: three passes err less than one, jittered boxes.",
            Cell("label map", 3, "jitter"),
            Cell("label map", 1, "jitter"),
            by="ECCV 2016",
        ),
        Claim(
            "Soft maps err less than a label map, three passes, jittered boxes.",
            Cell("response maps", 3, "jitter"),
            Cell("label map", 3, "jitter"),
            by="IJCV 2018",
        ),
        Claim(
            "Gradients through the feedback loop lower the error, three passes, jittered boxes.",
            Cell("response maps, gradient through the loop", 3, "jitter"),
            Cell("response maps", 3, "jitter"),
            by="open in both",
        ),
        Claim(
            "Batch statistics of each pass err less than shared ones, three passes.",
            Cell("response maps", 3),
            Cell("response maps, statistics shared", 3),
        ),
        Claim(
            "Re-crops err less than one fixed crop, three passes, jittered boxes.",
            Cell("similarity, response maps", 3, "jitter"),
            Cell("response maps", 3, "jitter"),
        ),
        Claim(
            "Re-crops err less than one fixed crop, three passes, boxes of the labels.",
            Cell("similarity, response maps", 3),
            Cell("response maps", 3),
        ),
        Claim(
            "Re-crops with rotation err less than with shift and scale alone, jittered boxes.",
            Cell("similarity, response maps", 3, "jitter"),
            Cell("shift and scale, response maps", 3, "jitter"),
        ),
        Claim(
            "With re-crops, maps fed back still lower the error, jittered boxes.",
            Cell("similarity, response maps", 3, "jitter"),
            Cell("similarity, no maps", 3, "jitter"),
        ),
        Claim(
            "With re-crops, maps fed back still lower the error, boxes of the labels.",
            Cell("similarity, response maps", 3),
            Cell("similarity, no maps", 3),
        ),
        Claim(
            "A tighter crop in later passes lowers the error, boxes of the labels.",
            Cell("similarity, response maps, tighter crop", 3),
            Cell("similarity, response maps", 3),
        ),
    ),
)
