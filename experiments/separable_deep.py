"""`separable` with more blocks and 5 x 5 kernels, from the weights of separable_continued.py.

    python experiments/grow.py experiments/separable_deep.py --checkpoint WEIGHTS --out FILE
    rednet train experiments/separable_deep.py --run-dir RUN --data-dir PREPARED \\
        --init-from FILE

`separable` has 3.5 % on its training faces, where `compact` has 2.9: it is too small or too
shallow. Data as in separable_continued.py.
"""

import dataclasses
from pathlib import Path

from rednet_jax.model.separable import SeparableDecoder, SeparableEncoder
from rednet_jax.train.load import load_experiment


class DeepEncoder(SeparableEncoder):
    """Twice the blocks at every level, and depthwise kernels of 5 x 5."""

    depths = (2, 4, 4, 2)
    kernel = 5


class DeepDecoder(SeparableDecoder):
    """A block at every level."""

    depths = (1, 1, 1)


_continued = load_experiment(Path(__file__).with_name("separable_continued.py"))
(_stage,) = _continued.stages

experiment = dataclasses.replace(
    _continued,
    name="separable_deep",
    model=dataclasses.replace(_continued.model, encoder=DeepEncoder, decoder=DeepDecoder),
    stages=(dataclasses.replace(_stage, one_pass_steps=8_000),),
)
