"""Validation of an untrained network on noise and on clips; a script, as one of two processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rednet_jax.evaluate.clips import clip_windows
from rednet_jax.evaluate.protocols import Crops
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train import validation
from rednet_jax.train.distributed import joined

FACES = 5


def figures(data_dir: Path) -> dict[str, Any]:
    """Results on faces and on clips, and on how many of each the network ran in this process."""
    config = RedNetConfig.preset(
        "compact",
        image_size=64,
        widths=(4, 6, 8, 10, 12, 14, 5),
        code_width=16,
        recurrent_width=4,
        regression_width=6,
        identities=5,
    )
    rng = np.random.default_rng(0)
    crops = Crops(
        [f"face {i}" for i in range(FACES)],
        rng.integers(256, size=(FACES, 64, 64, 3), dtype=np.uint8),
        np.tile(np.eye(2, 3), (FACES, 1, 1)) * (1 + rng.random((FACES, 1, 1))),
        rng.uniform(0, 64, (FACES, 68, 2)).astype(np.float32),
        np.ones((FACES, 68), bool),
        np.tile(np.float32([0, 0, 64, 64]), (FACES, 1)),
        [],
        config.scheme,
    )
    windows = clip_windows("300vw", "train", margin=2.0, size=96, data_dir=data_dir)
    variables = rednet.init(config, jax.random.key(0))
    counts = []
    align, follow = validation.align_crops, validation.follow

    def counted_crops(config: Any, variables: Any, images: Any, passes: int) -> Any:
        counts.append(len(images))
        return align(config, variables, images, passes)

    def counted_clips(config: Any, variables: Any, windows: Any, passes: int) -> Any:
        counts.append(len(windows.frames))
        return follow(config, variables, windows, passes)

    validation.align_crops, validation.follow = counted_crops, counted_clips
    try:
        results = [validation.validate(config, variables, faces, 1) for faces in (crops, windows)]
    finally:
        validation.align_crops, validation.follow = align, follow
    return {
        "nme": [result.nme for result in results],
        "jitter": results[1].jitter,
        "shown": [{face.name: face.nme for face in result.shown} for result in results],
        "pixels": [
            int(sum(face.image.sum(dtype=int) for face in result.shown)) for result in results
        ],
        "ran": counts,
    }


if __name__ == "__main__":
    port, process, folder = sys.argv[1:]
    with joined(f"localhost:{port}", 2, int(process)):
        print(f"figures {json.dumps(figures(Path(folder)))}")
