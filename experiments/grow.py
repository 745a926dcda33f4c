"""Writes weights for a larger network from those of a smaller one, to train on from.

    python experiments/grow.py experiments/separable_deep.py --checkpoint WEIGHTS --out FILE
    rednet train experiments/separable_deep.py --init-from FILE --run-dir RUN

`rednet_jax.weights.grow` describes what is copied.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jax

from rednet_jax.errors import RednetError
from rednet_jax.train.load import load_experiment
from rednet_jax.weights.grow import grow
from rednet_jax.weights.store import load, write_weights

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", type=Path, metavar="EXPERIMENT.py", help="of the larger one")
    parser.add_argument("--checkpoint", required=True, metavar="WEIGHTS", help="of the smaller one")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    arguments = parser.parse_args()
    try:
        model = load_experiment(arguments.experiment).model
        _, trained = load(arguments.checkpoint)
        write_weights(arguments.out, model, grow(trained, model, jax.random.key(0)))
    except RednetError as error:
        parser.error(str(error))
