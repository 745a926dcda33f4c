"""`compact` trained on generated faces alone, without any photograph.

    rednet train experiments/compact_generated.py --run-dir RUN
    python experiments/generated_faces.py RUN --data-dir PREPARED

Hardware: 2 CPU cores, alone: about 0.9 s a step, of which drawing the faces takes a third, so a
quarter of an hour. Its error on real faces is in results/generated_faces.json.
"""

from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import Experiment, GeneratedData, OptimiserConfig, Stage

experiment = Experiment(
    name="compact_generated",
    model=RedNetConfig.preset("compact", feedback_steps=1),
    stages=(
        Stage(
            data=GeneratedData(),
            optimiser=OptimiserConfig(learning_rate=2e-3, warmup_steps=100),
            steps=1_000,
            batch=32,
        ),
    ),
    evaluate_every=250,
)
