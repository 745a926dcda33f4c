"""Interpolates the weights of two checkpoints, one of which was fine-tuned from the other.

    python experiments/blend.py compact compact_video --share 0.7 --out blend.safetensors

writes (1 - share) times the first plus share times the second: a compromise between the data of the
fine-tuning and the data from before (Wortsman et al., CVPR 2022).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rednet_jax.errors import RednetError
from rednet_jax.weights.blend import blend
from rednet_jax.weights.store import write_weights

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
        shares = (1 - arguments.share, arguments.share)
        write_weights(arguments.out, *blend((arguments.first, arguments.second), shares))
    except RednetError as error:
        parser.error(str(error))
