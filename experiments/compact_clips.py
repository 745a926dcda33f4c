"""The last stage of compact_video.py alone: clips, from weights that know pictures.

    rednet train experiments/compact_clips.py --run-dir RUN --data-dir PREPARED --init-from compact

Expects 300w and 300vw prepared. Hardware: 2 CPU cores: 2.5 s of core time a step, so 20 minutes
where both are free. Checkpoints are chosen by the error on the validation clips, followed as the
tracker does. The released `compact_video` is the best of such a run, of its step 750, when neither
`compact` took its crop anew; its card has the figures. With crops taken anew it has not been run.
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
