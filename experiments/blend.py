"""Weights between those of two checkpoints, one of which was trained on from the other.

    python experiments/blend.py compact compact_video --share 0.7 --out blend.safetensors

writes (1 - share) of the first and share of the second: what training on gave for one kind of data
and cost on another can then be weighed (Wortsman et al., CVPR 2022).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jax
import numpy as np

from rednet_jax.errors import RednetError
from rednet_jax.weights.store import load, write_weights


def blend(first: str, second: str, share: float, out: Path) -> None:
    """Writes the blend.

    Raises:
        RednetError: a checkpoint that cannot be read, two of other networks, or a file that cannot
            be written.
    """
    (config, one), (other, two) = load(first), load(second)
    if config != other:
        raise RednetError(f"{second}: not the network of {first}")
    blended = jax.tree.map(lambda a, b: np.float32(1 - share) * a + np.float32(share) * b, one, two)
    write_weights(out, config, blended)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", metavar="CHECKPOINT")
    parser.add_argument("second", metavar="CHECKPOINT")
    parser.add_argument("--share", type=float, required=True, help="of the second, 0 to 1")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    arguments = parser.parse_args()
    if not 0 <= arguments.share <= 1:
        parser.error(f"--share is from 0 to 1, not {arguments.share:g}")
    try:
        blend(arguments.first, arguments.second, arguments.share, arguments.out)
    except RednetError as error:
        parser.error(str(error))
