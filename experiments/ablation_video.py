"""Which state to carry over frames, on clips in which single frames are not enough.

    rednet ablate experiments/ablation_video.py --runs-dir RUNS --data-dir PREPARED

Every arm starts from the released `compact` and is trained on clips in which bursts of frames are
corrupted: an occluder, motion blur, darkness, low resolution, dropped frames. Each arm is measured
with K = 1 on clean validation clips, within bursts from another implementation, and in the ten
frames after them. Crops are cut around the landmarks of the frame before, as the tracker does.

The ECCV paper applies an LSTM to C_pe alone, because identity does not change over frames. The
gated map is ours: the LSTM's grid of 4 x 4 is too coarse to hold a landmark's position, the map is
not. The baselines are single frames, with and without a one-euro filter.

Expects 300w and 300vw prepared. Hardware: 15 runs of 400 steps; two quiet CPU cores take about 10
minutes for each.
"""

import dataclasses

from rednet_jax.ablate.plan import Ablation, Arm, Cell, Claim, On
from rednet_jax.data.augment import Bursts
from rednet_jax.data.pipeline import ClipConfig
from rednet_jax.model.config import FeedbackUpdate, Recurrence, RedNetConfig
from rednet_jax.train.experiment import DataConfig, Experiment, OptimiserConfig, Stage
from rednet_jax.train.losses import LossConfig

STEPS = 400


def _carrying(
    recurrence: Recurrence, feedback_update: FeedbackUpdate = "replace", frames: int = 16
) -> Experiment:
    """Clips of `frames` frames; the batch has as many frames whatever that is."""
    stage = Stage(
        name="clips",
        data=DataConfig(
            train=("300vw/train", "300w/train"),
            weights=(0.75, 0.25),
            validation="300vw/validation",
            cached_size=320,
            cover=2.0,
        ),
        clips=ClipConfig(frames=frames),
        bursts=Bursts(0.7, shortest=4, longest=12),
        losses=LossConfig(stability=30.0 if frames > 1 else 0.0),
        optimiser=OptimiserConfig(learning_rate=5e-4, warmup_steps=50, rates=("encoder*0.1",)),
        # Of few people: running statistics, as they have no moments of their own.
        statistics="running",
        steps=STEPS,
        one_pass_steps=STEPS,
        batch=64 // frames,
    )
    model = RedNetConfig.preset(
        "compact",
        recrop="similarity",
        context=1.5,
        recrop_margin=1.15,
        recurrence=recurrence,
        feedback_update=feedback_update,
    )
    return Experiment(name="video", model=model, stages=(stage,), evaluate_every=STEPS)


def _arm(name: str, experiment: Experiment, *fresh: str) -> Arm:
    return Arm(name, experiment, init_from="compact", fresh=fresh)


single = _arm("each frame alone", _carrying("none", frames=1), "temporal")
single = dataclasses.replace(single, video="alone")
GATED, MAPS = "gated map", "maps carried"


def _less(name: str, than: str, sentence: str, on: On, by: str = "ours") -> Claim:
    return Claim(sentence, Cell(name, 1, on), Cell(than, 1, on), by)


ablation = Ablation(
    name="ablation_video",
    question="Which state should be carried over frames, where single frames are not enough?",
    arms=(
        single,
        dataclasses.replace(single, name="each frame alone, one-euro filter", video="smoothed"),
        _arm(MAPS, _carrying("none"), "temporal"),
        _arm("maps and LSTM on C_pe", _carrying("pose_expression"), "temporal"),
        _arm("maps and LSTM on C", _carrying("code"), "temporal"),
        _arm(GATED, _carrying("none", "gated"), "temporal", "gate"),
    ),
    baseline=MAPS,
    claims=(
        _less(
            "maps and LSTM on C_pe",
            MAPS,
            "An LSTM on C_pe lowers the error in clean video.",
            "clips",
            "ECCV 2016",
        ),
        _less(
            "maps and LSTM on C_pe",
            MAPS,
            "An LSTM on C_pe lowers the error within bursts of corrupted frames.",
            "bursts",
            "both papers",
        ),
        Claim(
            "An LSTM on C_pe lowers the jitter in clean video.",
            Cell("maps and LSTM on C_pe", 1, "clips", "jitter"),
            Cell(MAPS, 1, "clips", "jitter"),
            "both papers",
        ),
        _less(
            "maps and LSTM on C_pe",
            "maps and LSTM on C",
            "An LSTM on C_pe errs less than one on the whole code, within bursts.",
            "bursts",
            "ECCV 2016",
        ),
        _less(
            MAPS,
            "each frame alone",
            "Maps carried over frames lower the error in clean video.",
            "clips",
        ),
        _less(
            MAPS,
            "each frame alone",
            "Maps carried over frames lower the error within bursts.",
            "bursts",
        ),
        _less(
            MAPS,
            "each frame alone, one-euro filter",
            "Maps carried over frames err less than a filter behind single frames, within bursts.",
            "bursts",
        ),
        Claim(
            "Maps carried over frames lower the jitter of single frames in clean video.",
            Cell(MAPS, 1, "clips", "jitter"),
            Cell("each frame alone", 1, "clips", "jitter"),
        ),
        _less(GATED, MAPS, "A gated map errs less than a replaced one, within bursts.", "bursts"),
        _less(
            GATED, MAPS, "A gated map errs less than a replaced one, after bursts.", "after-bursts"
        ),
    ),
    on=("clips", "clips-halved", "bursts", "after-bursts"),
    feedback_steps=(1,),
)
