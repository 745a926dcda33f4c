"""The last stage of compact_video.py alone, on clips and images, from weights trained on images.

    rednet train experiments/compact_clips.py --run-dir RUN --data-dir PREPARED --init-from compact

Half of each batch are clips. The other half are images, repeated in every frame with a drifting
crop: trained on clips alone, of 20 people, the network errs more on images than before.
The released `compact_video` is the mean of the weights of two such runs, this and one of clips
alone (`--data.train 300vw/train --data.weights 1`): as good as the latter in video, and better on
images; its card has the figures.

Expects 300w, helen, ytf68 and 300vw prepared. Hardware: 2 CPU cores, alone: about 1.8 s a step, so
half an hour. Checkpoints are chosen by the error on the validation clips, tracked frame by frame.
"""

import dataclasses
from pathlib import Path

from rednet_jax.train.load import load_experiment

_video = load_experiment(Path(__file__).with_name("compact_video.py"))
_images = load_experiment(Path(__file__).with_name("compact_registered.py"))
(_clips,) = _video.stages[-1:]

experiment = dataclasses.replace(
    _video,
    name="compact_clips",
    model=_images.model,
    stages=(
        dataclasses.replace(
            _clips,
            data=dataclasses.replace(
                _clips.data,
                train=("300vw/train", "300w/train", "helen/train", "ytf68/train"),
                weights=(0.5, 0.3, 0.1, 0.1),
                cached_size=320,
                cover=2.0,
            ),
        ),
    ),
)
