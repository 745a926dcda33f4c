"""The last stage of compact_video.py alone: clips, from weights that know pictures.

    rednet train experiments/compact_clips.py --run-dir RUN --data-dir PREPARED --init-from compact

Expects 300w and 300vw prepared. Hardware: 2 CPU cores: about 3 s of core time a step, 50 minutes
where one is free. Checkpoints are chosen by the error on the validation clips, followed as the
tracker does. The released `compact_video` is the end of such a run; its card has the figures.
"""

import dataclasses
from pathlib import Path

from rednet_jax.train.load import load_experiment

_video = load_experiment(Path(__file__).with_name("compact_video.py"))
_pictures = load_experiment(Path(__file__).with_name("compact_registered.py"))
(_clips,) = _video.stages[-1:]
_room = {"cached_size": 320, "cover": 2.0}

experiment = dataclasses.replace(
    _video,
    name="compact_clips",
    model=_pictures.model,
    stages=(dataclasses.replace(_clips, data=dataclasses.replace(_clips.data, **_room)),),
)
